"""S3Tier on servers that behave: parts, races, options, cold classes, pages, configuration, an outage."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.moto_api import state_manager

from dicomfs.config import TierOptions
from dicomfs.crypto.keys import new_key
from dicomfs.errors import ObjectCold, ObjectExists, ObjectNotFound, TierError, TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.tiers import s3_upload
from dicomfs.tiers.base import ByteRange
from dicomfs.tiers.registry import open_tier, open_wrapped_tier
from dicomfs.tiers.s3 import S3Tier
from dicomfs.tiers.sealed import SealedTier
from tests.s3.ceph import Ceph
from tests.s3.servers import BUCKET, Server

KEY = ObjectKey("pixel/ab/cd")
DATA = b"bytes of an object"
SMALLEST_PART = 5 << 20
"""What servers take."""


@pytest.fixture(params=["moto", "ceph"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    found: Server = request.getfixturevalue(request.param)
    found.use(monkeypatch)
    return found


@pytest.fixture
def moto_server(moto: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    moto.use(monkeypatch)
    return moto


def _put(tier: S3Tier, data: bytes | Path = DATA, key: ObjectKey = KEY) -> None:
    content = data.read_bytes() if isinstance(data, Path) else data
    tier.put(key, data, hashlib.sha256(content).hexdigest())


def _head(server: Server, tier: S3Tier) -> dict[str, Any]:
    found: dict[str, Any] = server.client().head_object(
        Bucket=tier.bucket, Key=tier.prefix + KEY, ChecksumMode="ENABLED"
    )
    return found


def test_large_files_go_in_parts_and_come_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", SMALLEST_PART)
    source = tmp_path / "pack"
    source.write_bytes(os.urandom(2 * SMALLEST_PART + 12_345))
    tier = server.tier()
    _put(tier, source)
    requests = tier.requests()
    assert (requests["UploadPart"], requests["CompleteMultipartUpload"]) == (3, 1)
    assert "PutObject" not in requests
    assert tier.get(KEY) == source.read_bytes()
    across = ByteRange(SMALLEST_PART - 10, 20)
    assert tier.get_range(KEY, across) == source.read_bytes()[SMALLEST_PART - 10 : SMALLEST_PART + 10]
    _put(tier, source)
    with pytest.raises(ObjectExists):
        _put(tier, os.urandom(2 * SMALLEST_PART))


def test_a_large_source_that_is_not_what_it_should_be_is_not_stored(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", SMALLEST_PART)
    source = tmp_path / "pack"
    source.write_bytes(bytes(SMALLEST_PART + 1))
    tier = server.tier()
    with pytest.raises(TierError, match="does not match its digest"):
        tier.put(KEY, source, hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ObjectNotFound):
        tier.stat(KEY)
    assert tier.discard_temporaries(0) == 0


def test_a_source_that_grows_meanwhile_is_refused(moto_server: Server, tmp_path: Path) -> None:
    source = tmp_path / "pack"
    source.write_bytes(b"x")

    class _Growing(type(source)):  # type: ignore[misc]
        def stat(self, **options: Any) -> os.stat_result:
            found = super().stat(**options)
            with source.open("ab") as file:
                file.write(b"y")
            return found  # type: ignore[no-any-return]

    with pytest.raises(TierError, match="changed while"):
        moto_server.tier().put(KEY, _Growing(source), hashlib.sha256(b"x").hexdigest())


def test_only_uploads_that_are_old_are_discarded(ceph: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ceph.use(monkeypatch)
    tier, other = ceph.tier(), ceph.tier()
    client = ceph.client()
    for owner in (tier, other):
        client.create_multipart_upload(Bucket=BUCKET, Key=owner.prefix + KEY)
    assert tier.discard_temporaries(3600) == 0
    assert tier.discard_temporaries(-5) == 1
    assert tier.discard_temporaries(-5) == 0
    assert other.discard_temporaries(-5) == 1


def test_of_writers_with_other_bytes_one_wins_and_no_other_believes_it_did(server: Server) -> None:
    tier = server.tier()
    tier.list("")
    start, won, lost = threading.Barrier(6), list[bytes](), list[TierError]()

    def write(data: bytes) -> None:
        start.wait()
        try:
            _put(tier, data)
            won.append(data)
        except ObjectExists as error:
            lost.append(error)

    threads = [threading.Thread(target=write, args=(bytes([n]) * 1000,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 5
    assert tier.get(KEY) == won[0]


def test_a_listing_of_many_pages_is_whole(server: Server) -> None:
    tier = server.tier()
    keys = sorted(ObjectKey(f"{folder}/{number:02}") for folder in ("a", "b") for number in range(5))
    for key in keys:
        _put(tier, key.encode(), key)
    server.client().put_object(Bucket=BUCKET, Key=f"{tier.prefix}a/.hidden", Body=b"")
    server.client().put_object(Bucket=BUCKET, Key=f"{tier.prefix}a/Not a Key", Body=b"")

    def two_at_a_time(params: dict[str, Any], **_: object) -> None:
        params["MaxKeys"] = 2

    tier._client.get().meta.events.register("provide-client-params.s3.ListObjectsV2", two_at_a_time)
    assert [key for key, _ in tier.list("")] == keys
    assert [key for key, _ in tier.list("b")] == keys[5:]
    assert tier.requests()["ListObjectsV2"] >= 9


def test_prefixes_are_apart(server: Server) -> None:
    one, two = server.tier(), server.tier()
    _put(one)
    assert list(two.list("")) == []
    assert (BUCKET, one.prefix + KEY) in {
        (BUCKET, item["Key"]) for item in server.client().list_objects_v2(Bucket=BUCKET)["Contents"]
    }
    with pytest.raises(ObjectNotFound):
        two.get(KEY)


def test_an_object_costs_three_requests_to_put_and_one_to_read(server: Server) -> None:
    tier = server.tier()
    _put(tier)
    assert tier.requests() == {"HeadObject": 1, "PutObject": 1, "GetObject": 1}
    tier.get_range(KEY, ByteRange(0, 5))
    assert tier.requests()["GetObject"] == 2


def test_without_reading_back_the_checksum_of_the_store_is_compared(moto_server: Server) -> None:
    tier = moto_server.tier(TierOptions(read_back=False))
    _put(tier)
    assert "GetObject" not in tier.requests()
    assert tier.get(KEY) == DATA


def test_a_store_without_checksums_cannot_do_without_reading_back(
    ceph: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ceph.use(monkeypatch)
    with pytest.raises(TierError, match="no checksum to verify it by"):
        _put(ceph.tier(TierOptions(read_back=False)))


def test_objects_of_a_bandwidth_come_back(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", SMALLEST_PART)
    tier = server.tier(TierOptions(bandwidth=1 << 30))
    _put(tier)
    assert tier.get(KEY) == DATA
    large = tmp_path / "large"
    large.write_bytes(os.urandom(SMALLEST_PART + 1))
    _put(tier, large, ObjectKey("large"))
    assert tier.get(ObjectKey("large")) == large.read_bytes()


def test_each_byte_takes_its_turn_once(moto_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the client reads a body twice, to sign it."""
    taken = list[int]()
    monkeypatch.setattr("dicomfs.tiers.bandwidth.Bandwidth.take", lambda _, count: taken.append(count))
    tier = moto_server.tier(TierOptions(bandwidth=1 << 30, read_back=False))
    data = os.urandom(300_000)
    _put(tier, data)
    assert sum(taken) == len(data)
    assert max(taken) <= 64 << 10
    taken.clear()
    assert tier.get(KEY) == data
    assert sum(taken) == len(data)


