"""S3Tier: objects in a bucket of Amazon S3, or of a store that speaks its protocol, below a prefix.

Owns the order of steps that makes a put safe on any of them.  Stores differ in what they promise: some
ignore conditions, some let two conditional puts win, some do not compare checksums.  All of these are used,
none is relied on: what exists is compared, what was put is read back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from botocore.exceptions import ClientError

from dicomfs.config import TierOptions
from dicomfs.errors import ObjectCold, ObjectExists, ObjectNotFound, TierError, TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.bandwidth import Bandwidth
from dicomfs.tiers.base import ByteRange, ObjectStat, TierTraits, TierUsage, check_key, check_prefix
from dicomfs.tiers.retry import RetryPolicy
from dicomfs.tiers.s3_client import CONNECTIONS, S3Client
from dicomfs.tiers.s3_errors import AlreadyTaken, code_of, translated
from dicomfs.tiers.s3_objects import Head, S3Objects
from dicomfs.tiers.s3_upload import S3Uploads
from dicomfs.tiers.s3_versions import remove_versions

RANGE_COST_BYTES = 2 << 20
"""A request to a far store takes some 40 ms to its first byte, in which a connection moves about 2 MiB."""


class S3Tier:
    """Objects of ``s3://bucket/prefix``.  Thread-safe; makes no connection before the first call."""

    def __init__(self, name: str, bucket: str, prefix: str = "", options: TierOptions | None = None) -> None:
        """``prefix`` without slashes at its ends; empty: the whole bucket."""
        self.name = name
        self.bucket, self.prefix = bucket, prefix and f"{prefix}/"
        """Where its objects are: a key is what follows the prefix."""
        self.traits = TierTraits(
            local=False,
            trusted=False,
            connections=CONNECTIONS,
            range_cost_bytes=RANGE_COST_BYTES,
            proves_puts=True,
        )
        self._options = options or TierOptions()
        bandwidth = Bandwidth(self._options.bandwidth)
        self._client = S3Client(self._options)
        policy = RetryPolicy(deadline=self._options.retry_seconds)
        self._objects = S3Objects(name, self._client, bucket, self.prefix, bandwidth, policy)
        self._uploads = S3Uploads(name, self._client, self._objects, self._options, bandwidth, policy)

    def requests(self) -> dict[str, int]:
        """HTTP requests sent so far, by operation of the API (``GetObject``): what is paid for."""
        return self._client.requests()

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        """See Tier.put.  Looks, sends if the key is free, reads back and compares.

        An object that claims these very bytes and has others is damaged: it is removed, and
        TransientTierError asks for it to be put again.
        """
        check_key(key, self.name)
        size = self._uploads.size(key, source)
        found = self._found(key)
        if found is None:
            try:
                checksum = self._uploads.upload(key, source, size, sha256)
                self._verify(key, size, sha256, checksum)
            except AlreadyTaken:
                found = self._found(key)
                if found is None:
                    raise TransientTierError(self.name, key, "taken a moment ago, and gone again") from None
        if found is not None:
            self._require_same(key, size, sha256, found)
        self._uploads.lock(key)

    def get(self, key: ObjectKey) -> bytes:
        """See Tier.get.  Bytes that do not match the digest stored with them are a TransientTierError."""
        return self._objects.read(ObjectKey(check_key(key, self.name)))

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """See Tier.get_range."""
        check_key(key, self.name)
        if wanted.length == 0:
            self.stat(key)
            return b""
        return self._objects.read_range(key, wanted)

    def stat(self, key: ObjectKey) -> ObjectStat:
        """See Tier.stat."""
        found = self._found(ObjectKey(check_key(key, self.name)))
        if found is None:
            self._objects.confirm_absent(key)
            # It came to be in between.
            found = self._objects.head(key)
        return found.stat

    def restore(self, key: ObjectKey) -> None:
        """See Tier.restore: for ``restore_days``, at ``restore_speed``."""
        found = self.stat(key)
        if not found.cold or found.restoring:
            return
        request = {
            "Days": self._options.restore_days,
            "GlacierJobParameters": {"Tier": self._options.restore_speed.capitalize()},
        }
        with translated(self.name, key):
            try:
                self._client.get().restore_object(**self._objects.place(key), RestoreRequest=request)
            except ClientError as error:
                if code_of(error) != "RestoreAlreadyInProgress":
                    raise

    def delete(self, key: ObjectKey) -> None:
        """See Tier.delete.  Looks whether it is gone: TransientTierError when not.

        In a bucket with versions, what was there stays as an older version, which the bucket's rules remove,
        or ``erase``.
        """
        check_key(key, self.name)
        with translated(self.name, key):
            try:
                self._client.get().delete_object(**self._objects.place(key))
            except ClientError as error:
                if code_of(error) != "NoSuchKey":
                    raise
        if self._found(key) is not None:
            raise TransientTierError(self.name, key, "still there after it was deleted")

    def erase(self, key: ObjectKey) -> None:
        """See Tier.erase: TierError where a version is locked, or may not be looked for."""
        self.delete(key)
        place = self._objects.place(key)
        remove_versions(self._client, self.name, key, place["Bucket"], place["Key"])

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """See Tier.list.  What else lies there under names that are no keys is passed over."""
        folder = check_prefix(prefix, self.name)
        return self._objects.listing(f"{folder}/" if folder else "")

    def usage(self) -> TierUsage:
        """See Tier.usage: not known."""
        return TierUsage(None, None)

    def open_local(self, key: ObjectKey) -> Path | None:
        """See Tier.open_local: there are no files here."""
        self.stat(key)
        return None

    def discard_temporaries(self, older_than: float) -> int:
        """See Tier.discard_temporaries: parts of uploads that were never completed cost as objects do."""
        return self._uploads.discard(older_than, time.time())

    def _found(self, key: ObjectKey) -> Head | None:
        try:
            return self._objects.head(key)
        except ObjectNotFound:
            return None

    def _verify(self, key: ObjectKey, size: int, sha256: str, checksum: str) -> None:
        """Compare what the store has now with what was sent; raises when it differs."""
        if self._options.read_back:
            try:
                self._compare(key, size, sha256)
            except ObjectCold:
                pass  # put into a cold class: its checksum is all that can be had
            else:
                return
        head = self._objects.head(key)
        if head.checksum is None:
            raise TierError(self.name, key, "stored, but the store tells no checksum to verify it by")
        # Some stores leave out the number of parts.
        if (head.stat.size, head.checksum.partition("-")[0]) != (size, checksum.partition("-")[0]):
            self._refuse(key, damaged=head.sha256 == sha256)

    def _require_same(self, key: ObjectKey, size: int, sha256: str, found: Head) -> None:
        """Compare an object that was there before; ObjectExists when it is another."""
        if not found.stat.cold:
            self._compare(key, found.stat.size, sha256)
        elif found.sha256 is None:
            raise ObjectCold(self.name, key, restoring=found.stat.restoring)
        elif (found.sha256, found.stat.size) != (sha256, size):
            raise ObjectExists(self.name, key)

    def _compare(self, key: ObjectKey, size: int, sha256: str) -> None:
        """Read an object back; raises when its bytes are others, and not by an accident on the way."""
        claimed = None
        for _ in range(2):
            digest, claimed = self._objects.digest(key, size)
            if digest == sha256:
                return
        self._refuse(key, damaged=claimed == sha256)

    def _refuse(self, key: ObjectKey, *, damaged: bool) -> None:
        """Raise for an object that has other bytes: another one, or one that claims these and was damaged."""
        if not damaged:
            raise ObjectExists(self.name, key)
        self.delete(key)
        raise TransientTierError(self.name, key, "damaged in the store: what was read back differs")
