"""The contract of dicomfs.tiers.base, for every tier and every wrapper."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomfs.crypto.keys import ArchiveKey
from dicomfs.errors import ObjectExists, ObjectNotFound, TierError, TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.bandwidth import Bandwidth
from dicomfs.tiers.base import MAX_KEY_BYTES, ByteRange, Tier
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.metered import MeteredTier
from dicomfs.tiers.registry import open_tier, open_wrapped_tier
from dicomfs.tiers.retry import RetryingTier
from dicomfs.tiers.sealed import SealedTier
from dicomfs.tiers.sentinel import attach_folder
from tests.faulty_tier import FaultyTier
from tests.s3.servers import Server

KEY = ObjectKey("pixel/ab/" + "ab" * 32)


def _folder(tmp_path: Path) -> FolderTier:
    folder = tmp_path / "tier"
    folder.mkdir()
    return FolderTier("local", folder)


def _by_url(tmp_path: Path) -> Tier:
    folder = tmp_path / "a tier"
    folder.mkdir()
    return open_tier("laboratory", folder.as_uri())


def _without_links(tmp_path: Path) -> Tier:
    """As on SMB or FAT: link() is not permitted."""
    return _folder(tmp_path)


def _with_sentinel(tmp_path: Path) -> Tier:
    folder = tmp_path / "tier"
    attach_folder("laboratory", folder, bytes(16))
    return FolderTier("laboratory", folder, local=False, archive_id=bytes(16))


def _with_bandwidth(tmp_path: Path) -> Tier:
    (tmp_path / "tier").mkdir()
    return FolderTier("laboratory", tmp_path / "tier", local=False, bandwidth=Bandwidth(1 << 40))


def _wrapped(tmp_path: Path) -> Tier:
    folder = tmp_path / "tier"
    attach_folder("laboratory", folder, bytes(16))
    return open_wrapped_tier("laboratory", folder.as_uri(), archive_id=bytes(16)).tier


def _flaky(tmp_path: Path, *, late: bool) -> Tier:
    """Every third call fails once, before or after its work."""

    class _Flaky(FaultyTier):
        def _before(self, operation: str, key: str) -> None:
            if self.calls % 3 == 0:
                self.faults.append(TransientTierError("memory", "", "flaky"))
            super()._before(operation, key)

    return RetryingTier(_Flaky(MemoryTier(), late=late), sleep=lambda _: None)


def _sealed(inner: Tier) -> Tier:
    return SealedTier(inner, b"archive's number", [ArchiveKey(bytes(range(32)))])


def _retried_around_the_seal(_: Path) -> Tier:
    """Each attempt seals anew: what an earlier one left must be known as the same."""

    class _Flaky(FaultyTier):
        def _before(self, operation: str, key: str) -> None:
            if self.calls % 5 == 0:
                self.faults.append(TransientTierError("memory", "", "flaky"))
            super()._before(operation, key)

    return RetryingTier(_sealed(_Flaky(MemoryTier(), late=True)), sleep=lambda _: None)


TIERS: dict[str, Callable[[Path], Tier]] = {
    "memory": lambda _: MemoryTier(),
    "folder": _folder,
    "folder by URL": _by_url,
    "folder without hard links": _without_links,
    "folder with a sentinel": _with_sentinel,
    "folder with a bandwidth": _with_bandwidth,
    "metered": lambda path: MeteredTier(_folder(path)),
    "retrying": lambda path: RetryingTier(_folder(path)),
    "sealed in memory": lambda _: _sealed(MemoryTier()),
    "sealed in a folder": lambda path: _sealed(_folder(path)),
    "sealed, flaky": lambda path: _sealed(_flaky(path, late=False)),
    "sealed, flaky after the work": lambda path: _sealed(_flaky(path, late=True)),
    "sealed, tried again as a whole": _retried_around_the_seal,
    "wrapped": _wrapped,
    "flaky": lambda path: _flaky(path, late=False),
    "flaky after the work": lambda path: _flaky(path, late=True),
}
SERVERS = {"S3 of moto": "moto", "S3 of Ceph": "ceph", "sealed on S3 of Ceph": "ceph"}


@pytest.fixture(params=[*TIERS, *SERVERS])
def tier(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tier:
    if "without hard links" in request.param:

        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr("os.link", refuse)
    if request.param in SERVERS:
        server: Server = request.getfixturevalue(SERVERS[request.param])
        server.use(monkeypatch)
        return _sealed(server.tier()) if "sealed" in request.param else server.tier()
    return TIERS[request.param](tmp_path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _put(tier: Tier, key: str, data: bytes) -> None:
    tier.put(ObjectKey(key), data, _sha256(data))


@pytest.mark.parametrize("data", [b"", b"x", bytes(3_000_000)])
def test_bytes_come_back(tier: Tier, data: bytes) -> None:
    _put(tier, KEY, data)
    assert tier.get(KEY) == data
    assert tier.stat(KEY).size == len(data)
    assert tier.stat(KEY).mtime_ns > 0


def test_a_file_comes_back(tier: Tier, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"bytes of a file")
    tier.put(KEY, source, _sha256(b"bytes of a file"))
    source.unlink()
    assert tier.get(KEY) == b"bytes of a file"


@pytest.mark.parametrize("offset, length", [(0, 10), (3, 4), (8, 10), (10, 1), (99, 5), (0, 0), (4, 0)])
def test_ranges_are_slices(tier: Tier, offset: int, length: int) -> None:
    data = b"0123456789"
    _put(tier, KEY, data)
    assert tier.get_range(KEY, ByteRange(offset, length)) == data[offset : offset + length]


def test_the_same_bytes_may_be_put_again(tier: Tier) -> None:
    _put(tier, KEY, b"bytes")
    _put(tier, KEY, b"bytes")
    assert tier.get(KEY) == b"bytes"


def test_other_bytes_under_the_same_key_are_refused_and_change_nothing(tier: Tier) -> None:
    _put(tier, KEY, b"bytes")
    with pytest.raises(ObjectExists):
        _put(tier, KEY, b"other")
    assert tier.get(KEY) == b"bytes"


def test_bytes_that_do_not_match_their_digest_are_not_stored(tier: Tier) -> None:
    with pytest.raises(TierError):
        tier.put(KEY, b"bytes", _sha256(b"other"))
    with pytest.raises(ObjectNotFound):
        tier.stat(KEY)


def test_an_absent_source_is_an_error_of_the_put(tier: Tier, tmp_path: Path) -> None:
    with pytest.raises(TierError) as caught:
        tier.put(KEY, tmp_path / "absent", _sha256(b""))
    assert not isinstance(caught.value, ObjectNotFound)


def test_absent_objects_are_not_found(tier: Tier) -> None:
    _put(tier, "pixel/ab/other", b"")
    for key in (KEY, ObjectKey("pixel/ab"), ObjectKey("pixel/ab/other/below")):
        for call in (tier.get, tier.stat, tier.open_local, lambda k: tier.get_range(k, ByteRange(0, 1))):
            with pytest.raises(ObjectNotFound):
                call(key)


def test_deleted_objects_are_gone_and_may_be_deleted_again(tier: Tier) -> None:
    _put(tier, KEY, b"bytes")
    tier.delete(KEY)
    tier.delete(KEY)
    for absent in ("never/was/here", KEY.rpartition("/")[0], f"{KEY}/below"):
        tier.delete(ObjectKey(absent))
    with pytest.raises(ObjectNotFound):
        tier.get(KEY)
    _put(tier, KEY, b"other")
    assert tier.get(KEY) == b"other"


def test_erased_objects_are_gone_and_may_be_erased_again(tier: Tier) -> None:
    _put(tier, KEY, b"bytes")
    tier.erase(KEY)
    tier.erase(KEY)
    with pytest.raises(ObjectNotFound):
        tier.get(KEY)
    _put(tier, KEY, b"other")
    assert tier.get(KEY) == b"other"


def test_a_listing_has_each_object_once_in_order_of_keys(tier: Tier) -> None:
    keys = ["a", "b/c/d", "b/c.d", "b-c", "b.c", "b/c-d", "journal/0000000000000001"]
    for key in keys:
        _put(tier, key, key.encode())
    found = list(tier.list(""))
    assert [key for key, _ in found] == sorted(keys)
    assert [stat.size for _, stat in found] == [len(key) for key in sorted(keys)]


def test_a_listing_below_a_prefix_takes_whole_components(tier: Tier) -> None:
    for key in ("b/c/d", "b/cc", "bb/c", "c"):
        _put(tier, key, b"")
    assert [key for key, _ in tier.list("b")] == ["b/c/d", "b/cc"]
    assert [key for key, _ in tier.list("b/c")] == ["b/c/d"]
    assert list(tier.list("absent")) == []
    assert list(tier.list("c/below")) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/.b",
        ".tmp/x",
        "A",
        "a b",
        "a\\b",
        "a\0b",
        "a\n",
        "é",
        "a" * (MAX_KEY_BYTES + 1),
    ],
)
def test_impossible_keys_are_refused_by_every_method(tier: Tier, key: str) -> None:
    bad = ObjectKey(key)
    for call in (
        lambda: tier.put(bad, b"", _sha256(b"")),
        lambda: tier.get(bad),
        lambda: tier.get_range(bad, ByteRange(0, 1)),
        lambda: tier.stat(bad),
        lambda: tier.delete(bad),
        lambda: tier.open_local(bad),
        lambda: tier.restore(bad),
    ):
        with pytest.raises(TierError, match="impossible object key"):
            call()
    if key:
        with pytest.raises(TierError, match="impossible object key"):
            list(tier.list(key))


def test_writers_of_the_same_object_at_the_same_time_all_succeed(tier: Tier) -> None:
    data, failures = bytes(100_000), []

    def write() -> None:
        try:
            _put(tier, KEY, data)
        except TierError as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert tier.get(KEY) == data


def test_a_local_file_has_the_object_s_bytes(tier: Tier) -> None:
    _put(tier, KEY, b"bytes")
    path = tier.open_local(KEY)
    assert path is None or path.read_bytes() == b"bytes"


def test_what_is_not_cold_is_restored_already(tier: Tier) -> None:
    _put(tier, KEY, b"bytes")
    tier.restore(KEY)
    found = tier.stat(KEY)
    assert (found.cold, found.restoring) == (False, False)
    with pytest.raises(ObjectNotFound):
        tier.restore(ObjectKey("absent"))


def test_a_put_that_ended_leaves_no_temporaries(tier: Tier) -> None:
    _put(tier, KEY, b"bytes")
    assert tier.discard_temporaries(0) == 0
    assert tier.get(KEY) == b"bytes"


def test_free_space_is_at_most_the_total(tier: Tier) -> None:
    usage = tier.usage()
    assert usage.total is None or usage.free is None or 0 <= usage.free <= usage.total


def test_impossible_ranges_cannot_be_made() -> None:
    for offset, length in ((-1, 1), (0, -1)):
        with pytest.raises(TierError):
            ByteRange(offset, length)
