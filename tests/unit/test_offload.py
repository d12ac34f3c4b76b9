"""Threads for blocking work: one kind never starves another."""

from __future__ import annotations

import threading

import pytest
import trio

from dicomfs.offload import Offload, Work, limits


def test_work_of_another_kind_runs_while_every_reader_waits() -> None:
    async def main() -> str:
        offload = Offload()
        release = threading.Event()

        def read() -> bool:
            return release.wait(30)

        async with trio.open_nursery() as nursery:
            for _ in range(offload.limit(Work.READ) + 1):
                nursery.start_soon(offload.run, Work.READ, read)
            with trio.fail_after(10):
                answer = await offload.run(Work.LIST, str.upper, "listed")
            release.set()
        return answer

    assert trio.run(main) == "LISTED"


def test_what_a_call_raises_reaches_its_caller() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="literal"):
            await Offload().run(Work.ASK, int, "x")

    trio.run(main)


def test_a_cancelled_caller_is_answered_at_once() -> None:
    release = threading.Event()

    async def main() -> bool:
        with trio.move_on_after(0.05) as scope:
            await Offload().run(Work.OPEN, release.wait)
        return scope.cancelled_caught

    assert trio.run(main)
    release.set()


def test_every_kind_of_work_has_a_thread() -> None:
    assert set(limits(1)) == set(Work)
    assert min(limits(1).values()) >= 1
