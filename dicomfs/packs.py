"""Open packs: parsed indexes and decoded header blocks, bounded, for whoever reads objects.

Sits between a tier and reconstruction: `PackSource` turns an object key into a reader.  The bytes behind a
reader may come from a tier or, while a pack is being sealed, from a file that is not placed yet.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from dicomfs.decoded import BytesCache
from dicomfs.errors import DamagedError, ObjectNotFound, TierError
from dicomfs.format.header import HeaderPackReader, SeriesPart
from dicomfs.format.pack import PackReader
from dicomfs.format.pack_notes import Packing, StoodFor
from dicomfs.format.shared_texts import TextRef
from dicomfs.format.text_pack import read_text
from dicomfs.model import ObjectKey, is_header_pack
from dicomfs.tiers.base import ByteRange, Tier

_OPEN_PACKS = 256
_OPEN_PARTS = 64
_BLOCK_BYTES = 64 << 20
_TEXT_BYTES = 16 << 20

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


Placed = Callable[[ObjectKey], ObjectKey]
"""Which object is read for a key: the nearest of a pack and its twins, a stand-in, else the object itself."""
_PLACED_SECONDS = 10.0
"""How long that is taken for true: then a twin may have come nearer."""
_MOVES = 8
"""How often another object may have to be read for a key before that is taken for an error."""


Doubt = Callable[[Collection[ObjectKey]], bool]
"""Proves the copies that objects are read from, and replaces bad ones; whether reading again may succeed."""


def _itself(key: ObjectKey) -> ObjectKey:
    return key


def _unnoted(key: ObjectKey) -> None:
    """Nobody wants to know what is read."""


def _no_other_copy(keys: Collection[ObjectKey]) -> bool:  # noqa: ARG001  the signature of Doubt
    return False


class PackSource:
    """Readers of packs by key.  Thread-safe; readers are shared and stateless.

    Packs may be read by stand-ins (docs/format.md): ``placed`` knows which.  What it said is remembered for a
    while, and asked again where an object cannot be had, which is how a reader learns that another process
    moved a pack, or comes to a twin of it.
    """

    def __init__(self, tier: Tier, placed: Placed = _itself, doubt: Doubt = _no_other_copy) -> None:
        self._tier, self._ask, self._doubt = tier, placed, doubt
        self._placed: OrderedDict[ObjectKey, tuple[ObjectKey, float]] = OrderedDict()
        self._staged: dict[ObjectKey, Path] = {}
        self._lock = threading.Lock()
        self._packs: OrderedDict[ObjectKey, PackReader | HeaderPackReader] = OrderedDict()
        self._parts: OrderedDict[tuple[ObjectKey, int], SeriesPart] = OrderedDict()
        self._blocks: BytesCache[tuple[ObjectKey, int]] = BytesCache(_BLOCK_BYTES)
        self._texts: BytesCache[ObjectKey] = BytesCache(_TEXT_BYTES)
        self.note_used: Callable[[ObjectKey], None] = _unnoted
        """Called with each pack that a file is read from, from a cache or not."""

    @classmethod
    def staged(cls, tier: Tier, files: dict[ObjectKey, Path], placed: Placed = _itself) -> PackSource:
        """A source that reads these keys from files that are not placed yet, bypassing every cache."""
        source = cls(tier, placed)
        source._staged = dict(files)
        return source

    def close(self) -> None:
        """Let go of all readers, and with them of staged files: readers of headers refer back to this."""
        with self._lock:
            self._packs.clear()

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
        header = is_header_pack(key)
        reader = HeaderPackReader(read, size, key, self.text) if header else PackReader(read, size, key)
        with self._lock:
            self._packs[key] = reader
            while len(self._packs) > _OPEN_PACKS:
                self._packs.popitem(last=False)
        return reader

    def placed(self, key: ObjectKey) -> ObjectKey:
        """The object that is read for a key."""
        with self._lock:
            found, learned_s = self._placed.get(key, (key, -math.inf))
        return found if time.monotonic() < learned_s + _PLACED_SECONDS else self._learn(key)

    def is_open(self, key: ObjectKey) -> bool:
        """Whether a pack can be had at once: it is known what is read for the key, and its index is here."""
        with self._lock:
            found, learned_s = self._placed.get(key, (key, -math.inf))
            return time.monotonic() < learned_s + _PLACED_SECONDS and found in self._packs

    def _learn(self, key: ObjectKey) -> ObjectKey:
        found = self._ask(key)
        with self._lock:
            self._placed[key] = found, time.monotonic()
            self._placed.move_to_end(key)
            while len(self._placed) > _OPEN_PACKS:
                self._placed.popitem(last=False)
        return found

    def moved(self, keys: Iterable[ObjectKey], missing: ObjectKey) -> bool:
        """Whether none of these keys is read by the object ``missing`` any more: then reading may succeed.

        Missing may also be one that is there and cannot be had, of which there is a twin.
        """
        return missing not in [self._learn(key) for key in keys]

    def doubt(self, keys: Iterable[ObjectKey]) -> bool:
        """Say that what these packs gave is wrong; whether a good copy took the place of a bad one."""
        if not self._doubt([self.placed(key) for key in keys]):
            return False
        with self._lock:
            self._packs.clear()
            self._parts.clear()
        return True

    def pack(self, key: ObjectKey) -> PackReader:
        """A pack of segments or chunks: the one of that key, or the one that stands in for it.

        Raises:
            TierError: it cannot be had.
            FormatError: its index is damaged or of another version.
        """
        for _ in range(_MOVES):
            placed = self.placed(key)
            try:
                return self.object(placed)
            except TierError:
                if not self.moved([key], placed):
                    raise
        return self.object(self.placed(key))

    def object(self, key: ObjectKey) -> PackReader:
        """The pack of that key and no other; raises as `pack` does."""
        reader = self._open(key)
        if not isinstance(reader, PackReader):
            raise ObjectNotFound(self._tier.name, key)
        return reader

    def require(self, key: ObjectKey, index_digest: int) -> None:
        """Open a pack and see that it is the one an instance table refers to; raises as `pack` does.

        Raises:
            DamagedError: another pack lies under its name.
        """
        reader = self.pack(key)
        found = reader.index_digest
        if found is None or (reader.name == key and found == index_digest):
            return
        if StoodFor.of(key, index_digest) not in reader.packing.stands_for:
            raise DamagedError(key, "is not the pack that the instance table refers to")

    def packing(self, key: ObjectKey) -> Packing:
        """What a pack says of its making, and what it stands for: by a scan where its index is lost.

        Raises as `pack` does.
        """
        try:
            return self.object(key).packing
        except DamagedError:
            read, size = self._ranges(key)
            return PackReader.rebuild(read, size, key).packing

    def headers(self, key: ObjectKey) -> HeaderPackReader:
        """A header pack; raises as `pack` does."""
        reader = self._open(key)
        if not isinstance(reader, HeaderPackReader):
            raise ObjectNotFound(self._tier.name, key)
        return reader

    def text(self, ref: TextRef) -> bytes:
        """A shared text, read once and kept; raises as `pack` does."""

        def read() -> dict[ObjectKey, bytes]:
            self.require(ref.key, ref.index_digest)
            return {ref.key: read_text(self.pack(ref.key))}

        self.note_used(ref.key)
        return self._texts.fetch(ref.key, ref.key, read)

    def part(self, key: ObjectKey, index: int) -> SeriesPart:
        """The instance table of one series part; raises as `pack` does.

        SOP Instance UIDs that lie in header blocks are '' in it: see `identified_part`.
        """
        with self._lock:
            part = self._parts.get((key, index))
            if part is not None:
                self._parts.move_to_end((key, index))
                return part
        part = self.headers(key).table(index)
        with self._lock:
            self._parts[(key, index)] = part
            while len(self._parts) > _OPEN_PARTS:
                self._parts.popitem(last=False)
        return part

    def needs(self, key: ObjectKey, index: int, rows: Iterable[int]) -> set[ObjectKey]:
        """The packs that these rows of a series part have pieces in, and the texts that its headers need.

        Raises as `pack` does, DamagedError also where there is no such row.
        """
        part, wanted = self.part(key, index), list(rows)
        if not all(0 <= row < len(part.entries) for row in wanted):
            raise DamagedError(key, "has fewer instances than the catalog says")
        return part.needs(part.entries[row] for row in wanted)

    def identified_part(self, key: ObjectKey, index: int) -> SeriesPart:
        """A series part with all SOP Instance UIDs; decodes its header blocks, raises as `pack` does."""
        return self.headers(key).part(index)

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
