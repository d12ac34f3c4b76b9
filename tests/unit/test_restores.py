"""Restores of cold objects: each is begun once, tiers are asked seldom, few wait."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dicomfs.errors import ObjectCold, ObjectNotFound, TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.restores import LOOK_SECONDS, Restores
from dicomfs.tiers.memory import MemoryTier
from tests.clocks import Clock
from tests.cold_tier import ColdTier

KEY = ObjectKey("pixel/ab/" + "ab" * 32)


class Pause(threading.Event):
    """Waiting takes no time, but moves the clock, and after a while the tier thaws."""

    def __init__(self, clock: Clock, cold: ColdTier, thaws_at: float) -> None:
        super().__init__()
        self._clock, self._cold, self._thaws_at = clock, cold, thaws_at

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.now += timeout or 0.0
        if self._clock.now >= self._thaws_at:
            self._cold.thaw()
        return self.is_set()


@pytest.fixture
def cold() -> ColdTier:
    tier = MemoryTier("external")
    tier.put(KEY, b"x", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")
    return ColdTier(tier)


def test_a_restore_is_begun_once_and_looked_after_once_a_minute(cold: ColdTier) -> None:
    clock = Clock()
    restores = Restores(clock=clock)
    assert restores.require_thawed(cold, KEY) is False
    restores.begin(cold, KEY)
    restores.begin(cold, KEY)
    assert cold.asked == [KEY]
    for clock.now in (1.0, 30.0, LOOK_SECONDS + 1, LOOK_SECONDS + 2):
        with pytest.raises(ObjectCold) as caught:
            restores.require_thawed(cold, KEY)
        assert caught.value.restoring
    assert cold.stats == 1
    cold.thaw()
    clock.now = 3 * LOOK_SECONDS
    assert restores.require_thawed(cold, KEY) is True
    assert restores.require_thawed(cold, KEY) is False


def test_a_restore_that_cannot_be_begun_is_tried_again(cold: ColdTier) -> None:
    class Refusing(ColdTier):
        def restore(self, key: ObjectKey) -> None:
            if not self.stats:
                self.stats = 1
                raise TransientTierError("external", key, "busy")
            super().restore(key)

    tier = Refusing(cold._inner)
    restores = Restores()
    with pytest.raises(TransientTierError):
        restores.begin(tier, KEY)
    restores.begin(tier, KEY)
    assert tier.asked == [KEY]


def test_who_may_wait_gets_it_when_it_is_there(cold: ColdTier) -> None:
    clock = Clock()
    restores = Restores(300.0, Pause(clock, cold, 100.0), clock)
    restores.begin(cold, KEY)
    assert restores.wait(cold, KEY)
    assert 100 <= clock.now <= 130
    assert restores.require_thawed(cold, KEY) is True


def test_waiting_is_bounded_and_ends_with_the_mount(cold: ColdTier) -> None:
    clock = Clock()
    pause = Pause(clock, cold, 1000.0)
    restores = Restores(300.0, pause, clock)
    restores.begin(cold, KEY)
    assert not restores.wait(cold, KEY)
    assert clock.now == pytest.approx(300.0)
    pause.set()
    assert not restores.wait(cold, KEY)
    assert clock.now < 400
    assert not Restores().wait(cold, KEY)


def test_only_two_wait_at_the_same_time(cold: ColdTier) -> None:
    closed = threading.Event()
    restores = Restores(60.0, closed)
    restores.begin(cold, KEY)
    waiting = [threading.Thread(target=restores.wait, args=(cold, KEY)) for _ in range(2)]
    for one in waiting:
        one.start()
    try:
        while restores._waiters.acquire(blocking=False):
            restores._waiters.release()
        assert not restores.wait(cold, KEY)
    finally:
        closed.set()
        for one in waiting:
            one.join()


def test_what_is_gone_is_told(cold: ColdTier, tmp_path: Path) -> None:
    restores = Restores(60.0, clock=(clock := Clock()))
    restores.begin(cold, KEY)
    cold.delete(KEY)
    clock.now = 2 * LOOK_SECONDS
    with pytest.raises(ObjectNotFound):
        restores.require_thawed(cold, KEY)
