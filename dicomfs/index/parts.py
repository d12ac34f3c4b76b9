"""The compact record of one part of a series: rows to blob and back.

A fixed head (what counting and choosing a part need), the raw starts of the SHA-256, then the columns
as msgpack, zstd-compressed where that gains.  The row's index is its row in the header pack, unless rows
of it were forgotten: then a column says which are left.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from dicomfs.errors import CatalogError
from dicomfs.index.columns import IntColumn, Ints, UidColumn, Uids, decode_ints, encode_ints, encode_uids
from dicomfs.index.keys import pack_object_key, unpack_object_key
from dicomfs.index.records import PartInfo, PartRow
from dicomfs.instance_names import NUMBER_LIMIT, instance_name, number_in_name, usable_number
from dicomfs.model import POSITION_BITS, ConflictClass, InstanceId, InstanceRow, ObjectKey

SHA_START_BYTES = 8
_Bytes: TypeAlias = npt.NDArray[np.uint8]

# version, columns compressed, first and last position, rows, part index, commit stamp, logical bytes,
# length of the header pack's key
_HEAD = struct.Struct("<BBIIIIQQB")
_VERSION = 1
_LEVEL = 9
_MISSING = -1
_COLUMNS_LIMIT = 1 << 30


class _Columns(msgspec.Struct, array_like=True, frozen=True):
    positions: IntColumn
    numbers: IntColumn
    name_levels: IntColumn
    sizes: IntColumn
    mtimes: IntColumn
    orders: IntColumn
    """Less the instance number."""
    uids: UidColumn
    places: IntColumn | None = None
    """Rows in the header pack's part, where rows of it are left out."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Columns)


@dataclass(frozen=True, slots=True)
class Head:
    """What the first bytes of a blob tell."""

    first: int
    """Least position."""
    last: int
    rows: int
    part_index: int
    stamp: int
    """Time (ns) of the commit that wrote the blob: a key of caches, too."""
    logical_bytes: int
    header_key: ObjectKey
    compressed: bool
    size: int


def encode_part(
    rows: Sequence[PartRow],
    header_key: ObjectKey,
    part_index: int,
    stamp: int,
    places: Sequence[int] | None = None,
) -> bytes:
    """The blob of a part; ``places`` are the rows in the header pack, where they are not 0, 1, 2, ...

    Raises ValueError for rows that break the limits of `PartRow`.
    """
    _check(rows)
    positions = _ints([row.position for row in rows])
    usable = [usable_number(row.number) for row in rows]
    numbers = _ints([_MISSING if number is None else number for number in usable])
    # Slices mostly follow the instance numbers, in whatever order they came: keep how they differ.
    orders = _ints([row.order for row in rows]) - numbers
    columns = _ENCODER.encode(
        _Columns(
            encode_ints(positions),
            encode_ints(numbers),
            encode_ints(_ints([row.name_level for row in rows])),
            encode_ints(_ints([row.size for row in rows])),
            encode_ints(_ints([row.mtime_ns for row in rows])),
            encode_ints(orders),
            encode_uids([row.sop_instance_uid for row in rows]),
            None if places is None else encode_ints(_ints(list(places))),
        )
    )
    squeezed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(columns)
    compressed = len(squeezed) < len(columns)
    key = pack_object_key(header_key)
    total = sum(row.size for row in rows)
    head = _HEAD.pack(
        _VERSION, compressed, positions.min(), positions.max(), len(rows), part_index, stamp, total, len(key)
    )
    starts = b"".join(row.sha256[:SHA_START_BYTES] for row in rows)
    return head + key + starts + (squeezed if compressed else columns)


