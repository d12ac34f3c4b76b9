"""Retrying, metering, opening by URL."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dicomfs.errors import ObjectNotFound, TierError, TierFull, TransientTierError, UsageError
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, TierUsage
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.metered import MeteredTier
from dicomfs.tiers.registry import open_tier
from dicomfs.tiers.retry import RetryingTier, RetryPolicy
from tests.faulty_tier import FaultyTier

KEY = ObjectKey("a/b")
SHA256 = hashlib.sha256(b"bytes").hexdigest()


class _Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def _transient(count: int) -> list[TierError]:
    return [TransientTierError("memory", "", f"number {number}") for number in range(count)]


def _retrying(inner: FaultyTier, clock: _Clock) -> RetryingTier:
    return RetryingTier(inner, RetryPolicy(0.1, 1.0, 10.0), clock.sleep, clock)


def test_transient_errors_are_retried_with_growing_pauses() -> None:
    clock = _Clock()
    faulty = FaultyTier(MemoryTier(), _transient(4))
    _retrying(faulty, clock).put(KEY, b"bytes", SHA256)
    assert faulty.calls == 5
    for pause, longest in zip(clock.pauses, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert longest / 2 <= pause <= longest


def test_retrying_ends_at_the_deadline_with_the_last_error() -> None:
    clock = _Clock()
    with pytest.raises(TransientTierError, match="number"):
        _retrying(FaultyTier(MemoryTier(), _transient(10_000)), clock).get(KEY)
    assert clock.now <= 10.0


@pytest.mark.parametrize("error", [TierFull("memory", "", "full"), TierError("memory", "", "broken")])
def test_other_errors_pass_at_once(error: TierError) -> None:
    clock = _Clock()
    with pytest.raises(type(error)):
        _retrying(FaultyTier(MemoryTier(), [error]), clock).stat(KEY)
    assert clock.pauses == []


def test_a_listing_is_retried_before_it_begins() -> None:
    inner = MemoryTier()
    inner.put(KEY, b"bytes", SHA256)
    tier = _retrying(FaultyTier(inner, _transient(2)), _Clock())
    assert [key for key, _ in tier.list("")] == [KEY]
    assert list(tier.list("none")) == []


def test_calls_bytes_and_errors_are_counted() -> None:
    tier = MeteredTier(MemoryTier(), clock=iter(range(100)).__next__)
    tier.put(KEY, b"bytes", SHA256)
    assert tier.get(KEY) == b"bytes"
    assert tier.get_range(KEY, ByteRange(1, 2)) == b"yt"
    with pytest.raises(ObjectNotFound):
        tier.stat(ObjectKey("absent"))
    meters = tier.meters()
    assert {name: (m.calls, m.errors, m.payload_bytes) for name, m in meters.items()} == {
        "put": (1, 0, 5),
        "get": (1, 0, 5),
        "get_range": (1, 0, 2),
        "stat": (1, 1, 0),
    }
    assert meters["put"].seconds == 1


def test_a_full_tier_says_so() -> None:
    tier = MemoryTier(capacity=7)
    tier.put(KEY, b"bytes", SHA256)
    assert tier.usage() == TierUsage(7, 2)
    with pytest.raises(TierFull):
        tier.put(ObjectKey("c"), b"bytes", SHA256)


def test_file_urls_open_folder_tiers(tmp_path: Path) -> None:
    tier = open_tier("laboratory", "file:///srv/a%20b")
    assert isinstance(tier, FolderTier)
    assert (tier.name, tier.path, tier.traits.local) == ("laboratory", Path("/srv/a b"), False)
    assert open_tier("local", tmp_path.as_uri()).traits.local


@pytest.mark.parametrize(
    "url", ["", "/srv", "file:srv", "file://host/srv", "file:///srv?x", "gopher://x", "http://[x"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        open_tier("local", url)
