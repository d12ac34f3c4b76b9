"""A limit on bytes a second: exact over time, shared, without bursts; time passes by sleeping only."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from dicomfs.model import ObjectKey
from dicomfs.tiers.bandwidth import BURST_SECONDS, Bandwidth
from dicomfs.tiers.base import ByteRange
from dicomfs.tiers.folder import FolderTier
from tests.clocks import Clock


def test_without_a_limit_nobody_waits() -> None:
    clock = Clock()
    Bandwidth(None, clock.sleep, clock).take(1 << 40)
    assert clock.pauses == []


def test_bytes_take_their_time() -> None:
    clock = Clock()
    bandwidth = Bandwidth(1000, clock.sleep, clock)
    for _ in range(100):
        bandwidth.take(100)
    assert clock.now == pytest.approx(10 - BURST_SECONDS)


def test_an_unused_allowance_is_kept_for_a_moment_only() -> None:
    clock = Clock()
    bandwidth = Bandwidth(1000, clock.sleep, clock)
    clock.now = 3600.0
    bandwidth.take(1000)
    assert clock.now - 3600 == pytest.approx(1 - BURST_SECONDS)


@pytest.mark.parametrize(
    "bytes_per_second, piece",
    [(None, 256 << 10), (1, 1 << 10), (80_000, 10_000), (1 << 30, 64 << 10)],
)
def test_pieces_are_small_enough_to_take_turns(bytes_per_second: int | None, piece: int) -> None:
    assert Bandwidth(bytes_per_second).piece == piece


def test_threads_share_it() -> None:
    taken, lock = 0.0, threading.Lock()

    def sleep(seconds: float) -> None:
        nonlocal taken
        with lock:
            taken = max(taken, seconds)

    bandwidth = Bandwidth(1000, sleep, lambda: 0.0)

    def take() -> None:
        for _ in range(50):
            bandwidth.take(10)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The clock stands still: whoever came last was told to wait for all before it.
    assert taken == pytest.approx(2 - BURST_SECONDS)


def test_a_folder_moves_large_objects_in_pieces(tmp_path: Path) -> None:
    clock = Clock()
    data = bytes(1 << 20)
    tier = FolderTier("laboratory", tmp_path, local=False, bandwidth=Bandwidth(1 << 20, clock.sleep, clock))
    source = ObjectKey("a/b")
    tier.put(source, data, hashlib.sha256(data).hexdigest())
    assert clock.now == pytest.approx(1 - BURST_SECONDS)
    assert tier.get_range(source, ByteRange(0, len(data))) == data
    assert clock.now == pytest.approx(2 - BURST_SECONDS)
    assert max(clock.pauses) <= (64 << 10) / (1 << 20) + 1e-9
