"""Received files in an archive: accepted and durable when a store is done, many of them in one go."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dicomfs.accept import Accepted, Acceptor, Candidate, Outcome
from dicomfs.archive import Archive
from dicomfs.archive_sink import ArchiveSink
from dicomfs.dicom.attributes import attributes
from dicomfs.dicom.part10 import scan
from dicomfs.errors import NotTakenError
from dicomfs.group_acceptance import GroupAcceptance
from dicomfs.model import InstanceId
from dicomfs.network.model import Peer, StoreRequest
from tests import samples
from tests.archives import contents, read_whole, rows, tree
from tests.peers import data_set

FILES = samples.ct_series(8, 16, 16)
SOON = 20.0


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as made:
        yield made


@pytest.fixture
def sink(archive: Archive) -> Iterator[ArchiveSink]:
    made = ArchiveSink(archive)
    yield made
    made.close()


def store(sink: ArchiveSink, data: bytes, *, syntax: str = samples.EXPLICIT, calling: str = "CT1") -> None:
    peer = Peer(calling, "ARCHIVE", "127.0.0.1")
    incoming = sink.begin(StoreRequest(peer, samples.CT_IMAGE, "1.2", syntax))
    try:
        incoming.write(memoryview(data))
        incoming.commit()
    except NotTakenError:
        incoming.discard()
        raise


def leftovers(archive: Archive) -> list[Path]:
    return list(archive.paths.spool.rglob("*.part"))


def test_what_was_stored_is_shown_and_exact(archive: Archive, sink: ArchiveSink) -> None:
    for data in FILES:
        store(sink, data_set(data))
    shown = [read_whole(archive, row.id) for _, row in rows(archive)]
    assert sorted(map(data_set, shown)) == sorted(map(data_set, FILES))
    assert leftovers(archive) == []
    archive.pack()
    assert sorted(read_whole(archive, row.id) for _, row in rows(archive)) == sorted(shown)


def test_it_is_there_for_another_process_at_once(archive: Archive, sink: ArchiveSink) -> None:
    store(sink, data_set(FILES[0]))
    with Archive.open(archive.paths.root) as other:
        assert len(contents(other)) == 1


def test_the_same_again_is_one_instance_and_other_bytes_are_a_version(
    archive: Archive, sink: ArchiveSink
) -> None:
    changed = data_set(FILES[0]).replace(b"Sample Works", b"Sample works")
    for data in (data_set(FILES[0]), data_set(FILES[0]), changed, changed):
        store(sink, data)
    assert sorted(row.version for _, row in rows(archive)) == [0, 1]
    assert len(tree(archive)) == 2
    assert leftovers(archive) == []


def test_a_data_set_of_noise_is_kept_under_the_instance_that_was_named(
    archive: Archive, sink: ArchiveSink
) -> None:
    store(sink, b"\xff" * 1000)
    ((_, row),) = rows(archive)
    assert data_set(read_whole(archive, row.id)) == b"\xff" * 1000


def test_a_media_directory_is_no_instance(archive: Archive, sink: ArchiveSink) -> None:
    peer = Peer("CT1", "ARCHIVE", "127.0.0.1")
    incoming = sink.begin(StoreRequest(peer, "1.2.840.10008.1.3.10", "1.2", samples.EXPLICIT))
    incoming.write(memoryview(samples.write([(0x00041130, "CS", "DISK")])))
    with pytest.raises(NotTakenError, match="no SOP Instance UID"):
        incoming.commit()
    incoming.discard()
    assert leftovers(archive) == []


def test_many_threads_store_at_once_and_nothing_is_lost(archive: Archive, sink: ArchiveSink) -> None:
    files = [data_set(data) for seed in range(4) for data in samples.ct_series(6, 8, 8, seed=seed)]

    def send(part: Sequence[bytes]) -> None:
        for data in part:
            store(sink, data)

    threads = [threading.Thread(target=send, args=(files[number::6],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(contents(archive)) == 24


class FakeAcceptor(Acceptor):
    """Notes its groups; the first waits until it may go on."""

    def __init__(self) -> None:
        self.groups: list[list[Path]] = []
        self.first_is_in, self.may_go_on = threading.Event(), threading.Event()

    def accept(self, candidates: Sequence[Candidate]) -> list[Accepted]:
        paths = [candidate.temporary for candidate in candidates]
        self.groups.append(paths)
        self.first_is_in.set()
        assert self.may_go_on.wait(SOON)
        if Path("bad") in paths:
            raise OSError(5, "Input/output error")
        return [NEW] * len(paths)


NEW = Accepted(Outcome.NEW, InstanceId(1, 0))


def candidate(name: str) -> Candidate:
    return Candidate(Path(name), 1, 0, bytes(32), attributes(scan(FILES[0])))


def test_what_ends_while_others_are_accepted_is_accepted_together() -> None:
    acceptor = FakeAcceptor()
    group = GroupAcceptance(acceptor.accept)
    results: dict[str, object] = {}

    def accept(name: str) -> None:
        try:
            results[name] = group.accept(replace(candidate("x"), temporary=Path(name)))
        except OSError as problem:
            results[name] = problem.errno

    first = threading.Thread(target=accept, args=("first",))
    first.start()
    assert acceptor.first_is_in.wait(SOON)
    others = [threading.Thread(target=accept, args=(name,)) for name in ("a", "bad", "b")]
    for thread in others:
        thread.start()
    while len(group.waiting()) < len(others):
        pass
    acceptor.may_go_on.set()
    for thread in (first, *others):
        thread.join()
    assert len(acceptor.groups[1]) == 3
    assert results == {"first": NEW, "a": NEW, "b": NEW, "bad": 5}
