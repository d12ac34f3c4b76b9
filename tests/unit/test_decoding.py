"""Runs of values: each is handed on when it is made, and made once."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from dicomfs import decoding
from dicomfs.decoded import BytesCache
from dicomfs.decoding import Decoding, Steps, Wanted
from dicomfs.errors import CodecError, DicomfsError, MismatchError

Key = tuple[str, int]
PATIENCE_S = 60


@dataclass
class Source:
    """Runs of ten values whose steps wait for permission; notes what was made."""

    length: int = 10
    free: bool = True
    broken_at: int = -1
    wrong_at: int = -1
    made: list[Key] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def wanted(self, name: str, place: int, *, finish: bool = True) -> Wanted[Key]:
        return Wanted(
            name, place, max(10, self.length), lambda at: (name, at), lambda: self._open(name), finish
        )

    def _open(self, name: str) -> tuple[int, Steps]:
        self.opened.append(name)
        return 0, self._steps(name)

    def _steps(self, name: str) -> Steps:
        try:
            for place in range(self.length):
                if not self.free:
                    assert self.permits.acquire(timeout=PATIENCE_S)
                if place == self.broken_at:
                    raise CodecError("test", "broken")
                self.made.append((name, place))
                value: bytes | DicomfsError = f"{name}{place}".encode()
                yield place, MismatchError("test") if place == self.wrong_at else value
        finally:
            self.closed.append(name)


def make(threads: int = 2, limit_bytes: int = 1 << 20) -> Decoding[Key]:
    return Decoding(BytesCache(limit_bytes), threads)


def begin(found: Decoding[Key], wanted: Wanted[Key], beside: Sequence[Wanted[Key]] = ()) -> Future[bytes]:
    """Fetch in a thread of its own; it is made there, or waited for, or done."""
    result: Future[bytes] = Future()

    def read() -> None:
        try:
            result.set_result(found.fetch(wanted, beside))
        except Exception as problem:
            result.set_exception(problem)

    threading.Thread(target=read, daemon=True).start()
    until(lambda: result.done() or wanted.place in waited_for(found, wanted.run))
    return result


def waited_for(found: Decoding[Key], run: Hashable) -> list[int]:
    with found._lock:
        return list(found._runs[run].waiting) if run in found._runs else []


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_value_is_handed_on_while_the_rest_of_its_run_is_still_to_come() -> None:
    source, found = Source(free=False), make()
    results = [begin(found, source.wanted("a", place)) for place in (3, 1)]
    source.permits.release(2)
    assert results[1].result(PATIENCE_S) == b"a1"
    assert not results[0].done()
    source.permits.release(2)
    assert results[0].result(PATIENCE_S) == b"a3"
    source.permits.release(6)
    until(lambda: len(source.made) == 10)
    assert source.opened == ["a"]


def test_what_nobody_waits_for_is_finished_and_found_again() -> None:
    source, found = Source(), make()
    assert begin(found, source.wanted("a", 0)).result(PATIENCE_S) == b"a0"
    until(lambda: source.closed == ["a"])
    assert [begin(found, source.wanted("a", place)).result(PATIENCE_S) for place in (9, 0)] == [b"a9", b"a0"]
    assert source.made == [("a", place) for place in range(10)]


def test_a_run_that_is_not_to_be_finished_stops_and_goes_on_where_it_stopped() -> None:
    source, found = Source(), make()
    assert begin(found, source.wanted("a", 2, finish=False)).result(PATIENCE_S) == b"a2"
    until(lambda: found._working == 0)
    assert len(source.made) == 3
    assert begin(found, source.wanted("a", 5, finish=False)).result(PATIENCE_S) == b"a5"
    assert source.opened == ["a"]


def test_many_readers_of_one_run_get_every_value_of_it_made_once() -> None:
    source, found = Source(length=200), make(threads=4)
    got: dict[int, bytes] = {}

    def read(offset: int) -> None:
        for place in range(offset, 200, 7):
            got[place] = found.fetch(source.wanted("a", place))

    readers = [threading.Thread(target=read, args=(offset,)) for offset in range(7)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert got == {place: f"a{place}".encode() for place in range(200)}
    assert source.made == [("a", place) for place in range(200)]


def test_readers_in_any_order_with_a_cache_too_small_lose_no_value() -> None:
    source, found = Source(length=40), make(threads=3, limit_bytes=20)
    wrong: list[str] = []

    def read(offset: int) -> None:
        for turn in range(60):
            name, place = "abc"[turn % 3], (turn * 17 + offset * 5) % 40
            if found.fetch(source.wanted(name, place)) != f"{name}{place}".encode():
                wrong.append(f"{name}{place}")

    readers = [threading.Thread(target=read, args=(offset,)) for offset in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(PATIENCE_S)
    assert not any(reader.is_alive() for reader in readers)
    assert wrong == []


def test_a_value_that_is_wanted_again_after_it_was_dropped_starts_the_run_anew() -> None:
    source, found = Source(), make(threads=1, limit_bytes=1)
    first = begin(found, source.wanted("a", 4, finish=False))
    assert first.result(PATIENCE_S) == b"a4"
    later: Future[bytes] = begin(found, source.wanted("a", 1, finish=False))
    assert later.result(PATIENCE_S) == b"a1"
    assert source.opened == ["a", "a"]
    until(lambda: source.closed == ["a"])


def test_a_run_that_breaks_fails_who_waits_for_the_rest_of_it_alone() -> None:
    source, found = Source(broken_at=4, free=False), make()
    early, late = (begin(found, source.wanted("a", place)) for place in (3, 7))
    source.permits.release(5)
    assert early.result(PATIENCE_S) == b"a3"
    with pytest.raises(CodecError, match="broken"):
        late.result(PATIENCE_S)
    source.broken_at, source.free = -1, True
    assert begin(found, source.wanted("a", 7)).result(PATIENCE_S) == b"a7"


def test_a_wrong_value_fails_who_waits_for_it_and_nobody_else() -> None:
    source, found = Source(wrong_at=2, free=False), make()
    results = [begin(found, source.wanted("a", place)) for place in (1, 2, 3)]
    source.permits.release(10)
    with pytest.raises(MismatchError):
        results[1].result(PATIENCE_S)
    assert [results[0].result(PATIENCE_S), results[2].result(PATIENCE_S)] == [b"a1", b"a3"]


def test_a_run_that_ends_too_early_is_an_error() -> None:
    source, found = Source(length=3), make()
    with pytest.raises(CodecError, match="ends before"):
        begin(found, source.wanted("a", 5)).result(PATIENCE_S)


def test_an_error_of_any_kind_reaches_who_waits() -> None:
    def steps() -> Steps:
        raise ZeroDivisionError
        yield 0, b""  # type: ignore[unreachable]

    found = make()
    with pytest.raises(ZeroDivisionError):
        begin(found, Wanted("a", 0, 1, lambda at: ("a", at), lambda: (0, steps()))).result(PATIENCE_S)


def test_what_cannot_be_opened_is_told_to_who_wants_it_and_leaves_no_trace() -> None:
    def refuse() -> tuple[int, Steps]:
        raise CodecError("test", "no payload")

    found = make()
    with pytest.raises(CodecError, match="no payload"):
        found.fetch(Wanted("a", 0, 1, lambda at: ("a", at), refuse))
    source = Source()
    assert begin(found, source.wanted("a", 0)).result(PATIENCE_S) == b"a0"


def test_who_waits_goes_before_what_merely_is_not_finished() -> None:
    source, found = Source(free=False), make(threads=1)
    found.ahead(source.wanted("a", 0))
    wanted = begin(found, source.wanted("b", 1))
    source.permits.release(3)
    assert wanted.result(PATIENCE_S) == b"b1"
    assert [key for key in source.made if key[0] == "a"] in ([], [("a", 0)])
    source.permits.release(20)
    until(lambda: len(source.made) == 20)


def test_runs_put_off_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "UNFINISHED", 2)
    source, found = Source(), make()
    for name in "abcdef":
        assert begin(found, source.wanted(name, 0, finish=False)).result(PATIENCE_S)
    until(lambda: len(source.closed) >= 3)
    assert len(found._runs) <= 3


def test_after_closing_nothing_is_finished_but_what_somebody_waits_for() -> None:
    source, found = Source(free=False), make()
    first = begin(found, source.wanted("a", 0))
    found.close()
    source.permits.release(1)
    assert first.result(PATIENCE_S) == b"a0"
    until(lambda: found._working == 0)
    assert source.made == [("a", 0)]


def test_an_idle_reader_has_no_threads() -> None:
    source, found = Source(), make()
    begin(found, source.wanted("a", 9)).result(PATIENCE_S)
    until(lambda: found._working == 0)
    until(lambda: not any(thread.name == "dicomfs-decode" for thread in threading.enumerate()))


def test_a_thread_without_work_takes_on_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "IDLE_S", 10 * PATIENCE_S)
    before = set(threading.enumerate())
    source, found = Source(), make(threads=1)
    assert found.fetch(source.wanted("a", 0)) == b"a0"
    until(lambda: found._idle == 1)
    (thread,) = set(threading.enumerate()) - before
    found.ahead(source.wanted("b", 0))
    until(lambda: len(source.made) == 20)
    assert set(threading.enumerate()) - before == {thread}
    found.close()
    until(lambda: not thread.is_alive())


def test_a_thread_that_was_called_is_not_counted_on_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "IDLE_S", 10 * PATIENCE_S)
    source, found = Source(), make(threads=2)
    assert found.fetch(source.wanted("a", 0)) == b"a0"
    until(lambda: found._idle == 1)
    source.free = False
    for name in "bc":
        found.ahead(source.wanted(name, 0))
    until(lambda: sum(run.busy for run in found._runs.values()) == 2)
    source.permits.release(20)
    until(lambda: len(source.made) == 30)
    found.close()
    until(lambda: found._working == 0)


def test_who_wants_a_value_makes_it_and_a_thread_goes_on_with_the_rest() -> None:
    makers: list[str] = []

    def steps() -> Steps:
        for place in range(10):
            makers.append(threading.current_thread().name)
            yield place, b"%d" % place

    found = make(threads=1)
    wanted: Wanted[Key] = Wanted("a", 1, 10, lambda at: ("a", at), lambda: (0, steps()))
    assert found.fetch(wanted) == b"1"
    until(lambda: len(makers) == 10)
    assert makers == [threading.current_thread().name] * 2 + ["dicomfs-decode"] * 8


def test_no_more_runs_are_taken_on_than_there_may_be_threads() -> None:
    source, found = Source(free=False), make(threads=2)
    wanted = [begin(found, source.wanted(name, 0)) for name in "abc"]
    found.ahead(source.wanted("d", 0))
    assert [run.name for run in found._runs.values() if run.busy] == ["a", "b"]
    assert found._working == 0
    source.permits.release(1)
    until(lambda: sum(one.done() for one in wanted) == 1)
    until(lambda: found._runs["c"].busy)
    source.permits.release(100)
    assert [one.result(PATIENCE_S) for one in wanted] == [b"a0", b"b0", b"c0"]
    until(lambda: len(source.made) == 40)


def test_who_waits_longest_is_served_first() -> None:
    source, found = Source(length=1, free=False), make(threads=1)
    wanted = [begin(found, source.wanted(name, 0)) for name in "abcd"]
    source.permits.release(4)
    assert [one.result(PATIENCE_S) for one in wanted] == [b"a0", b"b0", b"c0", b"d0"]
    assert source.made == [(name, 0) for name in "abcd"]


def test_what_is_beside_a_value_is_made_meanwhile_and_never_before_it() -> None:
    source, found = Source(free=False), make(threads=2)
    beside = [source.wanted(name, 0) for name in "bc"]
    reader = begin(found, source.wanted("a", 0), beside)
    until(lambda: sum(run.busy for run in found._runs.values()) == 2)
    assert source.opened == ["a", "b", "c"]
    assert found._runs["a"].busy
    source.permits.release(100)
    assert reader.result(PATIENCE_S) == b"a0"
    until(lambda: len(source.made) == 30)


def test_what_is_wrong_beside_a_value_does_not_reach_who_wants_the_value() -> None:
    def refuse(problem: Exception) -> Wanted[Key]:
        def fail() -> tuple[int, Steps]:
            raise problem

        return Wanted("b", 0, 1, lambda at: ("b", at), fail)

    source, found = Source(), make()
    assert found.fetch(source.wanted("a", 0), [refuse(CodecError("test", "no payload"))]) == b"a0"
    with pytest.raises(OSError, match="broken"):
        found.fetch(source.wanted("c", 0), [refuse(OSError("broken"))])
    assert (("c", 0) in source.made, found._helping) == (True, 0)


def test_an_error_leaves_nothing_for_the_garbage_collector() -> None:
    source, held = Source(broken_at=3), [make()]
    with pytest.raises(CodecError, match="broken"):
        held[0].fetch(source.wanted("a", 5))
    gone = weakref.ref(held[0])
    gc.disable()
    try:
        held.clear()
        assert gone() is None
    finally:
        gc.enable()


def test_who_joins_a_run_that_nobody_is_at_makes_the_value() -> None:
    source, found = Source(), make()
    assert found.fetch(source.wanted("a", 0, finish=False)) == b"a0"
    assert found.fetch(source.wanted("a", 3, finish=False)) == b"a3"
    assert (source.opened, found._working) == (["a"], 0)


def test_a_run_that_is_past_what_is_wanted_gives_those_who_wait_to_a_new_one() -> None:
    source, found = Source(free=False), make(threads=2, limit_bytes=1)
    source.permits.release(4)
    late = begin(found, source.wanted("a", 6))
    until(lambda: len(source.made) == 4)
    early = begin(found, source.wanted("a", 1))
    source.permits.release(100)
    assert (early.result(PATIENCE_S), late.result(PATIENCE_S)) == (b"a1", b"a6")
    assert source.opened == ["a", "a"]


def test_who_is_interrupted_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    source, found = Source(free=False), make(threads=1)
    shared: list[Future[bytes]] = []

    def interrupt(timeout: float) -> bool:
        shared.extend(begin(found, source.wanted(*key)) for key in (("a", 2), ("b", 0)))
        raise KeyboardInterrupt

    monkeypatch.setattr(source.permits, "acquire", interrupt)
    with pytest.raises(KeyboardInterrupt):
        found.fetch(source.wanted("a", 1))
    source.free = True
    with pytest.raises(CodecError, match="given up"):
        shared[0].result(PATIENCE_S)
    assert shared[1].result(PATIENCE_S) == b"b0"
    assert found.fetch(source.wanted("a", 1)) == b"a1"


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
