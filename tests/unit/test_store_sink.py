"""Received files below a folder: whole under their final names, never one over another."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from dicomfs.errors import UsageError
from dicomfs.network.model import Peer, StoreRequest
from dicomfs.store_sink import FolderSink
from tests import samples

DAY = time.strftime("%Y%m%d")


def asked(instance: str = "1.2.3", calling: str = "CT1") -> StoreRequest:
    return StoreRequest(Peer(calling, "ARCHIVE", "127.0.0.1"), samples.CT_IMAGE, instance, samples.EXPLICIT)


def store(sink: FolderSink, data: bytes, request: StoreRequest | None = None) -> None:
    incoming = sink.begin(request or asked())
    incoming.write(memoryview(data))
    incoming.commit()


def files(folder: Path) -> dict[str, bytes]:
    """Visible files below a folder, without their meta groups of 300-odd bytes."""
    found = {}
    for path in sorted(folder.rglob("*.dcm")):
        data = path.read_bytes()
        assert data[128:132] == b"DICM"
        found[str(path.relative_to(folder))] = data[144 + int.from_bytes(data[140:144], "little") :]
    return found


def test_a_file_lies_under_its_sender_day_and_instance(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    store(sink, b"data set")
    sink.close()
    assert files(tmp_path) == {f"CT1/{DAY}/1.2.3.dcm": b"data set"}


def test_nothing_is_seen_before_the_end_and_nothing_of_what_is_discarded(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    incoming = sink.begin(asked())
    incoming.write(memoryview(b"data"))
    assert files(tmp_path) == {}
    incoming.discard()
    incoming.discard()
    assert [path for path in tmp_path.rglob("*") if path.suffix in {".part", ".dcm"}] == []


def test_the_same_bytes_again_are_there_already(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    for _ in range(3):
        store(sink, b"data set")
    assert len(files(tmp_path)) == 1
    assert list(tmp_path.rglob("*.part")) == []


def test_other_bytes_under_the_same_instance_get_a_name_of_their_own(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    for data in (b"first", b"second", b"third", b"second", b"first"):
        store(sink, data)
    found = files(tmp_path)
    assert sorted(found.values()) == [b"first", b"second", b"third"]
    assert found[f"CT1/{DAY}/1.2.3.dcm"] == b"first"


def test_a_second_name_that_is_taken_by_others_is_left_alone_too(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    store(sink, b"first")
    store(sink, b"second")
    (second,) = (path for path in tmp_path.rglob("1.2.3-*.dcm"))
    second.write_bytes(b"edited")
    store(sink, b"second")
    assert second.read_bytes() == b"edited"
    assert len(list(tmp_path.rglob("*.dcm"))) == 3


@pytest.mark.parametrize(
    "text",
    ["../../etc/passwd", "/abs", "..", ".", "", " ", "a/b\\c:*?", "nul", "x\0y\n", "A.", "\u202e" * 64],
)
def test_what_peers_call_things_never_leads_out_of_the_folder(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    sink = FolderSink(folder)
    store(sink, b"data set", asked(text, text))
    (path,) = folder.rglob("*.dcm")
    assert len(path.relative_to(folder).parts) == 3
    assert path.parent.name == DAY
    assert list(tmp_path.iterdir()) == [folder]


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "outside"
    (folder / "CT1" / DAY).mkdir(parents=True)
    outside.write_bytes(b"not ours")
    (folder / "CT1" / DAY / "1.2.3.dcm").symlink_to(outside)
    sink = FolderSink(folder)
    with pytest.raises(OSError, match="symbolic"):
        store(sink, b"data set")
    assert outside.read_bytes() == b"not ours"


def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    store(sink, b"first")
    shutil.rmtree(tmp_path / "CT1")
    store(sink, b"second")
    assert files(tmp_path) == {f"CT1/{DAY}/1.2.3.dcm": b"second"}


def test_what_a_dead_process_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".dicomfs-scp" / "1-dead"
    left.mkdir(parents=True)
    (left / "lock").touch()
    (left / "1.part").write_bytes(b"half")
    living = FolderSink(tmp_path)
    incoming = living.begin(asked())
    incoming.write(memoryview(b"data"))
    FolderSink(tmp_path).close()
    incoming.commit()
    assert not left.exists()
    assert list(files(tmp_path).values()) == [b"data"]


def test_bytes_and_names_are_synced_before_a_store_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FolderSink(tmp_path)
    events: list[str] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append("sync part" if path.suffix == ".part" else f"sync {path.relative_to(tmp_path)}")
        fsync(descriptor)

    def noted_link(source: Path, target: Path) -> None:
        events.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    store(sink, b"one")
    assert events == ["sync part", "sync .", "sync CT1", "link", f"sync CT1/{DAY}"]
    events.clear()
    store(sink, b"two", asked("1.2.4"))
    assert events == ["sync part", "link", f"sync CT1/{DAY}"]


def test_files_are_not_for_everybody(tmp_path: Path) -> None:
    store(FolderSink(tmp_path), b"data set")
    (path,) = tmp_path.rglob("*.dcm")
    assert path.stat().st_mode & 0o007 == 0
    assert path.parent.stat().st_mode & 0o007 == 0


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written to"):
        FolderSink(tmp_path / "missing")
