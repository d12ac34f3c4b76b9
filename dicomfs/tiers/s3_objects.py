"""Reading from S3: what an answer says is compared with what was asked for, then its bytes are believed."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from dicomfs.errors import ObjectCold, TierError, TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.bandwidth import Bandwidth
from dicomfs.tiers.base import ByteRange, ObjectStat, check_key
from dicomfs.tiers.retry import RetryPolicy, retried
from dicomfs.tiers.s3_client import READ_SECONDS, S3Client
from dicomfs.tiers.s3_errors import code_of, status_of, translated

DIGEST_FIELD = "sha256"
"""Metadata of each object: hex SHA-256 of its bytes, as given to ``put``."""
SLOWEST_BYTES_PER_SECOND = 64 << 10
"""An answer slower than this is given up: half a megabit a second serves no reader."""
PIECE_BYTES = 16 << 20
"""Of what is read back: read again as a whole when it fails."""
_COLD_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Amazon's; GLACIER_IR is read at once."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Head:
    """What the store says of an object."""

    stat: ObjectStat
    sha256: str | None
    """What its writer said its digest is, hex."""
    checksum: str | None
    """SHA-256 that the store holds, base64; of the parts' digests, with their number, for several parts."""
    locked: bool
    """The store refuses to destroy it for some time."""