def test_storage_class_and_encryption_are_asked_for(
    moto_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = moto_server.tier(TierOptions(storage_class="STANDARD_IA", server_side_encryption="AES256"))
    _put(tier)
    found = _head(moto_server, tier)
    assert (found["StorageClass"], found["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")
    monkeypatch.setattr(s3_upload, "PART_BYTES", 4)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    tier = moto_server.tier(TierOptions(server_side_encryption="aws:kms", kms_key="alias/archive"))
    _put(tier)
    found = _head(moto_server, tier)
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", "alias/archive")


def test_what_must_be_read_first_is_never_in_a_cold_class(moto_server: Server) -> None:
    tier = moto_server.tier(TierOptions(storage_class="GLACIER"))
    first = ("keyring/0000000000000000/00000001", "journal/0000000000000001", "owner/0000000000000001")
    for key in (*first, "header/ab/cd"):
        _put(tier, key=ObjectKey(key))
        assert tier.get(ObjectKey(key)) == DATA
    for kind in ("pixel", "burned", "opaque"):
        _put(tier, key=ObjectKey(f"{kind}/ab/cd"))
        assert tier.stat(ObjectKey(f"{kind}/ab/cd")).cold


def test_a_cold_object_of_a_sealed_tier_is_told_by_its_key_and_restored(moto_server: Server) -> None:
    tier = SealedTier(moto_server.tier(TierOptions(storage_class="GLACIER")), bytes(16), [new_key()])
    tier.put(KEY, DATA, hashlib.sha256(DATA).hexdigest())
    assert (tier.stat(KEY).size, tier.stat(KEY).cold) == (len(DATA), True)
    assert [(key, stat.cold) for key, stat in tier.list("")] == [(KEY, True)]
    with pytest.raises(ObjectCold, match=KEY):
        tier.get(KEY)
    with pytest.raises(ObjectCold, match=KEY):
        tier.get_range(KEY, ByteRange(0, 5))
    tier.restore(KEY)
    assert tier.get(KEY) == DATA


@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_an_object_lock_is_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", SMALLEST_PART)
    bucket = f"locked-{mode}"
    server.client().create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    tier = S3Tier("external", bucket, "a", TierOptions(object_lock_days=30, object_lock_mode=mode))
    # Both servers forget the lock of an object in parts; it is asked for again.
    for data in (DATA, bytes(SMALLEST_PART + 1)):
        _put(tier, data)
        found = _head(server, tier)
        assert found["ObjectLockMode"] == mode.upper()
        left = found["ObjectLockRetainUntilDate"] - datetime.now(UTC)
        assert timedelta(days=29) < left <= timedelta(days=30)
        tier.delete(KEY)
        with pytest.raises(ObjectNotFound):
            tier.stat(KEY)
        (version,) = server.client().list_object_versions(Bucket=bucket)["Versions"][-1:]
        with pytest.raises(ClientError, match="AccessDenied"):
            server.client().delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])


