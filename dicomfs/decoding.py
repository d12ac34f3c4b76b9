"""Decoding on a few threads: each frame goes to who waits for it as soon as it is made, the rest goes on.

Owns which *run* (the frames of one band of a segment, which come one after another) is taken on next: one
somebody waits for before one that merely is not finished, the longest waiting first.  A run that is put off
keeps its decoder, so nothing is made twice.  Knows neither packs nor codecs: a run is an iterator.

Who wants a value of a run that nobody is at makes it, where a processor is free: to wake a thread and to wait
for it takes up to a tenth of the time that a frame takes, and the system may put two threads that were woken
shortly after each other on one processor.  A thread of ours takes the run on when the value is there.

One lock guards the tables; it is held while values are handed on and never while one is made.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dicomfs.decoded import BytesCache
from dicomfs.errors import CodecError, DicomfsError

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

Steps = Generator[tuple[int, bytes | DicomfsError], None, None]
"""The values of a run by rising place, or what is wrong with one."""

IDLE_S = 0.2
"""How long a thread waits for more work: to begin one takes longer than to wake it."""

UNFINISHED = 8
"""Runs nobody waits for that keep their decoders; those wanted last stay."""


@dataclass(frozen=True, slots=True)
class Wanted(Generic[K]):
    """A value and the run that makes it."""

    run: Hashable
    place: int
    """Number of the value in its run."""
    stop: int
    """Place behind the last value of the run."""
    key_of: Callable[[int], K]
    """Under which key the value at a place is cached."""
    make: Callable[[], tuple[int, Steps]]
    """First place and steps of the run; called only if no run of that name is on its way to the place."""
    finish: bool = True
    """Whether the run goes on when nobody waits for it: the cache should then hold all of it."""


@dataclass(eq=False, slots=True)
class _Run(Generic[K]):
    name: Hashable
    steps: Steps
    key_of: Callable[[int], K]
    stop: int
    position: int
    """Place of the next value."""
    goal: int
    """Where to stop when nobody waits."""
    waiting: dict[int, Future[bytes | None]] = field(default_factory=dict)
    ticket: int = 0
    """When somebody began to wait."""
    busy: bool = False
    ended: bool = False


_Begun = tuple[Future[bytes | None], _Run[K] | None]


class Decoding(Generic[K]):
    """Values that runs make, from a cache where they are there already.  Thread-safe.

    At most so many runs are taken on at a time, by threads and by those who want values.  Threads begin with
    work and end soon without: an idle reader has none.  Where the system starts no thread, those who want
    values make them, and nothing else is made.  A thread that is interrupted, as by Ctrl-C, may leave a run
    taken on where that was not within a step: nothing should be wanted any more then.
    """

    def __init__(self, cache: BytesCache[K], threads: int) -> None:
        self._cache, self._threads = cache, threads
        self._lock = threading.Lock()
        self._work_there = threading.Condition(self._lock)
        self._runs: OrderedDict[Hashable, _Run[K]] = OrderedDict()
        self._working = self._idle = self._called = self._helping = 0
        self._tickets = itertools.count()
        self._closed = self._refused = False

    def fetch(self, wanted: Wanted[K], beside: Iterable[Wanted[K]] = ()) -> bytes:
        """The value; those ``beside`` it are made meanwhile as `ahead` does, without a word of what is wrong.

        Raises what ``wanted.make`` raises, and what the steps of the run raise or yield.
        """
        while True:
            future, run = self._begin(wanted, wait=True)
            try:
                for other in () if future.done() else beside:
                    with contextlib.suppress(DicomfsError):
                        self.ahead(other)
            finally:
                if run is not None:
                    self._make_here(run, future)
            try:
                value = future.result()
            finally:
                # An error keeps this frame, and the future keeps the error: no circle with decoders in it.
                del future, run
            if value is not None:
                return value

    def ahead(self, wanted: Wanted[K]) -> None:
        """Have a value made if a thread has nothing else to do; raises what ``wanted.make`` raises."""
        self._begin(wanted, wait=False)

    def close(self) -> None:
        """Finish nothing that nobody waits for."""
        with self._lock:
            self._closed = True
            self._drop(0)
            self._work_there.notify_all()

    def _begin(self, wanted: Wanted[K], *, wait: bool) -> _Begun[K]:
        with self._lock:
            found = self._join(wanted, wait=wait)
        if found is not None:
            return found
        first, steps = wanted.make()
        with self._lock:
            found = self._join(wanted, wait=wait)
            if found is not None:
                # Another thread was faster; these steps were never begun.
                return found
            new = _Run(wanted.run, steps, wanted.key_of, wanted.stop, first, first)
            old = self._runs.pop(wanted.run, None)
            if old is not None:
                # It is past what is wanted now; who waits for it waits for the new one.
                new.waiting, new.ticket = old.waiting, old.ticket
                self._end(old)
            self._runs[wanted.run] = new
            return self._want(new, wanted, wait=wait)

    def _join(self, wanted: Wanted[K], *, wait: bool) -> _Begun[K] | None:
        value = self._cache.get(wanted.key_of(wanted.place))
        if value is not None:
            done: Future[bytes | None] = Future()
            done.set_result(value)
            return done, None
        run = self._runs.get(wanted.run)
        if run is None or run.position > wanted.place:
            return None
        return self._want(run, wanted, wait=wait)

    def _want(self, run: _Run[K], wanted: Wanted[K], *, wait: bool) -> _Begun[K]:
        """The value to come, or None where nobody makes it any more; and the run if it is to be made here."""
        self._runs.move_to_end(run.name)
        run.goal = run.stop if wanted.finish else max(run.goal, wanted.place + 1)
        future: Future[bytes | None] = Future()
        if wait:
            if not run.waiting:
                run.ticket = next(self._tickets)
            future = run.waiting.setdefault(wanted.place, future)
        self._drop(UNFINISHED)
        here = wait and not run.busy and self._at_work() < self._threads
        if here:
            run.busy = True
            self._helping += 1
        if self._next() is not None:
            self._call()
        return future, run if here else None

    def _at_work(self) -> int:
        return self._working - self._idle + self._helping

    def _call(self) -> bool:
        """Set a thread to work if there may be one more; False where the system starts none."""
        if self._at_work() >= self._threads:
            return True
        if self._idle:
            # Counted as busy at once: the next call is for another one.
            self._idle -= 1
            self._called += 1
            self._work_there.notify()
            return True
        self._working += 1
        try:
            threading.Thread(target=self._work, name="dicomfs-decode", daemon=True).start()
        except RuntimeError as problem:
            self._working -= 1
            if not self._refused:
                _log.warning("decoding goes on with %d threads: %s", self._working, problem)
            self._refused = True
            return False
        self._refused = False
        return True

    def _make_here(self, run: _Run[K], future: Future[bytes | None]) -> None:
        """Make a value in this thread, and what comes before it in its run."""
        going_on = True
        while going_on:
            try:
                made = _step(run)
            except BaseException:
                # This thread was interrupted: no other one can go on with the steps.
                self._made_here(run, future, CodecError("band", "given up"))
                raise
            going_on = self._made_here(run, future, made)

    def _made_here(
        self, run: _Run[K], future: Future[bytes | None], made: tuple[int, bytes | DicomfsError] | Exception
    ) -> bool:
        """Hand on what this thread made; whether it goes on with the run."""
        with self._lock:
            self._hand_on(run, made)
            if not future.done() and not run.ended:
                run.busy = True
                return True
            self._helping -= 1
            if self._next() is not None and not self._call():
                self._leave_to_those_who_wait()
            return False

    def _leave_to_those_who_wait(self) -> None:
        """Nobody is left who takes on what is waited for: those who wait are to see for themselves."""
        for run in self._runs.values():
            if not run.busy:
                for waiting in run.waiting.values():
                    waiting.set_result(None)
                run.waiting = {}

    def _drop(self, keep: int) -> None:
        """End the runs nobody waits for, but for those wanted last."""
        idle = [run for run in self._runs.values() if not run.waiting and not run.busy]
        for run in idle[: max(0, len(idle) - keep)]:
            del self._runs[run.name]
            self._end(run)

    @staticmethod
    def _end(run: _Run[K]) -> None:
        run.ended, run.waiting = True, {}
        if not run.busy:
            run.steps.close()

    def _next(self) -> _Run[K] | None:
        idle = [run for run in self._runs.values() if not run.busy]
        wanted = [run for run in idle if run.waiting]
        if wanted:
            return min(wanted, key=lambda run: run.ticket)
        return next((run for run in reversed(idle) if run.position < run.goal and not self._closed), None)

    def _work(self) -> None:
        while True:
            with self._lock:
                while (run := self._next()) is None:
                    if not self._called_soon():
                        self._working -= 1
                        return
                run.busy = True
            made = _step(run)
            with self._lock:
                self._hand_on(run, made)

    def _called_soon(self) -> bool:
        """Wait for a call; whether there was one."""
        self._idle += 1
        self._work_there.wait_for(lambda: self._called or self._closed, IDLE_S)
        if self._called:
            self._called -= 1
            return True
        self._idle -= 1
        return False

    def _hand_on(self, run: _Run[K], made: tuple[int, bytes | DicomfsError] | Exception) -> None:
        run.busy = False
        self._give(run, made)
        if not run.ended and (isinstance(made, Exception) or run.position >= run.stop):
            del self._runs[run.name]
            run.ended = True
        if run.ended:
            run.steps.close()

    def _give(self, run: _Run[K], made: tuple[int, bytes | DicomfsError] | Exception) -> None:
        """A value to the cache and to who waits for it, or what ended the run to all who wait."""
        if isinstance(made, Exception):
            for waiting in run.waiting.values():
                _settle(waiting, made)
            run.waiting = {}
            return
        place, value = made
        if isinstance(value, bytes):
            self._cache.put_all({run.key_of(place): value})
        run.position = place + 1
        future = run.waiting.pop(place, None)
        if future is not None:
            _settle(future, value)


def _step(run: _Run[K]) -> tuple[int, bytes | DicomfsError] | Exception:
    """The next value of a run, or what ends it: whatever that is, it goes to those who wait."""
    try:
        return next(run.steps, CodecError("band", "ends before the frame that was asked for"))
    except Exception as problem:
        _forget_frames(problem)
        return problem


def _forget_frames(problem: BaseException | None) -> None:
    """Leave the message and drop the tracebacks, its causes' too.

    Who waits keeps the error, the error its frames, and these the run with those who wait: a circle.  Frames
    of codecs hold views of memory, and CPython 3.11 crashes when it collects a circle with one of those.
    """
    while problem is not None:
        problem.__traceback__ = None
        problem = problem.__cause__ or problem.__context__


def _settle(waiting: Future[bytes | None], value: bytes | Exception) -> None:
    if isinstance(value, bytes):
        waiting.set_result(value)
    else:
        waiting.set_exception(value)
