"""Objects fetched piece by piece: what was asked for first, all of it if that pays, nothing twice.

Owns files with holes: a block is fetched once, however many ask for it, neighbouring blocks in one request.
What is complete can be kept as the object; nothing here is trusted before its digest was compared.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from dicomfs.errors import TierError, TierFull
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, Tier

BLOCK = 64 << 10
"""Bytes: that of the index at the end of a pack, and of the segments that tiers encrypt by."""
_RUN_BLOCKS = 128
"""Most blocks in a request, 8 MiB: a lost connection costs no more, and a reader waits no longer."""
_WHOLE_BYTES = 1 << 20
"""Smaller objects are fetched at once: a second request costs more than their bytes."""


class PartialObject:
    """One object of a remote tier, in a file without a name; gone when nobody refers to it."""

    def __init__(self, tier: Tier, key: ObjectKey, size: int, folder: Path) -> None:
        self.key, self.size, self.tier = key, size, tier
        # A file without a name: it goes with this object, and with the process.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._closing = weakref.finalize(self, self._file.close)
        self._descriptor = self._file.fileno()
        self._blocks = -(-size // BLOCK)
        self._present = bytearray(self._blocks)
        self._coming: set[int] = set()
        self._changed = threading.Condition()
        self.fetched = 0
        """Bytes that were asked of the tier."""

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return all(self._present)

    def read(self, offset: int, length: int) -> bytes:
        """These bytes; short only at the end of the object.

        Raises:
            TierError: they cannot be had.
        """
        stop = min(self.size, offset + length)
        if offset >= stop:
            return b""
        first, last = offset // BLOCK, -(-stop // BLOCK)
        if self.size <= _WHOLE_BYTES:
            first, last = 0, self._blocks
        self._require(first, min(self._blocks, max(last, self._worth_a_request(first))))
        return os.pread(self._descriptor, stop - offset, offset)

    def _worth_a_request(self, first: int) -> int:
        """Where to read on to from a missing block: what follows costs less now than asked for later."""
        if self._present[first]:
            return first
        return first + self.tier.traits.range_cost_bytes // BLOCK

    def fill(self, stopped: Callable[[], bool]) -> bool:
        """Fetch what is missing, in order; False where ``stopped`` said so.  Raises as `read` does."""
        for first in range(0, self._blocks, _RUN_BLOCKS):
            if stopped():
                return False
            self._require(first, min(self._blocks, first + _RUN_BLOCKS))
        return True

    def sha256(self) -> str:
        """Digest of a complete object, as hex digits."""
        digest = hashlib.sha256()
        for offset in range(0, self.size, 1 << 20):
            digest.update(os.pread(self._descriptor, 1 << 20, offset))
        return digest.hexdigest()

    def path(self) -> Path:
        """A path of the file, as long as this object is referred to."""
        return Path(f"/proc/self/fd/{self._descriptor}")

    def _require(self, first: int, last: int) -> None:
        """Have blocks from ``first`` to before ``last``: fetch what nobody fetches, wait for the rest."""
        while (mine := self._take(first, last)) is not None:
            for run in mine:
                self._fetch(run)

    def _take(self, first: int, last: int) -> list[range] | None:
        """Runs of blocks that the caller has to fetch, maybe none yet; None once all are there."""
        with self._changed:
            wanted = [block for block in range(first, last) if not self._present[block]]
            if not wanted:
                return None
            free = [block for block in wanted if block not in self._coming]
            if not free:
                self._changed.wait()
                return []
            self._coming.update(free)
        return list(_runs(free))

    def _fetch(self, run: range) -> None:
        offset = run.start * BLOCK
        length = min(self.size, run.stop * BLOCK) - offset
        try:
            data = self.tier.get_range(self.key, ByteRange(offset, length))
            if len(data) != length:
                raise TierError(self.tier.name, self.key, f"gave {len(data)} of {length} bytes")
            _write_all(self._descriptor, data, offset)
        except OSError as problem:
            self._end(run, present=False)
            raise TierFull("local", self.key, f"cannot be kept: {problem.strerror}") from problem
        except BaseException:
            self._end(run, present=False)
            raise
        self.fetched += length
        self._end(run, present=True)

    def _end(self, run: range, *, present: bool) -> None:
        with self._changed:
            for block in run:
                self._present[block] = present
            self._coming.difference_update(run)
            self._changed.notify_all()


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _runs(blocks: list[int]) -> Iterator[range]:
    start = blocks[0]
    for before, block in zip(blocks, [*blocks[1:], -1], strict=True):
        if block != before + 1 or block - start >= _RUN_BLOCKS:
            yield range(start, before + 1)
            start = block


class PartialObjects:
    """The objects that are fetched in pieces now, the least recently used dropped beyond a limit of bytes."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self._objects: OrderedDict[tuple[str, ObjectKey], PartialObject] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, tier: Tier, key: ObjectKey, size: int) -> PartialObject:
        """The one for a tier's object, made where there is none.

        Raises:
            TierFull: no file can be made.
        """
        name = (tier.name, key)
        with self._lock:
            found = self._objects.get(name)
            if found is None:
                try:
                    self._folder.mkdir(mode=0o700, exist_ok=True)
                    found = self._objects[name] = PartialObject(tier, key, size, self._folder)
                except OSError as problem:
                    raise TierFull("local", key, f"cannot be kept: {problem.strerror}") from problem
            self._objects.move_to_end(name)
            held = sum(one.fetched for one in self._objects.values())
            while held > self._limit and len(self._objects) > 1:
                _, dropped = self._objects.popitem(last=False)
                held -= dropped.fetched
            return found

    def forget(self, key: ObjectKey) -> None:
        """Drop what was fetched of an object, from whichever tier."""
        with self._lock:
            for name in [name for name in self._objects if name[1] == key]:
                del self._objects[name]
