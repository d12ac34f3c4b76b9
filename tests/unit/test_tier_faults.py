"""Every fault at every call to a tier: the table in docs/durability.md, "Tiers".

Whatever fails: the command ends, with a declared error or a report; all files read back exactly from what is
left; and the same command again, then gc, leaves nothing wrong.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import DicomfsError, TierError, TierFull, TransientTierError
from dicomfs.model import InstanceId, ObjectKey
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from dicomfs.scrubbing import Budget
from dicomfs.tiers.base import ByteRange, ObjectStat
from dicomfs.tiers.folder import FolderTier
from tests import samples
from tests.archives import contents, digests, flip, write_sources
from tests.tiered import LABORATORY, copy_all, copy_of, evict_all, two_tiers

FILES = samples.ct_series(2, 24, 24)
_YEAR = 366 * 86400 * 10**9


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Faults:
    """Counts the calls to the laboratory and harms the chosen one, or all from there on."""

    kind: str = ""
    at: int = -1
    calls: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, tier: FolderTier, call: str) -> bool:
        """Count a call; whether it is to be harmed."""
        if tier.name != LABORATORY:
            return False
        with self.lock:
            number = len(self.calls)
            self.calls.append(call)
        lasting = self.kind in ("credentials expired", "unmounted", "killed", "slow")
        return number == self.at or (lasting and 0 <= self.at <= number)

    def before(self, call: str) -> None:
        """Raise what a failing call raises."""
        if self.kind == "killed":
            raise Killed
        if self.kind in ("error before", "unmounted", "credentials expired"):
            raise TierError(LABORATORY, "", self.kind)
        if self.kind == "slow":
            raise TransientTierError(LABORATORY, "", "timed out")
        if self.kind == "disk full" and call == "put":
            raise TierFull(LABORATORY, "", "no space left")

    def read(self, data: bytes) -> bytes:
        """Harm what was read."""
        if self.kind == "truncated":
            return data[:-1]
        if self.kind == "wrong bytes":
            return data[:-1] + bytes((data[-1] ^ 1,)) if data else data
        return data


FAULTS = Faults()
KINDS = {
    "error before": ("put", "get", "get_range", "stat", "delete", "list"),
    "error after": ("put", "delete"),
    "slow": ("put", "get", "get_range", "stat", "delete", "list"),
    "truncated": ("get", "get_range"),
    "wrong bytes": ("get", "get_range"),
    "lost delete": ("delete",),
    "listing that lags": ("list",),
    "credentials expired": ("put", "get", "get_range", "stat", "delete", "list"),
    "disk full": ("put",),
    "unmounted": ("list", "stat", "put"),
    "killed": ("put", "delete", "get", "list"),
}
"""Fault -> calls that it can happen to."""


class Harmed(FolderTier):
    """A folder whose calls are harmed as FAULTS says; its methods take the place of FolderTier's."""

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        due = _begin(self, "put")
        PUT(self, key, source, sha256)
        _answer(due, key)

    def get(self, key: ObjectKey) -> bytes:
        due = _begin(self, "get")
        data = GET(self, key)
        return FAULTS.read(data) if due else data

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        due = _begin(self, "get_range")
        data = GET_RANGE(self, key, wanted)
        return FAULTS.read(data) if due else data

    def stat(self, key: ObjectKey) -> ObjectStat:
        _begin(self, "stat")
        return STAT(self, key)

    def delete(self, key: ObjectKey) -> None:
        due = _begin(self, "delete")
        if not (due and FAULTS.kind == "lost delete"):
            DELETE(self, key)
        _answer(due, key)

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        due = _begin(self, "list")
        found = [*LIST(self, prefix)]
        # Packs only: an owner or a journal object that is not listed is another archive's look at the tier.
        lagging = due and FAULTS.kind == "listing that lags" and not prefix.startswith(("owner", "journal"))
        return iter(found[:-1] if lagging else found)


METHODS = ("put", "get", "get_range", "stat", "delete", "list")
PUT, GET, GET_RANGE = FolderTier.put, FolderTier.get, FolderTier.get_range
STAT, DELETE, LIST = FolderTier.stat, FolderTier.delete, FolderTier.list


def _begin(tier: FolderTier, call: str) -> bool:
    due = FAULTS.due(tier, call)
    if due:
        FAULTS.before(call)
    return due


def _answer(due: bool, key: ObjectKey) -> None:
    if due and FAULTS.kind == "error after":
        raise TierError(LABORATORY, key, "the answer was lost")


@pytest.fixture(autouse=True)
def harmed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in METHODS:
        monkeypatch.setattr(FolderTier, name, Harmed.__dict__[name])
    yield
    FAULTS.__init__()  # type: ignore[misc]


# what is done ------------------------------------------------------------------------------------------


