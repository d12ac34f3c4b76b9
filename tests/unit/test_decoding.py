"""Runs of values: each is handed on when it is made, and made once."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import Future

import pytest

from dicomfs import decoding
from dicomfs.decoding import Steps, Wanted
from dicomfs.errors import CodecError, MismatchError
from tests.decoding_runs import PATIENCE_S, Key, Source, begin, make, until


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
