"""Runs of values where the system starts no thread, or only some."""

from __future__ import annotations

import random
import threading

import pytest

from dicomfs import decoding
from dicomfs.decoding import Decoding
from dicomfs.errors import CodecError
from tests.decoding_runs import PATIENCE_S, Key, Source, begin, make, until


def refuse_threads(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """Let the system start only so many decoding threads, as under a limit of processes."""
    start, left = threading.Thread.start, [after]

    def limited(thread: threading.Thread) -> None:
        if thread.name == "dicomfs-decode":
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)


def test_where_no_thread_can_be_started_those_who_want_values_make_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_threads(monkeypatch)
    source, found = Source(), make()
    assert [found.fetch(source.wanted("a", place)) for place in (4, 9, 0)] == [b"a4", b"a9", b"a0"]
    assert source.made == [("a", place) for place in range(10)]
    assert (found._working, found._helping) == (0, 0)
    assert [record.message for record in caplog.records] == [
        "decoding goes on with 0 threads: can't start new thread"
    ]
    monkeypatch.undo()
    assert found.fetch(source.wanted("c", 1)) == b"c1"
    until(lambda: ("c", 9) in source.made)


def test_without_threads_those_who_wait_are_told_when_a_processor_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_threads(monkeypatch)
    source, found = Source(free=False), make(threads=1)
    wanted = [begin(found, source.wanted(name, 0)) for name in "abcd"]
    source.permits.release(4)
    assert [one.result(PATIENCE_S) for one in wanted] == [b"a0", b"b0", b"c0", b"d0"]
    assert source.opened == ["a", "b", "c", "d"]


def test_readers_without_threads_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch)
    source, found = Source(length=1, free=False), make(limit_bytes=1)
    wanted = [begin(found, source.wanted("a", 0)) for _ in range(4)]
    source.permits.release(4)
    assert [one.result(PATIENCE_S) for one in wanted] == [b"a0"] * 4


def test_runs_begun_without_threads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch)
    source, found = Source(), make()
    for number in range(4 * decoding.UNFINISHED):
        assert found.fetch(source.wanted(f"run {number} ", 0))
    assert len(found._runs) <= decoding.UNFINISHED + 1
    assert not any(run.waiting for run in found._runs.values())


def test_threads_that_are_there_do_the_work_of_those_that_could_not_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_threads(monkeypatch, after=1)
    source, found = Source(), make(threads=3)
    for name in "ab":
        found.ahead(source.wanted(name, 0))
    until(lambda: len(source.made) == 20)


def test_without_threads_what_is_wrong_reaches_who_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch)
    source, found = Source(broken_at=3), make()
    with pytest.raises(CodecError, match="broken"):
        found.fetch(source.wanted("a", 5))
    assert found.fetch(source.wanted("b", 2)) == b"b2"
    assert (found._working, found._helping) == (0, 0)
    source.broken_at = -1
    assert found.fetch(source.wanted("a", 5)) == b"a5"


def read_at_random(found: Decoding[Key], source: Source, seed: int, wrong: list[Key]) -> None:
    """Want values of three runs, some of them ahead; what is not as it should be goes to ``wrong``."""
    chance = random.Random(seed)
    for _ in range(30):
        name, place = chance.choice("abc"), chance.randrange(10)
        wanted = source.wanted(name, place, finish=chance.random() < 0.5)
        try:
            if chance.random() < 0.2:
                found.ahead(wanted)
            elif found.fetch(wanted) != f"{name}{place}".encode():
                wrong.append((name, place))
        except CodecError:
            if source.broken_at < 0:
                wrong.append((name, place))


@pytest.mark.parametrize("refused", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("broken_at", [-1, 7])
def test_readers_get_every_value_whatever_threads_are_refused(
    monkeypatch: pytest.MonkeyPatch, refused: float, broken_at: int
) -> None:
    chance, start = random.Random(5), threading.Thread.start

    def sometimes(thread: threading.Thread) -> None:
        if thread.name == "dicomfs-decode" and chance.random() < refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", sometimes)
    monkeypatch.setattr(decoding, "IDLE_S", 0.0005)
    for number in range(15):
        source, wrong = Source(broken_at=broken_at), list[Key]()
        found = make(threads=1 + number % 3, limit_bytes=(8, 40, 1000)[number // 3 % 3])
        readers = [
            threading.Thread(
                target=read_at_random, args=(found, source, 6 * number + own, wrong), daemon=True
            )
            for own in range(6)
        ]
        for reader in readers:
            reader.start()
        if number % 5 == 0:
            found.close()
        for reader in readers:
            reader.join(PATIENCE_S)
        assert not any(reader.is_alive() for reader in readers)
        until(lambda: found._working == 0)  # noqa: B023 - called at once
        assert (wrong, found._helping) == ([], 0)
