"""Writing to S3: one request for small objects, several parts for large ones, each with its SHA-256."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from dicomfs.config import TierOptions
from dicomfs.errors import TierError, TransientTierError
from dicomfs.model import READ_FIRST_KINDS, ObjectKey, PackKind
from dicomfs.tiers.bandwidth import Bandwidth
from dicomfs.tiers.retry import RetryPolicy, retried
from dicomfs.tiers.s3_client import PacedBody, S3Client
from dicomfs.tiers.s3_errors import AlreadyTaken, NotConditional, code_of, status_of, translated
from dicomfs.tiers.s3_objects import DIGEST_FIELD, S3Objects

PART_BYTES = 16 << 20
"""Objects up to here go in one request, longer ones in parts of this size.

Stores demand 5 MiB at least.  A part is held in memory, and sent again as a whole when it fails: 16 MiB take
13 s at 10 Mbit/s; starting a request costs a tenth of a second at most, 1 % of that.
"""
MOST_PARTS = 10_000
"""A limit of S3; parts are larger in objects beyond 156 GiB."""
PARTS_AT_ONCE = 4
"""64 MiB of memory for each put that is under way."""

T = TypeVar("T")
_BULK = frozenset(kind.prefix for kind in PackKind if kind not in READ_FIRST_KINDS)

_log = logging.getLogger(__name__)


class S3Uploads:
    """Puts of one tier.  Thread-safe."""

    def __init__(
        self,
        tier: str,
        client: S3Client,
        objects: S3Objects,
        options: TierOptions,
        bandwidth: Bandwidth,
        policy: RetryPolicy,
    ) -> None:
        """``policy`` is for the requests of an object in parts."""
        self._tier, self._client, self._objects = tier, client, objects
        self._policy, self._options = policy, options
        self._bandwidth = bandwidth
        self._conditional = True

    def size(self, key: str, source: Path | bytes) -> int:
        """Bytes of the source; TierError when it is not there."""
        if isinstance(source, bytes):
            return len(source)
        with self._reading(key):
            return source.stat().st_size

    def upload(self, key: ObjectKey, source: Path | bytes, size: int, sha256: str) -> str:
        """Send an object whose key seemed free; returns what the store must say its checksum is, base64.

        That is the SHA-256 of the bytes; for parts that of their digests, with a hyphen and their number.

        Raises:
            AlreadyTaken: it is not free any more.
            TierError: nothing was stored, the source does not match its digest among other reasons.
            TransientTierError: it may have been stored.
        """
        send = self._send_whole if size <= PART_BYTES else self._send_parts
        try:
            return send(key, source, size, sha256)
        except NotConditional:
            self._conditional = False
            return send(key, source, size, sha256)

    def lock(self, key: ObjectKey) -> None:
        """See to it that a lock which is wanted is there: some stores forget it for objects in parts."""
        if self._options.object_lock_days is None or self._objects.head(key).locked:
            return
        wanted = {
            "Mode": self._options.object_lock_mode.upper(),
            "RetainUntilDate": self._lock()["ObjectLockRetainUntilDate"],
        }
        with translated(self._tier, key):
            self._client.get().put_object_retention(**self._objects.place(key), Retention=wanted)
        if not self._objects.head(key).locked:
            raise TierError(self._tier, key, "stored, but the store does not lock it: see object_lock_days")

    def discard(self, older_than: float, now: float) -> int:
        """Abort uploads in parts that began ``older_than`` seconds before ``now``; returns how many."""
        removed, marker = 0, dict[str, str]()
        with translated(self._tier, ""):
            client = self._client.get()
            while True:
                page = client.list_multipart_uploads(
                    Bucket=self._objects.bucket, Prefix=self._objects.prefix, **marker
                )
                for item in page.get("Uploads", []):
                    if item["Initiated"].timestamp() <= now - older_than:
                        client.abort_multipart_upload(
                            Bucket=self._objects.bucket, Key=item["Key"], UploadId=item["UploadId"]
                        )
                        removed += 1
                if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                    return removed
                marker = {
                    "KeyMarker": page["NextKeyMarker"],
                    "UploadIdMarker": page.get("NextUploadIdMarker", ""),
                }

    def _send_whole(self, key: ObjectKey, source: Path | bytes, size: int, sha256: str) -> str:
        data = b"".join(self._pieces(key, source, size, PART_BYTES))
        digest = hashlib.sha256(data)
        if digest.hexdigest() != sha256:
            raise TierError(self._tier, key, "source does not match its digest")
        checksum = _base64(digest.digest())
        with translated(self._tier, key), self._conditions() as condition:
            answer = self._client.get().put_object(
                **self._objects.place(key),
                Body=self._body(data),
                ContentLength=len(data),
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
                Metadata={DIGEST_FIELD: sha256},
                **condition,
                **_extra(self._options, key),
                **self._lock(),
            )
        return self._accepted(key, answer, checksum)

    def _send_parts(self, key: ObjectKey, source: Path | bytes, size: int, sha256: str) -> str:
        upload = self._begin(key, sha256)
        try:
            parts = self._send_each(key, source, size, sha256, upload)
            return self._retried(lambda: self._complete(key, upload, parts))
        except BaseException:
            self._abort(key, upload)
            raise

    def _begin(self, key: ObjectKey, sha256: str) -> dict[str, str]:
        def begin() -> dict[str, str]:
            with translated(self._tier, key):
                answer = self._client.get().create_multipart_upload(
                    **self._objects.place(key),
                    ChecksumAlgorithm="SHA256",
                    Metadata={DIGEST_FIELD: sha256},
                    **_extra(self._options, key),
                    **self._lock(),
                )
            return {**self._objects.place(key), "UploadId": answer["UploadId"]}

        return self._retried(begin)

    def _send_each(
        self, key: ObjectKey, source: Path | bytes, size: int, sha256: str, upload: dict[str, str]
    ) -> list[dict[str, Any]]:
        """Send all parts, PARTS_AT_ONCE at a time, and compare the digest of the whole."""
        length = max(PART_BYTES, -(-size // MOST_PARTS))
        whole, sent, running = hashlib.sha256(), list[dict[str, Any]](), deque[Future[dict[str, Any]]]()
        with ThreadPoolExecutor(PARTS_AT_ONCE, "dicomfs-part") as pool:
            try:
                for number, data in enumerate(self._pieces(key, source, size, length), start=1):
                    whole.update(data)
                    running.append(pool.submit(self._send_part, key, upload, number, data))
                    if len(running) == PARTS_AT_ONCE:
                        sent.append(running.popleft().result())
                sent += [part.result() for part in running]
            finally:
                pool.shutdown(cancel_futures=True)
        if whole.hexdigest() != sha256:
            raise TierError(self._tier, key, "source does not match its digest")
        return sent

    def _send_part(self, key: ObjectKey, upload: dict[str, str], number: int, data: bytes) -> dict[str, Any]:
        checksum = _base64(hashlib.sha256(data).digest())

        def send() -> dict[str, Any]:
            with translated(self._tier, key):
                answer = self._client.get().upload_part(
                    **upload,
                    PartNumber=number,
                    Body=self._body(data),
                    ContentLength=len(data),
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=checksum,
                )
            self._accepted(key, answer, checksum)
            if not answer.get("ETag"):
                raise TransientTierError(self._tier, key, "the answer is not one of an object store")
            return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

        return self._retried(send)

    def _complete(self, key: ObjectKey, upload: dict[str, str], parts: list[dict[str, Any]]) -> str:
        with translated(self._tier, key), self._conditions() as condition:
            try:
                answer = self._client.get().complete_multipart_upload(
                    **upload, MultipartUpload={"Parts": parts}, **condition
                )
            except ClientError as error:
                if code_of(error) == "NoSuchUpload":
                    # The answer to an earlier attempt was lost, or a clean-up took the parts away.
                    raise AlreadyTaken from error
                raise
        digests = b"".join(base64.b64decode(part["ChecksumSHA256"]) for part in parts)
        return self._accepted(key, answer, f"{_base64(hashlib.sha256(digests).digest())}-{len(parts)}")

    def _abort(self, key: str, upload: dict[str, str]) -> None:
        """Remove the parts that were sent; what can't be removed now is left to ``discard``."""
        try:
            with translated(self._tier, key):
                self._client.get().abort_multipart_upload(**upload)
        except TierError as error:
            _log.warning("parts of an upload are left over", extra={"tier": self._tier, "reason": str(error)})

    def _accepted(self, key: str, answer: dict[str, Any], checksum: str) -> str:
        """The checksum; TransientTierError when the store answers that it computed another one."""
        theirs = answer.get("ChecksumSHA256")
        # Some stores give that of a composed object without the number of parts.
        if theirs is not None and theirs.partition("-")[0] != checksum.partition("-")[0]:
            raise TransientTierError(self._tier, key, "the store received other bytes than were sent")
        return checksum

    @contextmanager
    def _conditions(self) -> Iterator[dict[str, str]]:
        """Arguments of a put that succeeds for a free key only, where the store knows that."""
        if not self._conditional:
            yield {}
            return
        try:
            yield {"IfNoneMatch": "*"}
        except ClientError as error:
            if status_of(error) == 412:
                raise AlreadyTaken from error
            if status_of(error) == 501:
                raise NotConditional from error
            raise

    def _pieces(self, key: str, source: Path | bytes, size: int, length: int) -> Iterator[bytes]:
        """The source in pieces of ``length`` bytes; TierError unless it has ``size`` bytes in all."""
        if isinstance(source, bytes):
            view = memoryview(source)
            yield from (bytes(view[at : at + length]) for at in range(0, size, length))
            return
        with self._reading(key):
            file = source.open("rb")
        with file:
            for at in range(0, size, length):
                with self._reading(key):
                    piece = file.read(min(length, size - at))
                yield piece
            with self._reading(key):
                end = os.fstat(file.fileno()).st_size
        if end != size:
            raise TierError(self._tier, key, "source changed while it was read")

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TierError(self._tier, key, f"source can't be read: {error.strerror}") from error

    def _lock(self) -> dict[str, Any]:
        """Arguments that forbid the store to destroy a new object, counted from now."""
        if self._options.object_lock_days is None:
            return {}
        until = datetime.now(UTC) + timedelta(days=self._options.object_lock_days)
        return {
            "ObjectLockMode": self._options.object_lock_mode.upper(),
            "ObjectLockRetainUntilDate": until,
        }

    def _body(self, data: bytes) -> bytes | PacedBody:
        return PacedBody(data, self._bandwidth) if self._bandwidth.limited else data

    def _retried(self, call: Callable[[], T]) -> T:
        return retried(call, self._policy)


def _extra(options: TierOptions, key: str) -> dict[str, str]:
    """Arguments of a new object.

    The storage class is that of packs of frames and streams: what is small, or read by whoever looks for
    something (header and text packs, journal, keyrings, owners), has the store's default.
    """
    given = {
        "StorageClass": options.storage_class if key.partition("/")[0] in _BULK else None,
        "ServerSideEncryption": options.server_side_encryption,
        "SSEKMSKeyId": options.kms_key,
    }
    return {name: value for name, value in given.items() if value is not None}


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
