"""The table of faults on an object store: each fault in one of the operations, at one of its calls."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs import config
from dicomfs.archive import Archive
from dicomfs.tiers.s3 import S3Tier
from tests.archives import flip
from tests.fault_table import FAULTS, KINDS, OPERATIONS, calls_of, harm, install, make_starts, some
from tests.s3.servers import BUCKET, Server

CASES = [
    (kind, operation)
    for turn, kind in enumerate(KINDS)
    for number, operation in enumerate(OPERATIONS)
    if (turn + number) % len(OPERATIONS) == 0
]


class Buckets:
    """Archives with an object store as their external tier."""

    def __init__(self, base: Path, server: Server) -> None:
        self._base, self._client = base, server.client()

    def make(self) -> Path:
        url = f"s3://{BUCKET}/{uuid.uuid4()}"
        Archive.create(self._base / "archive", {"external": url}, self._base / "key").close()
        settings = self._base / "archive" / config.FILE_NAME
        settings.write_text(settings.read_text() + "retry_seconds = 0\n")
        return self._base

    def copy(self, start: Path, to: Path) -> Archive:
        shutil.copytree(start, to)
        settings = to / "archive" / config.FILE_NAME
        before = self._prefix(to)
        after = str(uuid.uuid4())
        settings.write_text(settings.read_text().replace(before, after).replace(str(start), str(to)))
        for name in self._names(before):
            source = {"Bucket": BUCKET, "Key": name}
            self._client.copy_object(Bucket=BUCKET, Key=name.replace(before, after, 1), CopySource=source)
        return Archive.open(to / "archive")

    def damage(self, folder: Path) -> None:
        for name in self._names(self._prefix(folder)):
            if name.split("/")[1] in ("pixel", "burned", "opaque", "header"):
                found = self._client.get_object(Bucket=BUCKET, Key=name)
                file = folder / "damaged"
                file.write_bytes(found["Body"].read())
                flip(file, 60)
                self._client.put_object(
                    Bucket=BUCKET, Key=name, Body=file.read_bytes(), Metadata=found["Metadata"]
                )

    def _names(self, prefix: str) -> list[str]:
        found = self._client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
        return [one["Key"] for one in found.get("Contents", [])]

    @staticmethod
    def _prefix(folder: Path) -> str:
        return config.load(folder / "archive").tiers["external"].url.rsplit("/", 1)[1]


@pytest.fixture(autouse=True)
def harmed(moto: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    moto.use(monkeypatch)
    install(S3Tier, monkeypatch)
    yield
    FAULTS.__init__()  # type: ignore[misc]


@pytest.fixture(scope="module")
def place(moto: Server, tmp_path_factory: pytest.TempPathFactory) -> Buckets:
    return Buckets(tmp_path_factory.mktemp("base"), moto)


@pytest.fixture(scope="module")
def starts(place: Buckets, moto: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patched:
        moto.use(patched)
        return make_starts(place, lambda: tmp_path_factory.mktemp("start"))


@pytest.fixture
def workplace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dicomfs-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind, operation", CASES)
def test_a_fault_at_a_call_to_an_object_store_loses_nothing(
    place: Buckets, starts: dict[str, Path], workplace: Path, kind: str, operation: str
) -> None:
    start = starts[operation]
    calls = calls_of(place, start, workplace / "dry", operation)
    due = [at for at, call in enumerate(calls) if call in KINDS[kind]]
    problems = []
    for at in some(due, CASES.index((kind, operation)) * 7, 1):
        found = harm(place, start, workplace / str(at), operation, kind, at)
        problems += [f"{calls[at]} {at}: {problem}" for problem in found]
    assert calls
    assert not problems, "\n".join(problems)
