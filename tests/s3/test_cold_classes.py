"""Archives on an object store's cold storage class: refused with a reason, restored once, waited for."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.moto_api import state_manager

from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.config import TierOptions
from dicomfs.model import ObjectKey
from tests import samples
from tests.archives import contents, digests, write_sources
from tests.fuse.conftest import ARCHIVE, Serve, _starter
from tests.s3.servers import BUCKET, Server

FILES = samples.ct_series(3, 48, 48)
_RESTORE = "s3::keyrestore"


@pytest.fixture
def root(tmp_path: Path, moto: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An archive whose pixels are in a cold class only; a restore takes some questions."""
    moto.use(monkeypatch)
    url = f"s3://{BUCKET}/{uuid.uuid4()}"
    root = tmp_path / "archive"
    assert run(root, "init", "--external", url, "--key-file", str(tmp_path / "key")) == ExitCode.DONE
    with Archive.open(root) as archive:
        archive.import_paths([write_sources(tmp_path / "in", FILES)])
        archive.pack()
    assert run(root, "tier", "copy", "--to", "external", "--all") == ExitCode.DONE
    assert run(root, "tier", "evict", "--from", "local", "--all") == ExitCode.DONE
    freeze(moto, url)
    before = state_manager.get_transition(_RESTORE)
    state_manager.set_transition(_RESTORE, {"progression": "manual", "times": 5})
    yield root
    state_manager.set_transition(_RESTORE, before)


@pytest.fixture
def serve_archive(tmp_path: Path) -> Iterator[Serve]:
    yield from _starter(ARCHIVE, tmp_path)


def run(root: Path, *command: str) -> int:
    return main(["-a", str(root), *command])


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def freeze(server: Server, url: str) -> None:
    """What a lifecycle rule of the bucket does: move packs of frames to a cold class."""
    client, prefix = server.client(), url.removeprefix(f"s3://{BUCKET}/") + "/pixel/"
    for item in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]:
        place = {"Bucket": BUCKET, "Key": item["Key"]}
        client.copy_object(**place, CopySource=place, StorageClass="GLACIER")


def test_only_packs_of_frames_and_streams_get_the_storage_class(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto.use(monkeypatch)
    tier = moto.tier(TierOptions(storage_class="STANDARD_IA"))
    digest = hashlib.sha256(b"x").hexdigest()
    found = {}
    for prefix in ("pixel", "burned", "opaque", "header", "journal", "keyring", "owner"):
        tier.put(ObjectKey(f"{prefix}/00"), b"x", digest)
        place = tier._objects.place(f"{prefix}/00")
        found[prefix] = moto.client().head_object(**place).get("StorageClass", "STANDARD")
    assert {prefix for prefix, given in found.items() if given == "STANDARD_IA"} == {
        "pixel",
        "burned",
        "opaque",
    }


def test_warming_waits_for_restores_if_told_to(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(root, "tier", "warm", "--all", "--json") == ExitCode.BUSY
    started = said(capsys)
    assert len(started["restoring"]) == 1
    assert started["failed"] == []
    assert run(root, "tier", "warm", "--all", "--wait", "--poll", "0.1", "--json") == ExitCode.DONE
    assert said(capsys)["restoring"] == []
    with Archive.open(root) as archive:
        assert all("local" in record.tiers for record in archive.catalog.objects())
        assert contents(archive) == digests(FILES)


@pytest.mark.real_mount
def test_a_mount_lists_what_is_cold_and_says_that_it_is_busy(root: Path, serve_archive: Serve) -> None:
    patients = serve_archive(root).mountpoint / "patients"
    path = min(patients.rglob("*.dcm"))
    assert sorted(one.stat().st_size for one in patients.rglob("*.dcm")) == sorted(map(len, FILES))
    assert os.getxattr(path, "user.dicomfs.residency") == b"cold"
    assert json.loads(os.getxattr(path, "user.dicomfs.all"))["tier"] == "external"
    with pytest.raises(OSError, match="busy") as caught:
        path.read_bytes()
    assert caught.value.errno == errno.EBUSY
    assert os.getxattr(path, "user.dicomfs.residency") == b"restoring"
    assert run(root, "tier", "warm", "--all", "--wait", "--poll", "0.1") == ExitCode.DONE
    assert hashlib.sha256(path.read_bytes()).hexdigest() in digests(FILES)
    assert os.getxattr(path, "user.dicomfs.residency") == b"local"