def _versions(server: Server, bucket: str) -> list[str]:
    found = server.client().list_object_versions(Bucket=bucket)
    return [one["Key"] for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ()))]


def test_erasing_removes_what_the_bucket_keeps_of_deleted_objects(server: Server) -> None:
    bucket = f"versioned-{uuid.uuid4()}"
    server.client().create_bucket(Bucket=bucket)
    server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    tier = S3Tier("external", bucket, "a")
    longer = ObjectKey(f"{KEY}0")
    for turn in range(2):
        _put(tier, bytes([turn]) * 9)
        _put(tier, key=longer)
        tier.delete(KEY)
    assert len([name for name in _versions(server, bucket) if name == f"a/{KEY}"]) == 4
    tier.erase(KEY)
    assert _versions(server, bucket) == [f"a/{longer}"]
    assert tier.get(longer) == DATA
    tier.erase(KEY)


def test_what_is_destroyed_leaves_neither_object_nor_key_in_any_version(server: Server) -> None:
    bucket = f"versioned-{uuid.uuid4()}"
    server.client().create_bucket(Bucket=bucket)
    server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    tier = SealedTier(S3Tier("external", bucket, "a"), bytes(16), [new_key()])
    tier.put(KEY, DATA, hashlib.sha256(DATA).hexdigest())
    before = [name for name in _versions(server, bucket) if "/keyring/" in name]
    tier.destroy([KEY])
    after = _versions(server, bucket)
    assert not [name for name in after if "/keyring/" not in name]
    # The keyring that had its key was replaced; that of names was not touched.
    assert len(after) == len(before) == len(set(after) | set(before)) - 1


def test_a_locked_version_that_cannot_be_erased_is_told(server: Server) -> None:
    bucket = f"locked-{uuid.uuid4()}"
    server.client().create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    tier = S3Tier("external", bucket, "a", TierOptions(object_lock_days=30))
    _put(tier)
    with pytest.raises(TierError, match="object lock"):
        tier.erase(KEY)
    with pytest.raises(ObjectNotFound):
        tier.get(KEY)


