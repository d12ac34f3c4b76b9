"""Peers are answered truthfully: success when it is stored, out of resources when there is no room."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dicomfs.errors import CatalogFull, DicomfsError, NotTakenError, TierFull
from dicomfs.network.model import Answer, NodeSettings, Peer, Status, StoreRequest
from dicomfs.scp import StorageService, serving
from dicomfs.store_sink import FolderSink
from tests import samples
from tests.archives import fill, small_disk
from tests.peers import Modality, Rejected

PEER = Peer("CT1", "ARCHIVE", "192.0.2.7")
ASKED = StoreRequest(PEER, samples.CT_IMAGE, "1.2.3", samples.EXPLICIT)
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
NOISE = bytes(range(256)) * 4096


@dataclass
class FakeSink:
    """Fails where it is told to."""

    folder: Path
    fail_at: str = ""
    problem: OSError | DicomfsError = field(default_factory=lambda: OSError(errno.EIO, "Input/output error"))
    events: list[str] = field(default_factory=list)

    def begin(self, _request: StoreRequest) -> FakeSink:
        self._do("begin")
        return self

    def write(self, _data: memoryview) -> None:
        self._do("write")

    def commit(self) -> None:
        self._do("commit")

    def discard(self) -> None:
        self._do("discard")

    def close(self) -> None:
        self._do("close")

    def _do(self, event: str) -> None:
        self.events.append(event)
        if event == self.fail_at:
            raise self.problem


@pytest.fixture
def sink(tmp_path: Path) -> FakeSink:
    return FakeSink(tmp_path)


def answer(sink: FakeSink, reserve_bytes: int = 0) -> Answer:
    """What one store of three fragments is answered."""
    store = StorageService(sink, reserve_bytes, 4).opened(PEER).begin(ASKED)
    for _ in range(3):
        store.write(memoryview(b"data"))
    return store.finish()


def test_a_store_is_written_and_committed(sink: FakeSink) -> None:
    assert answer(sink).status is Status.SUCCESS
    assert sink.events == ["begin", "write", "write", "write", "commit"]


@pytest.mark.parametrize("at", ["begin", "write", "commit"])
@pytest.mark.parametrize(
    "problem,status",
    [
        (NO_SPACE, Status.OUT_OF_RESOURCES),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Status.OUT_OF_RESOURCES),
        (OSError(errno.EMFILE, "Too many open files"), Status.OUT_OF_RESOURCES),
        (TierFull("local", "x", "full"), Status.OUT_OF_RESOURCES),
        (CatalogFull("full"), Status.OUT_OF_RESOURCES),
        (OSError(errno.EIO, "Input/output error"), Status.PROCESSING_FAILURE),
        (NotTakenError("the data set", "has no SOP Instance UID"), Status.CANNOT_UNDERSTAND),
    ],
    ids=str,
)
def test_the_first_problem_ends_a_store_and_is_answered(
    sink: FakeSink, at: str, problem: OSError | DicomfsError, status: Status
) -> None:
    sink.fail_at, sink.problem = at, problem
    assert answer(sink).status is status
    expected = {"begin": ["begin"], "write": ["begin", "write", "discard"]}
    assert sink.events == expected.get(at, ["begin", "write", "write", "write", "commit", "discard"])


def test_a_store_that_ends_early_is_discarded(sink: FakeSink) -> None:
    service = StorageService(sink, 0, 4)
    store = service.opened(PEER).begin(ASKED)
    store.write(memoryview(b"data"))
    store.abandon()
    assert sink.events == ["begin", "write", "discard"]


def test_when_the_reserve_is_reached_nobody_is_admitted_and_nothing_begun(sink: FakeSink) -> None:
    service = StorageService(sink, 1 << 60, 4)
    assert not service.opened(PEER).admitted
    assert answer(sink, 1 << 60) == Answer(Status.OUT_OF_RESOURCES, "no space left")
    assert sink.events == []


def test_when_the_folder_is_gone_nobody_is_admitted(sink: FakeSink) -> None:
    sink.folder = sink.folder / "gone"
    assert not StorageService(sink, 0, 4).opened(PEER).admitted
    assert answer(sink).status is Status.PROCESSING_FAILURE


def test_associations_are_bounded_and_one_that_ends_makes_room(sink: FakeSink) -> None:
    service = StorageService(sink, 0, 2)
    sessions = [service.opened(PEER) for _ in range(4)]
    assert [session.admitted for session in sessions] == [True, True, False, False]
    for session in sessions[1:]:
        session.ended("released")
    assert [service.opened(PEER).admitted for _ in range(2)] == [True, False]


def test_one_line_an_association_and_one_a_failed_store_are_logged(
    sink: FakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session = StorageService(sink, 0, 4).opened(PEER)
    for at in ("", "commit"):
        sink.fail_at = at
        store = session.begin(ASKED)
        store.write(memoryview(b"data"))
        store.finish()
    session.ended("released")
    failed, ended = (vars(record) for record in caplog.records)
    assert (failed["msg"], failed["levelname"]) == ("store failed", "WARNING")
    assert (failed["instance"], failed["status"], failed["reason"]) == (
        "1.2.3",
        "0x0110",
        "Input/output error",
    )
    assert (ended["msg"], ended["calling"], ended["address"], ended["end"]) == (
        "association",
        "CT1",
        "192.0.2.7",
        "released",
    )
    assert (ended["stored"], ended["failed"], ended["bytes"]) == (1, 1, 8)


Serve = Callable[[FolderSink], NodeSettings]


def test_a_full_disk_is_answered_and_all_goes_on_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24) as disk:
        (disk / "in").mkdir()
        sink, settings = FolderSink(disk / "in"), NodeSettings("ARCHIVE", 0, "127.0.0.1")
        with serving(sink, settings, 0, 5) as node, Modality(node.port) as peer:
            assert peer.store(NOISE, instance="1.1").status == 0
            ballast = fill(disk, 2 << 20)
            answer = peer.store(NOISE * 4, instance="1.2")
            assert (answer.status, answer.comment) == (0xA700, "no space left")
            assert list(disk.rglob("*.part")) == []
            # What was refused takes no room from what fits.
            assert peer.store(NOISE, instance="1.3").status == 0
            ballast.unlink()
            assert peer.store(NOISE * 4, instance="1.2").status == 0
            peer.release()
        assert sorted(path.name for path in disk.rglob("*.dcm")) == ["1.1.dcm", "1.2.dcm", "1.3.dcm"]


def test_below_the_reserve_associations_are_rejected_and_stores_within_one_fail(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24) as disk:
        sink, settings = FolderSink(disk), NodeSettings("ARCHIVE", 0, "127.0.0.1")
        with serving(sink, settings, 8 << 20, 5) as node, Modality(node.port) as peer:
            ballast = fill(disk, 4 << 20)
            assert peer.store(NOISE, instance="1.1").status == 0xA700
            with pytest.raises(Rejected, match=r"\(2, 3, 2\)"):
                Modality(node.port)
            ballast.unlink()
            assert peer.store(NOISE, instance="1.1").status == 0
            Modality(node.port).release()


def test_a_large_data_set_ends_when_it_reaches_the_reserve(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        sink, settings = FolderSink(disk), NodeSettings("ARCHIVE", 0, "127.0.0.1")
        with serving(sink, settings, 24 << 20, 5) as node, Modality(node.port) as peer:
            assert peer.store(bytes(56 << 20), piece=200_000).status == 0xA700
            assert list(disk.rglob("*.part")) == []
            assert peer.store(NOISE).status == 0