def _ints(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _check(rows: Sequence[PartRow]) -> None:
    if not rows:
        msg = "a part has at least one row"
        raise ValueError(msg)
    if len({row.position for row in rows}) != len(rows):
        msg = "positions of a part must differ"
        raise ValueError(msg)
    for row in rows:
        if not 0 <= row.position < 1 << POSITION_BITS or row.size < 0 or len(row.sha256) < SHA_START_BYTES:
            msg = f"impossible row at position {row.position}"
            raise ValueError(msg)
        instance_name(None, "", row.name_level)  # raises for a level that names no name


def read_head(blob: bytes) -> Head:
    """The head of a blob.  Raises CatalogError where it is none."""
    try:
        version, compressed, first, last, rows, index, stamp, total, key_size = _HEAD.unpack_from(blob)
        if version != _VERSION or not rows:
            raise _damaged()
        key = unpack_object_key(blob[_HEAD.size : _HEAD.size + key_size])
    except (struct.error, ValueError, IndexError) as error:
        raise _damaged() from error
    return Head(first, last, rows, index, stamp, total, key, bool(compressed), _HEAD.size + key_size)


def part_info(series: int, part: int, head: Head) -> PartInfo:
    """The public form of a head."""
    return PartInfo(series, part, head.header_key, head.part_index, head.rows, head.logical_bytes, head.stamp)


@dataclass(frozen=True, slots=True)
class DecodedPart:
    """A part's columns as arrays; rows are built on demand.  Immutable: threads share it freely."""

    series: int
    head: Head
    positions: Ints
    numbers: Ints
    name_levels: Ints
    sizes: Ints
    mtimes: Ints
    orders: Ints
    uids: Uids
    sha_starts: bytes
    places: Ints | None = None
    """Rows in the header pack's part; None where they are the same."""

    def place(self, row: int) -> int:
        """The row in the header pack's part."""
        return row if self.places is None else int(self.places[row])

    def row_at(self, position: int) -> int | None:
        """Row of a position, or None."""
        if not self.head.first <= position <= self.head.last:
            return None
        found = np.flatnonzero(self.positions == position)
        return int(found[0]) if len(found) else None

    def rows_named(self, name: str) -> list[int]:
        """Rows whose file name is ``name``: more than one where versions exist."""
        possible, number = number_in_name(name)
        if not possible:
            return []
        candidates = np.flatnonzero(self.numbers == (_MISSING if number is None else number)).tolist()
        return [row for row in candidates if self.name(row) == name]

    def name(self, row: int) -> str:
        """File name of a row."""
        number = int(self.numbers[row])
        return instance_name(
            None if number == _MISSING else number, self.uids[row], int(self.name_levels[row])
        )

    def row(self, row: int) -> PartRow:
        """A row as it was given."""
        number = int(self.numbers[row])
        return PartRow(
            int(self.positions[row]),
            None if number == _MISSING else number,
            int(self.name_levels[row]),
            self.uids[row],
            int(self.sizes[row]),
            int(self.mtimes[row]),
            self.sha_starts[row * SHA_START_BYTES : (row + 1) * SHA_START_BYTES],
            int(self.orders[row]),
        )

    def instance(self, row: int, version: tuple[int, int]) -> InstanceRow:
        """The public row; ``version`` is (version, conflict class)."""
        return InstanceRow(
            InstanceId(self.series, int(self.positions[row])),
            self.name(row),
            self.uids[row],
            int(self.sizes[row]),
            int(self.mtimes[row]),
            self.sha_starts[row * SHA_START_BYTES : (row + 1) * SHA_START_BYTES],
            version[0],
            ConflictClass(version[1]),
            False,
        )

    def instances(self, versions: dict[int, tuple[int, int]]) -> list[InstanceRow]:
        """All rows; ``versions`` by position, exceptions only."""
        none, plain = ConflictClass.NONE, (0, 0)
        starts, series = self.sha_starts, self.series
        rows = []
        for index, (position, number, level, uid, size, mtime) in enumerate(
            zip(
                self.positions.tolist(),
                self.numbers.tolist(),
                self.name_levels.tolist(),
                self.uids.all(),
                self.sizes.tolist(),
                self.mtimes.tolist(),
                strict=True,
            )
        ):
            name = instance_name(number, uid, level) if level or number < 0 else f"{number:06d}.dcm"
            version, conflict = versions.get(position, plain) if versions else plain
            start = starts[index * SHA_START_BYTES : (index + 1) * SHA_START_BYTES]
            rows.append(
                InstanceRow(
                    InstanceId(series, position),
                    name,
                    uid,
                    size,
                    mtime,
                    start,
                    version,
                    ConflictClass(conflict) if conflict else none,
                    False,
                )
            )
        return rows


def decode_part(series: int, blob: bytes) -> DecodedPart:
    """A blob's columns.  Raises CatalogError where it is not one."""
    head = read_head(blob)
    at = head.size + head.rows * SHA_START_BYTES
    if at > len(blob):  # before anything as large as the head claims is made
        raise _damaged()
    try:
        data = blob[at:]
        if head.compressed:
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=_COLUMNS_LIMIT)
        columns = _DECODER.decode(data)
        positions, numbers, name_levels = (
            decode_ints(column, head.rows)
            for column in (columns.positions, columns.numbers, columns.name_levels)
        )
        sizes, mtimes, orders = (
            decode_ints(column, head.rows) for column in (columns.sizes, columns.mtimes, columns.orders)
        )
        uids = Uids.decode(columns.uids, head.rows)
        places = None if columns.places is None else decode_ints(columns.places, head.rows)
    except (ValueError, OverflowError, zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise _damaged() from error
    in_range = head.first <= positions.min() <= positions.max() <= head.last
    named = 0 <= name_levels.min() <= name_levels.max() <= 2 and numbers.min() >= _MISSING
    if not (in_range and named and numbers.max() < NUMBER_LIMIT and sizes.min() >= 0):
        raise _damaged()
    return DecodedPart(
        series,
        head,
        positions,
        numbers,
        name_levels,
        sizes,
        mtimes,
        orders + numbers,
        uids,
        blob[head.size : at],
        places,
    )


def _damaged() -> CatalogError:
    return CatalogError("catalog: the record of a part is damaged; run `dicomfs recover`")