def _copy(archive: Archive) -> None:
    tiering = archive.tiering()
    tiering.copy(LABORATORY, tiering.objects(), NullProgress())


def _evict(archive: Archive) -> None:
    evict_all(archive)


def _evict_far(archive: Archive) -> None:
    evict_all(archive, LABORATORY)


def _heal(archive: Archive) -> None:
    archive.scrubber().scrub(Budget(), NullProgress())


def _collect(archive: Archive) -> None:
    now = max((one.since_ns for one in archive.catalog.condemned()), default=10**18)
    archive.collector().collect(now_ns=now + _YEAR)


def _claim(archive: Archive) -> None:
    archive.claim(LABORATORY)


def _read(archive: Archive) -> None:
    archive.promote_what_is_read()
    contents(archive)


def _forget(archive: Archive) -> None:
    found = [row.id for row in archive.catalog.rows(1) if row.id.position == 0]
    if found:
        archive.decisions().forget(found, "")


def _recover(archive: Archive) -> None:
    archive.close()
    recover(archive.paths.root, (archive.paths.root.parent / LABORATORY).as_uri())


OPERATIONS: dict[str, Callable[[Archive], None]] = {
    "copy": _copy,
    "evict": _evict,
    "evict far": _evict_far,
    "heal": _heal,
    "gc": _collect,
    "claim": _claim,
    "read and promote": _read,
    "forget": _forget,
    "recover": _recover,
}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An archive before each operation, to be copied."""
    base = tmp_path_factory.mktemp("base")
    with two_tiers(base, retry_seconds=0) as archive:
        archive.import_paths([write_sources(base / "in", FILES)])
        archive.pack()
    made: dict[str, Path] = {"copy": base}
    for name in OPERATIONS:
        if name == "copy":
            continue
        made[name] = tmp_path_factory.mktemp("start") / "top"
        with copy_of(base, made[name]) as archive:
            copy_all(archive)
            if name == "heal":
                for path in (made[name] / LABORATORY).glob("*/??/*"):
                    flip(path, 60)
            elif name == "gc":
                with archive.catalog.write() as writer:
                    for record in list(archive.catalog.objects()):
                        writer.remove_placement(record.key, LABORATORY)
                archive.collector().collect(now_ns=10**18)
            elif name == "claim":
                archive.paths.holder.write_text("another folder\n", encoding="ascii")
            elif name == "read and promote":
                evict_all(archive)
    return made


@pytest.fixture
def workplace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dicomfs-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def _calls(start: Path, folder: Path, operation: str) -> list[str]:
    """The calls to the laboratory where nothing fails."""
    FAULTS.__init__()  # type: ignore[misc]
    with copy_of(start, folder) as archive:
        FAULTS.calls.clear()
        OPERATIONS[operation](archive)
    return list(FAULTS.calls)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_call_loses_nothing(
    starts: dict[str, Path], workplace: Path, operation: str, kind: str
) -> None:
    start = starts[operation]
    problems = []
    calls = _calls(start, workplace / "dry", operation)
    assert calls, "nothing is asked of the tier"
    for at, call in enumerate(calls):
        if call in KINDS[kind]:
            top = workplace / str(at)
            problems += [f"{call} {at}: {problem}" for problem in _harm(start, top, operation, kind, at)]
            shutil.rmtree(top)
    assert not problems, "\n".join(problems)


def _harm(start: Path, top: Path, operation: str, kind: str, at: int) -> Iterator[str]:
    archive = copy_of(start, top)
    FAULTS.__init__(kind, at)  # type: ignore[misc]
    try:
        OPERATIONS[operation](archive)
    except (DicomfsError, Killed):
        pass
    finally:
        archive.close()
        FAULTS.__init__()  # type: ignore[misc]
    if not (archive.paths.index / "catalog" / "data.mdb").exists():
        recover(archive.paths.root, (top / LABORATORY).as_uri())
    with Archive.open(archive.paths.root) as left:
        expected = digests(FILES)
        if operation == "forget":
            gone = left.catalog.is_forgotten(InstanceId(1, 0))
            expected = digests(FILES[1:]) if gone else expected
        if contents(left) != expected:
            yield "what is left is not what was accepted"
        if operation == "recover":
            left.close()
    with Archive.open(archive.paths.root) as again:
        OPERATIONS[operation](again)
    with Archive.open(archive.paths.root) as whole:
        if operation == "forget":
            expected = digests(FILES[1:])
        _collect(whole)
        _collect(whole)
        if contents(whole) != expected:
            yield "not all comes back after the same again"
        report = whole.verify(deep=True)
        yield from report.problems
        yield from report.notes
        if any(not record.tiers for record in whole.catalog.objects()):
            yield "an object has no copy"