@pytest.mark.parametrize("storage_class, part_bytes", [("GLACIER", 1 << 20), ("DEEP_ARCHIVE", 7)])
def test_a_cold_object_is_there_is_restored_and_then_read(
    moto_server: Server, monkeypatch: pytest.MonkeyPatch, storage_class: str, part_bytes: int
) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", part_bytes)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    options = TierOptions(storage_class=storage_class, restore_days=3, restore_speed="bulk")
    tier = moto_server.tier(options)
    _put(tier)
    _put(tier)
    assert (tier.stat(KEY).size, tier.stat(KEY).cold) == (len(DATA), True)
    assert [(key, stat.cold) for key, stat in tier.list("")] == [(KEY, True)]
    with pytest.raises(ObjectCold, match="restore it first"):
        tier.get(KEY)
    with pytest.raises(ObjectCold, match="restore it first"):
        tier.get_range(KEY, ByteRange(0, 5))
    with pytest.raises(ObjectExists):
        _put(tier, b"other bytes of that")
    tier.restore(KEY)
    tier.restore(KEY)
    assert tier.requests()["RestoreObject"] >= 1
    assert not tier.stat(KEY).cold
    assert tier.get(KEY) == DATA


def test_a_restore_that_is_under_way_is_told_and_not_asked_for_again(
    moto_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = moto_server.tier(TierOptions(storage_class="GLACIER"))
    _put(tier)
    seconds = iter([0])
    monkeypatch.setattr(
        state_manager,
        "get_transition",
        # At once from "asked for" to "in progress", where it stays.
        lambda _: {"progression": "time", "seconds": next(seconds, 3600)},
    )
    tier.restore(KEY)
    found = tier.stat(KEY)
    assert (found.cold, found.restoring) == (True, True)
    with pytest.raises(ObjectCold, match="under way") as caught:
        tier.get(KEY)
    assert caught.value.restoring
    tier.restore(KEY)
    assert tier.requests()["RestoreObject"] == 1


def test_a_profile_and_an_address_of_its_own_are_used(
    moto_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    endpoint = moto_server.environment["AWS_ENDPOINT_URL_S3"]
    for name in moto_server.environment:
        monkeypatch.delenv(name)
    configuration = tmp_path / "config"
    configuration.write_text(
        f"[profile archive]\naws_access_key_id = a\naws_secret_access_key = b\nendpoint_url = {endpoint}\n"
        "region = eu-central-1\n[profile elsewhere]\naws_access_key_id = a\naws_secret_access_key = b\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(configuration))
    url = f"s3://{BUCKET}/profiles"
    tier = open_tier("external", url, TierOptions(profile="archive"))
    _put_any(tier)
    _put_any(open_tier("external", url, TierOptions(profile="elsewhere", endpoint=endpoint)))
    monkeypatch.setenv("AWS_PROFILE", "archive")
    _put_any(open_tier("external", url))
    with pytest.raises(TierError, match="nowhere"):
        open_tier("external", url, TierOptions(profile="nowhere")).stat(KEY)


def _put_any(tier: Any) -> None:
    tier.put(KEY, DATA, hashlib.sha256(DATA).hexdigest())
    assert tier.get(KEY) == DATA


def test_without_credentials_it_is_told_how_to_give_them(
    moto_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(TierError, match="no credentials: set AWS_ACCESS_KEY_ID"):
        moto_server.tier().get(KEY)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_told(ceph: Server, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ceph.use(monkeypatch)
    monkeypatch.setenv(name, "wrong")
    tier = ceph.tier()
    with pytest.raises(TierError, match="credentials are wrong") as caught:
        tier.get(KEY)
    assert not isinstance(caught.value, TransientTierError | ObjectNotFound)
    with pytest.raises(TierError, match="access denied"):
        _put(tier)


def test_an_outage_ends_reads_in_bounded_time_and_passes(
    ceph: Server, ceph_cluster: Ceph, monkeypatch: pytest.MonkeyPatch
) -> None:
    ceph.use(monkeypatch)
    opened = open_wrapped_tier("external", f"s3://{BUCKET}/outage", TierOptions(retry_seconds=2))
    _put_any(opened.tier)
    ceph_cluster.stop_gateway()
    try:
        with pytest.raises(TransientTierError):
            opened.tier.get(KEY)
    finally:
        ceph_cluster.start_gateway()
    assert opened.tier.get(KEY) == DATA
    assert opened.meter.meters()["get"].errors >= 2


def test_clients_find_ceph_in_the_environment_alone(ceph: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ceph.use(monkeypatch)
    _put_any(open_tier("external", f"s3://{BUCKET}/by-url/of%20a%20place/"))
