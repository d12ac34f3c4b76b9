"""Retrying, metering, opening by URL."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.config import TierOptions
from dicomfs.errors import ObjectNotFound, TierError, TierFull, TransientTierError, UsageError
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, TierUsage
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.metered import MeteredTier
from dicomfs.tiers.registry import open_tier, open_wrapped_tier
from dicomfs.tiers.retry import RetryingTier, RetryPolicy
from dicomfs.tiers.s3 import S3Tier
from dicomfs.tiers.sentinel import attach_folder
from tests.clocks import Clock
from tests.faulty_tier import FaultyTier, flipped, truncated

KEY = ObjectKey("a/b")
ARCHIVE = bytes(16)
SHA256 = hashlib.sha256(b"bytes").hexdigest()


def _transient(count: int) -> list[TierError]:
    return [TransientTierError("memory", "", f"number {number}") for number in range(count)]


def _retrying(inner: FaultyTier, clock: Clock) -> RetryingTier:
    return RetryingTier(inner, RetryPolicy(0.1, 1.0, 10.0), clock.sleep, clock)


def test_transient_errors_are_retried_with_growing_pauses() -> None:
    clock = Clock()
    faulty = FaultyTier(MemoryTier(), _transient(4))
    _retrying(faulty, clock).put(KEY, b"bytes", SHA256)
    assert faulty.calls == 5
    for pause, longest in zip(clock.pauses, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert longest / 2 <= pause <= longest


def test_retrying_ends_at_the_deadline_with_the_last_error() -> None:
    clock = Clock()
    with pytest.raises(TransientTierError, match="number"):
        _retrying(FaultyTier(MemoryTier(), _transient(10_000)), clock).get(KEY)
    assert clock.now <= 10.0


@pytest.mark.parametrize("error", [TierFull("memory", "", "full"), TierError("memory", "", "broken")])
def test_other_errors_pass_at_once(error: TierError) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        _retrying(FaultyTier(MemoryTier(), [error]), clock).stat(KEY)
    assert clock.pauses == []


def test_a_listing_is_retried_before_it_begins() -> None:
    inner = MemoryTier()
    inner.put(KEY, b"bytes", SHA256)
    tier = _retrying(FaultyTier(inner, _transient(2)), Clock())
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


def test_a_listing_is_counted_once_with_the_errors_in_its_middle() -> None:
    class _Breaking(MemoryTier):
        def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
            yield from super().list(prefix)
            raise TransientTierError("memory", "", "broke off")

    tier = MeteredTier(_Breaking())
    tier.put(KEY, b"bytes", SHA256)
    with pytest.raises(TransientTierError):
        list(tier.list(""))
    with pytest.raises(TransientTierError):
        list(tier.list("none"))
    tier.restore(KEY)
    meters = tier.meters()
    assert (meters["list"].calls, meters["list"].errors) == (2, 2)
    assert (meters["restore"].calls, meters["restore"].errors) == (1, 0)


def test_what_is_open_for_use_retries_and_counts_each_attempt(tmp_path: Path) -> None:
    attach_folder("laboratory", tmp_path, ARCHIVE)
    options = TierOptions(retry_seconds=0, bandwidth=1 << 30)
    opened = open_wrapped_tier("laboratory", tmp_path.as_uri(), options, archive_id=ARCHIVE)
    opened.tier.put(KEY, b"bytes", SHA256)
    assert opened.meter.meters()["put"].payload_bytes == 5
    (tmp_path / ".dicomfs-tier").unlink()
    with pytest.raises(TierError, match="mounted"):
        opened.tier.stat(KEY)
    assert opened.meter.meters()["stat"].errors == 1


def test_faults_do_what_they_say() -> None:
    tier, seen = FaultyTier(MemoryTier()), list[str]()
    tier.on_call = lambda operation, key: seen.append(f"{operation} {key}")
    tier.put(KEY, b"bytes", SHA256)
    tier.spoils = [truncated, flipped]
    assert [tier.get(KEY), tier.get_range(KEY, ByteRange(0, 5)), tier.get(KEY)] == [b"by", b"byues", b"bytes"]
    tier.lost_deletes = 1
    tier.delete(KEY)
    assert tier.stat(KEY).size == 5
    tier.lag()
    tier.delete(KEY)
    assert [key for key, _ in tier.list("a")] == [KEY]
    assert list(tier.list("b")) == []
    tier.lagging = False
    assert list(tier.list("")) == []
    assert seen[:2] == ["put a/b", "get a/b"]


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


def test_s3_urls_open_tiers_of_object_stores() -> None:
    tier = open_tier("external", "s3://bucket/site%20a/b/")
    assert isinstance(tier, S3Tier)
    assert (tier.name, tier.bucket, tier.prefix) == ("external", "bucket", "site a/b/")
    assert not tier.traits.trusted
    root = open_tier("external", "s3://bucket")
    assert isinstance(root, S3Tier)
    assert root.prefix == ""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/srv",
        "file:srv",
        "file://host/srv",
        "file:///srv?x",
        "gopher://x",
        "http://[x",
        "s3://",
        "s3:///a",
        "s3://a:1/b",
        "s3://k@a/b",
        "s3://a/b?c",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        open_tier("local", url)