class S3Objects:
    """The objects of one bucket below one prefix.  Thread-safe."""

    def __init__(
        self,
        tier: str,
        client: S3Client,
        bucket: str,
        prefix: str,
        bandwidth: Bandwidth,
        policy: RetryPolicy,
    ) -> None:
        """``policy`` is for reads that take many requests."""
        self._tier, self._client, self._bandwidth, self._policy = tier, client, bandwidth, policy
        self.bucket, self.prefix = bucket, prefix

    def place(self, key: str) -> dict[str, str]:
        """The arguments that name an object."""
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def head(self, key: ObjectKey) -> Head:
        """What the store says of an object; ObjectNotFound."""
        with translated(self._tier, key):
            answer = self._client.get().head_object(**self.place(key), ChecksumMode="ENABLED")
            self._require_object(key, answer)
        cold, restoring = _coldness(answer)
        return Head(
            ObjectStat(answer["ContentLength"], _nanoseconds(answer), cold, restoring),
            _claimed(answer),
            answer.get("ChecksumSHA256"),
            "ObjectLockMode" in answer,
        )

    def confirm_absent(self, key: ObjectKey) -> None:
        """Raise what is really the matter: an answer without a body says 404 for a missing bucket too."""
        with translated(self._tier, key):
            self._client.get().get_object(**self.place(key), Range="bytes=0-0")["Body"].close()

    def read(self, key: ObjectKey) -> bytes:
        """All bytes of an object, equal to their digest where the object names one.

        Raises ObjectNotFound, ObjectCold, TransientTierError.
        """
        with self._colder(key), translated(self._tier, key):
            answer = self._client.get().get_object(**self.place(key))
            self._require_object(key, answer)
            pieces, seen = list[bytes](), hashlib.sha256()
            for piece in self._body(key, answer, answer["ContentLength"]):
                seen.update(piece)  # while the next one is on its way
                pieces.append(piece)
        if _claimed(answer) not in (None, seen.hexdigest()):
            raise TransientTierError(self._tier, key, "the bytes that came do not match the object's digest")
        return b"".join(pieces)

    def digest(self, key: ObjectKey, size: int) -> tuple[str, str | None]:
        """SHA-256 (hex) of an object's bytes as they come back, and what its writer said it is.

        An object of more than one piece (by ``size``) is read by ranges, each of which is tried again.
        """
        if size > PIECE_BYTES:
            return self._digest_in_pieces(key)
        seen = hashlib.sha256()
        with self._colder(key), translated(self._tier, key):
            answer = self._client.get().get_object(**self.place(key))
            self._require_object(key, answer)
            for piece in self._body(key, answer, answer["ContentLength"]):
                seen.update(piece)
        return seen.hexdigest(), _claimed(answer)

    def _digest_in_pieces(self, key: ObjectKey) -> tuple[str, str | None]:
        seen, head = hashlib.sha256(), retried(lambda: self.head(key), self._policy)
        for offset in range(0, head.stat.size, PIECE_BYTES):
            seen = retried(partial(self._digested, key, ByteRange(offset, PIECE_BYTES), seen), self._policy)
        return seen.hexdigest(), head.sha256

    def _digested(self, key: ObjectKey, wanted: ByteRange, before: hashlib._Hash) -> hashlib._Hash:
        """The digest of what came before and of a range; ``before`` stays as it was, for another attempt."""
        seen = before.copy()
        for piece in self._range(key, wanted):
            seen.update(piece)
        return seen

    def read_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """The bytes of a range that is not empty; fewer only when the store says that the object ends before.

        Raises ObjectNotFound, ObjectCold, TransientTierError.
        """
        return b"".join(self._range(key, wanted))

    def _range(self, key: ObjectKey, wanted: ByteRange) -> Iterator[bytes]:
        last = wanted.offset + wanted.length - 1
        with self._colder(key), translated(self._tier, key):
            try:
                answer = self._client.get().get_object(
                    **self.place(key), Range=f"bytes={wanted.offset}-{last}"
                )
            except ClientError as error:
                if code_of(error) != "InvalidRange" and status_of(error) != 416:
                    raise
                self._require_end(key, wanted.offset)
                return
            yield from self._body(key, answer, self._length_of(key, answer, wanted))

    def listing(self, folder: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """Objects whose key begins with ``folder`` (empty, or with its slash), by key."""
        token: dict[str, str] = {}
        previous = ""
        while True:
            with translated(self._tier, ""):
                page = self._client.get().list_objects_v2(
                    Bucket=self.bucket,
                    Prefix=self.prefix + folder,
                    OptionalObjectAttributes=["RestoreStatus"],
                    **token,
                )
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(self.prefix)
                if not _is_key(key, self._tier):
                    continue
                if key <= previous:
                    raise TransientTierError(self._tier, "", "the store's listing is out of order")
                previous = key
                if item.get("LastModified") is None or item.get("Size") is None:
                    raise TransientTierError(self._tier, key, "the store's listing has gaps")
                cold, restoring = _coldness(item)
                yield ObjectKey(key), ObjectStat(item["Size"], _nanoseconds(item), cold, restoring)
            if not page.get("IsTruncated"):
                return
            if not page.get("NextContinuationToken"):
                raise TransientTierError(self._tier, "", "the store's listing breaks off")
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _require_object(self, key: str, answer: dict[str, Any]) -> None:
        """What stands in between, a proxy that wants a login, answers 200 too; objects have all of these."""
        if not all(answer.get(field) is not None for field in ("ETag", "ContentLength", "LastModified")):
            raise TransientTierError(self._tier, key, "the answer is not one of an object store")

    def _length_of(self, key: str, answer: dict[str, Any], wanted: ByteRange) -> int:
        """Bytes in the answer, when it is the range asked for."""
        self._require_object(key, answer)
        length: int = answer["ContentLength"]
        said = answer.get("ContentRange")
        if said is None:
            if wanted.offset == 0 and length <= wanted.length:
                return length  # all of a shorter object, which is what was asked for
            raise TransientTierError(self._tier, key, "the store ignored the range that was asked for")
        found = _CONTENT_RANGE.fullmatch(said)
        if found is not None:
            first, last, size = map(int, found.groups())
            end = min(wanted.offset + wanted.length, size)
            if (first, last + 1, length) == (wanted.offset, end, end - first):
                return length
        raise TransientTierError(self._tier, key, "the store answered with another range than was asked for")

    def _require_end(self, key: ObjectKey, offset: int) -> None:
        if self.head(key).stat.size > offset:
            raise TransientTierError(self._tier, key, "the store refused a range that is there")

    def _body(self, key: str, answer: dict[str, Any], length: int) -> Iterator[bytes]:
        """The body in pieces as they arrive; TransientTierError when it is not ``length`` bytes, or too slow.

        What is waited for is the next bytes, however few: only so can the time of a whole answer be bounded.
        """
        allowed = READ_SECONDS + length / SLOWEST_BYTES_PER_SECOND
        body, missing = answer["Body"], length
        stream = body._raw_stream  # what wraps it waits for all bytes
        try:
            while missing:
                began = time.monotonic()
                piece = stream.read1(min(missing, self._bandwidth.piece))
                allowed -= time.monotonic() - began
                if not piece:
                    raise TransientTierError(self._tier, key, f"the answer broke off {missing} bytes early")
                if allowed < 0:
                    raise TransientTierError(
                        self._tier, key, f"too slow: {missing} of {length} bytes missing"
                    )
                missing -= len(piece)
                self._bandwidth.take(len(piece))
                yield piece
            if stream.read1(1):
                raise TransientTierError(self._tier, key, f"the answer is longer than {length} bytes")
        finally:
            body.close()

    def _colder(self, key: ObjectKey) -> _Colder:
        return _Colder(self, key)


class _Colder:
    """Completes ObjectCold by whether a restore is under way, which a refused read does not tell."""

    def __init__(self, objects: S3Objects, key: ObjectKey) -> None:
        self._objects, self._key = objects, key

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ObjectCold) and self._objects.head(self._key).stat.restoring:
            raise ObjectCold(error.tier, error.key, restoring=True) from error


def _coldness(answer: dict[str, Any]) -> tuple[bool, bool]:
    """Whether it is cold, and being restored, from the answer to HEAD or an entry of a listing."""
    restore, listed = answer.get("Restore", ""), answer.get("RestoreStatus", {})
    restoring = 'ongoing-request="true"' in restore or bool(listed.get("IsRestoreInProgress"))
    restored = 'ongoing-request="false"' in restore or (
        not restoring and listed.get("RestoreExpiryDate") is not None
    )
    archived = answer.get("StorageClass") in _COLD_CLASSES or "ArchiveStatus" in answer
    cold = archived and not restored
    return cold, cold and restoring


def _claimed(answer: dict[str, Any]) -> str | None:
    """The digest that the object's writer named."""
    metadata: dict[str, str] = answer.get("Metadata", {})
    return metadata.get(DIGEST_FIELD)


def _nanoseconds(answer: dict[str, Any]) -> int:
    modified: datetime = answer["LastModified"]
    return round(modified.timestamp() * 1000) * 1_000_000


def _is_key(key: str, tier: str) -> bool:
    """Whether it can be one of ours: others may keep things beside us."""
    try:
        check_key(key, tier)
    except TierError:
        return False
    return True
