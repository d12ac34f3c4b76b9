"""The decoded cache: bounded, and every value made once however many ask."""

from __future__ import annotations

import threading

import pytest

from dicomfs.decoded import BytesCache


def test_the_least_recently_used_goes_first_and_the_bound_holds() -> None:
    cache: BytesCache[int] = BytesCache(30)
    for key in range(3):
        cache.put_all({key: bytes(10)})
    assert cache.get(0) is not None
    cache.put_all({3: bytes(10)})
    assert cache.get(1) is None
    assert [key for key in range(4) if cache.get(key) is not None] == [0, 2, 3]
    assert cache.used_bytes == 30


def test_replacing_a_value_counts_it_once() -> None:
    cache: BytesCache[int] = BytesCache(100)
    for size in (10, 50, 20):
        cache.put_all({1: bytes(size)})
        assert cache.used_bytes == size


def test_a_value_beyond_the_bound_is_kept_alone_until_the_next() -> None:
    cache: BytesCache[int] = BytesCache(10)
    assert cache.fetch(1, 1, lambda: {1: bytes(100)}) == bytes(100)
    assert cache.used_bytes == 100
    cache.put_all({2: b"x"})
    assert (cache.get(1), cache.used_bytes) == (None, 1)


def test_whoever_asks_meanwhile_waits_and_is_served_by_the_first() -> None:
    cache: BytesCache[int] = BytesCache(1000)
    made, started, go = [], threading.Event(), threading.Event()

    def make() -> dict[int, bytes]:
        made.append(1)
        started.set()
        go.wait()
        return {key: bytes([key]) for key in range(8)}

    results: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda key=key: results.update({key: cache.fetch(key, "all", make)}))
        for key in range(8)
    ]
    for thread in threads:
        thread.start()
    started.wait()
    go.set()
    for thread in threads:
        thread.join()
    assert results == {key: bytes([key]) for key in range(8)}
    assert len(made) == 1


def test_a_failure_reaches_its_caller_alone_and_a_waiter_tries_for_itself() -> None:
    cache: BytesCache[int] = BytesCache(1000)
    started, go = threading.Event(), threading.Event()
    failures: list[str] = []

    def fail() -> dict[int, bytes]:
        started.set()
        go.wait()
        raise ValueError("broken")

    def first() -> None:
        try:
            cache.fetch(1, "flight", fail)
        except ValueError as problem:
            failures.append(str(problem))

    one = threading.Thread(target=first)
    one.start()
    started.wait()
    got: list[bytes] = []
    two = threading.Thread(target=lambda: got.append(cache.fetch(1, "flight", lambda: {1: b"good"})))
    two.start()
    go.set()
    one.join()
    two.join()
    assert (failures, got) == (["broken"], [b"good"])
    with pytest.raises(ValueError, match="again"):
        cache.fetch(2, "flight", _raise)
    assert cache.fetch(2, "flight", lambda: {2: b"x"}) == b"x"


def _raise() -> dict[int, bytes]:
    raise ValueError("again")
