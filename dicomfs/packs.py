"""Open packs: parsed indexes and decoded header blocks, bounded, for whoever reads objects.

Sits between a tier and reconstruction: `PackSource` turns an object key into a reader.  The bytes behind a
reader may come from a tier or, while a pack is being sealed, from a file that is not placed yet.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from dicomfs.decoded import BytesCache
from dicomfs.errors import DamagedError, ObjectNotFound
from dicomfs.format.header import HeaderPackReader, SeriesPart
from dicomfs.format.pack import PackReader
from dicomfs.model import ObjectKey, PackKind
from dicomfs.tiers.base import ByteRange, Tier

_OPEN_PACKS = 256
_OPEN_PARTS = 64
_BLOCK_BYTES = 64 << 20

ReadRange = Callable[[int, int], bytes]
"""(offset, length) -> bytes; short only at the end of the object."""


class FileRange:
    """Reads ranges of one local file; the descriptor lives as long as this object."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size

    def __call__(self, offset: int, length: int) -> bytes:
        parts = []
        while length > 0:
            part = os.pread(self._descriptor, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __del__(self) -> None:
        os.close(self._descriptor)


class PackSource:
    """Readers of packs by key.  Thread-safe; readers are shared and stateless."""

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._staged: dict[ObjectKey, Path] = {}
        self._lock = threading.Lock()
        self._packs: OrderedDict[ObjectKey, PackReader | HeaderPackReader] = OrderedDict()
        self._parts: OrderedDict[tuple[ObjectKey, int], SeriesPart] = OrderedDict()
        self._blocks: BytesCache[tuple[ObjectKey, int]] = BytesCache(_BLOCK_BYTES)

    @classmethod
    def staged(cls, tier: Tier, files: dict[ObjectKey, Path]) -> PackSource:
        """A source that reads these keys from files that are not placed yet, bypassing every cache."""
        source = cls(tier)
        source._staged = dict(files)
        return source

    def _ranges(self, key: ObjectKey) -> tuple[ReadRange, int]:
        path = self._staged.get(key)
        if path is not None:
            file = FileRange(path)
            return file, file.size

        def read(offset: int, length: int) -> bytes:
            return self._tier.get_range(key, ByteRange(offset, length))

        return read, self._tier.stat(key).size

    def _open(self, key: ObjectKey) -> PackReader | HeaderPackReader:
        with self._lock:
            reader = self._packs.get(key)
            if reader is not None:
                self._packs.move_to_end(key)
                return reader
        read, size = self._ranges(key)
        header = key.startswith(PackKind.HEADER.prefix + "/")
        reader = HeaderPackReader(read, size, key) if header else PackReader(read, size, key)
        with self._lock:
            self._packs[key] = reader
            while len(self._packs) > _OPEN_PACKS:
                self._packs.popitem(last=False)
        return reader

    def pack(self, key: ObjectKey) -> PackReader:
        """A pack of segments or chunks.

        Raises:
            TierError: it cannot be had.
            FormatError: its index is damaged or of another version.
        """
        reader = self._open(key)
        if not isinstance(reader, PackReader):
            raise ObjectNotFound(self._tier.name, key)
        return reader

    def require(self, key: ObjectKey, index_digest: int) -> None:
        """Open a pack and see that it is the one an instance table refers to; raises as `pack` does.

        Raises:
            DamagedError: another pack lies under its name.
        """
        found = self.pack(key).index_digest
        if found is not None and found != index_digest:
            raise DamagedError(key, "is not the pack that the instance table refers to")

    def headers(self, key: ObjectKey) -> HeaderPackReader:
        """A header pack; raises as `pack` does."""
        reader = self._open(key)
        if not isinstance(reader, HeaderPackReader):
            raise ObjectNotFound(self._tier.name, key)
        return reader

    def part(self, key: ObjectKey, index: int) -> SeriesPart:
        """The instance table of one series part; raises as `pack` does."""
        with self._lock:
            part = self._parts.get((key, index))
            if part is not None:
                self._parts.move_to_end((key, index))
                return part
        part = self.headers(key).part(index)
        with self._lock:
            self._parts[(key, index)] = part
            while len(self._parts) > _OPEN_PARTS:
                self._parts.popitem(last=False)
        return part

    def header_bytes(self, key: ObjectKey, index: int, row: int) -> bytes:
        """The header bytes of one instance; the block they lie in is decoded once and kept."""
        reader = self.headers(key)
        number, offset, length = reader.block_of(index, row)
        if not length:
            return b""
        block = self._blocks.fetch(
            (key, number), (key, number), lambda: {(key, number): reader.block(number)}
        )
        return block[offset : offset + length]
