"""SealedTier: a tier around a tier that encrypts what is put and gives out only what is proven.

Owns the way of plain bytes in and out.  The rest of the program sees logical keys and plain ranges; the inner
tier sees the objects of docs/encryption.md.  Plain bytes are never written to a file here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TypeVar

from dicomfs.crypto.keyring import KEYRING_PREFIX, parse_keyring_key
from dicomfs.crypto.keys import ArchiveKey
from dicomfs.crypto.names import NameCipher
from dicomfs.crypto.segments import (
    SEGMENT_BYTES,
    STORED_SEGMENT,
    KeyReference,
    Run,
    Sealer,
    opened,
    plain_size,
    segments_of,
)
from dicomfs.errors import (
    FormatError,
    KeyDestroyed,
    KeyMissing,
    ObjectCold,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    TierError,
)
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier, TierTraits, check_key, check_prefix
from dicomfs.tiers.keyrings import Keyrings
from dicomfs.tiers.wrapper import TierWrapper

_STEP = 16 * SEGMENT_BYTES
"""Plain bytes read and sealed at a time."""
_IN_MEMORY = 8 << 20
"""Sealed bytes of larger files go through a temporary file."""
_NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT})
T = TypeVar("T")


class SealedTier(TierWrapper):
    """Seals every object on its way to ``inner``; put wrappers that retry or meter inside of it.

    Thread-safe.  Everything that is needed besides an archive key lies on the tier.  Nothing is asked of the
    tier before the first call.  ``archive_id`` may be None to read a tier whose archive is not known yet; the
    first of ``keys`` wraps what is written, each of them opens.  Sealed bytes of large files lie in
    ``scratch`` while they are put (the system's folder for temporary files when None).

    Beyond what Tier says, methods raise ObjectDamaged for bytes that are not what was put, and KeyMissing
    where the archive key is another or the object's key was destroyed.  Sizes of ``stat`` and ``list`` are
    worked out from what the tier says; what is read is proven.
    """

    def __init__(
        self,
        inner: Tier,
        archive_id: bytes | None,
        keys: Sequence[ArchiveKey],
        scratch: Path | None = None,
    ) -> None:
        super().__init__(inner)
        if not keys:
            raise KeyMissing(inner.name, "", "an encrypted tier needs the archive key: none is set")
        self.keyrings = Keyrings(inner, archive_id, keys)
        """Of this tier: for changes of the archive key, and to tell what there is."""
        self._scratch = scratch
        self._names: NameCipher | None = None

    @property
    def traits(self) -> TierTraits:
        """Those of the inner tier, but what is put here is encrypted and nothing can be had as a file."""
        return replace(self._inner.traits, local=False, trusted=True)

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        """See Tier.put.  ObjectExists caused by ObjectDamaged or KeyMissing: what is there can't be read."""
        check_key(key, self.name)
        name = self._stored(key, self.keyrings.ensure_name_key())
        if self._is_there(name):
            self._require_same(key, name, sha256)
            return
        try:
            if isinstance(source, bytes):
                self._put_bytes(key, name, source, sha256)
            else:
                self._put_file(key, name, source, sha256)
        except ObjectExists:
            self._require_same(key, name, sha256)

    def get(self, key: ObjectKey) -> bytes:
        """See Tier.get."""
        name = self._name_of(key)
        run = self._opened(key, name, 0, self._asked(key, lambda: self._inner.get(name)))
        if run.covered != run.length:
            raise ObjectDamaged(self.name, key, "is cut short")
        return run.plain

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """See Tier.get_range: one request, of the segments around the range."""
        name = self._name_of(key)
        if not wanted.length:
            self._asked(key, lambda: self._inner.get_range(name, ByteRange(0, 0)))
            return b""
        first = wanted.offset // SEGMENT_BYTES
        start = wanted.offset - first * SEGMENT_BYTES
        last = (wanted.offset + wanted.length - 1) // SEGMENT_BYTES
        run = self._run(key, name, first, last, slice(start, start + wanted.length))
        return b"" if run is None else run.plain

    def stat(self, key: ObjectKey) -> ObjectStat:
        """See Tier.stat."""
        name = self._name_of(key)
        return _plain_stat(self._asked(key, lambda: self._inner.stat(name)))

    def restore(self, key: ObjectKey) -> None:
        """See Tier.restore."""
        name = self._name_of(key)
        self._asked(key, lambda: self._inner.restore(name))

    def delete(self, key: ObjectKey) -> None:
        """See Tier.delete.  Its key stays on the keyring: `destroy` removes that too."""
        check_key(key, self.name)
        if (name_key := self.keyrings.name_key()) is not None:
            self._inner.delete(self._stored(key, name_key))

    def erase(self, key: ObjectKey) -> None:
        """See Tier.erase.  Its key stays on the keyring: `destroy` removes that too."""
        check_key(key, self.name)
        if (name_key := self.keyrings.name_key()) is not None:
            self._inner.erase(self._stored(key, name_key))

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """See Tier.list.  Keys come from names, without a request each; all are held to be sorted."""
        check_prefix(prefix, self.name)
        name_key = self.keyrings.name_key()
        if name_key is None:
            return iter(())
        names, start = self._cipher(name_key), f"{prefix}/" if prefix else ""
        found = []
        for name, stat in self._inner.list(prefix.partition("/")[0]):
            key = names.logical(name)
            if key is not None and key.startswith(start) and not _reserved(key):
                found.append((key, _plain_stat(stat)))
        return iter(sorted(found, key=lambda item: item[0]))

    def open_local(self, key: ObjectKey) -> Path | None:
        """See Tier.open_local: no file has the plain bytes."""
        self.stat(key)
        return None

    def strangers(self, prefix: str = "") -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """What lies on the inner tier under other names than this one makes: plain or of others."""
        name_key = self.keyrings.name_key()
        for name, stat in self._inner.list(prefix):
            if parse_keyring_key(name) is not None:
                continue
            if name_key is None or self._cipher(name_key).logical(name) is None:
                yield name, stat

    def destroy(self, keys: Collection[ObjectKey]) -> None:
        """Remove the keys of these objects from all keyrings, then the objects: for ever unreadable.

        Many at a time rewrite each keyring once.  Objects that are not there are left out.  Doing it again
        finishes what was interrupted.  Raises TierError.
        """
        references = set()
        for key in keys:
            # Only an opened segment proves which key it is.
            try:
                run = self._run(key, self._name_of(key), 0, 0)
            except ObjectNotFound:
                continue
            except KeyDestroyed as error:
                # Older versions of the keyring may be left.
                references.add(KeyReference(error.keyring, error.index))
                continue
            if run is not None:
                references.add(run.reference)
        self.keyrings.destroy(references)
        for key in keys:
            self.erase(key)

    def _cipher(self, name_key: bytes) -> NameCipher:
        if self._names is None:
            self._names = NameCipher(name_key)
        return self._names

    def _stored(self, key: ObjectKey, name_key: bytes) -> ObjectKey:
        if _reserved(key):
            raise TierError(self.name, key, f"names below {KEYRING_PREFIX}/ are the tier's own")
        return self._cipher(name_key).stored(key)

    def _name_of(self, key: ObjectKey) -> ObjectKey:
        """Where an object lies if it is there."""
        check_key(key, self.name)
        name_key = self.keyrings.name_key()
        if name_key is None:
            raise ObjectNotFound(self.name, key)
        return self._stored(key, name_key)

    def _asked(self, key: ObjectKey, call: Callable[[], T]) -> T:
        """The answer of the inner tier; an object that is missing or cold is told by the key asked for."""
        try:
            return call()
        except ObjectNotFound as error:
            raise ObjectNotFound(self.name, key) from error
        except ObjectCold as error:
            raise ObjectCold(self.name, key, restoring=error.restoring) from error

    def _opened(
        self, key: ObjectKey, name: ObjectKey, first: int, stored: bytes, wanted: slice = slice(None)
    ) -> Run:
        try:
            return opened(stored, name, first, self.keyrings.secret, wanted)
        except FormatError as error:
            raise ObjectDamaged(self.name, key, error.problem) from error

    def _run(
        self, key: ObjectKey, name: ObjectKey, first: int, last: int, wanted: slice = slice(None)
    ) -> Run | None:
        """Segments ``first`` to ``last`` as far as there are any; None behind the end."""
        around = ByteRange(first * STORED_SEGMENT, (last - first + 1) * STORED_SEGMENT)
        stored = self._asked(key, lambda: self._inner.get_range(name, around))
        if not stored and first:
            # Nothing there: only the object itself can prove that it ends before.
            start = self._run(key, name, 0, 0)
            if start is not None and first < segments_of(start.length):
                raise ObjectDamaged(self.name, key, "is cut short")
            return None
        run = self._opened(key, name, first, stored, wanted)
        end = min((last + 1) * SEGMENT_BYTES, run.length)
        if first * SEGMENT_BYTES + run.covered != end:
            raise ObjectDamaged(self.name, key, "is cut short")
        return run

    def _is_there(self, name: ObjectKey) -> bool:
        try:
            self._inner.stat(name)
        except ObjectNotFound:
            return False
        return True

    def _require_same(self, key: ObjectKey, name: ObjectKey, sha256: str) -> None:
        """Read all that is there and compare; raises ObjectExists."""
        digest, number, length = hashlib.sha256(), 0, 0
        try:
            while number < segments_of(length):
                run = self._run(key, name, number, number + _STEP // SEGMENT_BYTES - 1)
                if run is None:
                    raise ObjectDamaged(self.name, key, "is cut short")
                length = run.length
                digest.update(run.plain)
                number += _STEP // SEGMENT_BYTES
        except (ObjectDamaged, KeyMissing) as error:
            problem = f"an object that can't be read has this name: {error.problem}"
            raise ObjectExists(self.name, key, problem) from error
        if digest.hexdigest() != sha256:
            raise ObjectExists(self.name, key)

    def _put_bytes(self, key: ObjectKey, name: ObjectKey, source: bytes, sha256: str) -> None:
        if hashlib.sha256(source).hexdigest() != sha256:
            raise TierError(self.name, key, "source does not match its digest")
        data = self._sealer(name, len(source)).seal(memoryview(source))
        self._inner.put(name, data, hashlib.sha256(data).hexdigest())

    def _put_file(self, key: ObjectKey, name: ObjectKey, source: Path, sha256: str) -> None:
        try:
            if source.stat().st_size <= _IN_MEMORY:
                self._put_bytes(key, name, source.read_bytes(), sha256)
                return
            with _temporary(self._scratch) as (sealed, path):
                with source.open("rb") as plain:
                    stored_sha256 = self._seal_file(key, name, plain, sealed, sha256)
                sealed.flush()
                self._inner.put(name, path, stored_sha256)
        except OSError as error:
            raise TierError(self.name, key, f"source can't be read or sealed: {error.strerror}") from error

    def _sealer(self, name: ObjectKey, length: int) -> Sealer:
        reference, secret = self.keyrings.take()
        return Sealer(secret, reference, name, length)

    def _seal_file(
        self, key: ObjectKey, name: ObjectKey, plain: IO[bytes], sealed: IO[bytes], sha256: str
    ) -> str:
        """Seal a file piece by piece; returns the digest of what is to be stored."""
        size = os.fstat(plain.fileno()).st_size
        sealer = self._sealer(name, size)
        plain_digest, digest = hashlib.sha256(), hashlib.sha256()
        while piece := plain.read(_STEP):
            plain_digest.update(piece)
            stored = sealer.seal(memoryview(piece))
            digest.update(stored)
            sealed.write(stored)
        if plain_digest.hexdigest() != sha256 or plain.tell() != size:
            raise TierError(self.name, key, "source does not match its digest")
        return digest.hexdigest()


@contextmanager
def _temporary(folder: Path | None) -> Iterator[tuple[IO[bytes], Path]]:
    """A file without a name, so that nothing is left of it when the process is killed; and a path to it.

    With a name where the file system has no such files.
    """
    try:
        descriptor = os.open(folder or tempfile.gettempdir(), os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
    else:
        with os.fdopen(descriptor, "w+b") as file:
            yield file, Path(f"/proc/self/fd/{descriptor}")
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix="sealed-") as named:
        yield named.file, Path(named.name)


def _plain_stat(stored: ObjectStat) -> ObjectStat:
    return replace(stored, size=plain_size(stored.size))


def _reserved(key: str) -> bool:
    return key.partition("/")[0] == KEYRING_PREFIX
