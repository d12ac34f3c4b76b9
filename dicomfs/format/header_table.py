"""The table of a series part: its values and their stored form, column by column.

Owns InstanceEntry and SeriesPart and their validation.  Does not hold header bytes (dicomfs.format.header).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.coded_pieces import (
    FEATURE,
    CodedColumns,
    coded_pieces,
    encode_coded,
    recipe_lengths,
    transcoded_pieces,
)
from dicomfs.format.columns import IntColumn, TextColumn, decode_ints, encode_ints, encode_texts
from dicomfs.format.digest import DIGEST_BYTES
from dicomfs.format.header_uids import UidPlaces, find_uids, read_uids
from dicomfs.format.keys import pack_key, parse_pack_key
from dicomfs.format.nodes import PatientRecord, SeriesRecord, StudyRecord
from dicomfs.format.version import (
    MAX_BLOCK,
    MAX_FRAMES,
    MAX_LENGTH,
    MAX_PART_PIECES,
    MAX_PART_ROWS,
    MAX_STACKS,
    MAX_STREAMS,
)
from dicomfs.model import (
    POSITION_BITS,
    CodedPiece,
    FramePiece,
    HeaderPiece,
    ObjectKey,
    PackKind,
    PatientNode,
    Piece,
    SeriesNode,
    StreamPiece,
    StudyNode,
    TranscodedPiece,
    is_header_pack,
    is_text_pack,
)

_WRITING = "series part being written"
_KINDS = b"HFSCT"
_HEADER, _FRAMES, _STREAM, _CODED, _TRANSCODED = _KINDS
_KIND_OF: dict[type[Piece], int] = {
    HeaderPiece: _HEADER,
    FramePiece: _FRAMES,
    StreamPiece: _STREAM,
    CodedPiece: _CODED,
    TranscodedPiece: _TRANSCODED,
}
_MAX_ORDER = 1 << 40
_SHA256_BYTES = 32
_Int64s = npt.NDArray[np.int64]
_Value = TypeVar("_Value", str, bytes)


@dataclass(frozen=True, slots=True)
class InstanceEntry:
    """One instance of a series part: all that is known of a file but its header bytes and pixels."""

    position: int
    """Order of acceptance in the series, below 2**23."""
    name_level: int
    """Which form of file name it got (0: the plain one)."""
    instance_number: int | None
    """Instance Number (0020,0013), None where absent or no number."""
    sop_instance_uid: str
    size: int
    """Bytes of the file."""
    mtime_ns: int
    """Nanoseconds since 1970."""
    sha256: bytes
    """Of the whole file, 32 bytes."""
    order: int
    """Rank in slice order within the part."""
    pieces: tuple[Piece, ...]
    """The file is their concatenation."""
    note: str
    """Why the file is kept opaque; empty when it was split."""

    @property
    def header_bytes(self) -> int:
        """Bytes that lie in a header block: those of the header pieces, then all recipes."""
        return self.header_length + sum(
            piece.recipe for piece in self.pieces if isinstance(piece, CodedPiece | TranscodedPiece)
        )

    @property
    def header_length(self) -> int:
        """Sum of the header pieces: header bytes that are bytes of the file."""
        return sum(piece.length for piece in self.pieces if isinstance(piece, HeaderPiece))


@dataclass(frozen=True, slots=True)
class SeriesPart:
    """Instances of one series sealed together, with the nodes that they hang from."""

    patient: PatientNode
    study: StudyNode
    series: SeriesNode
    part: int
    """Number of the part in its series, from 0."""
    high_water: dict[str, int]
    """Counters ("patient", "study", "series"): numbers below these may have been given out."""
    entries: list[InstanceEntry]
    packs: dict[ObjectKey, int]
    """The packs that pieces refer to, and the shared texts of its header blocks, each with the digest of its
    plain index: a pack under another's name is noticed when it is opened, not only when all its bytes are
    compared."""

    def needs(self, entries: Iterable[InstanceEntry]) -> set[ObjectKey]:
        """The objects without which these entries of it cannot be read."""
        found: set[ObjectKey] | None = None
        for entry in entries:
            found = {key for key in self.packs if is_text_pack(key)} if found is None else found
            found |= {piece.pack for piece in entry.pieces if not isinstance(piece, HeaderPiece)}
        return found or set()


Run = tuple[
    Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)],
    Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)],
    Annotated[int, msgspec.Meta(ge=1, le=MAX_PART_ROWS)],
]
"""(block, offset in its plain bytes, rows): header bytes of the next rows lie there one after the other."""

_Digest = Annotated[bytes, msgspec.Meta(min_length=_SHA256_BYTES, max_length=_SHA256_BYTES)]
_IndexDigest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class PartRecord(msgspec.Struct, frozen=True, array_like=True):
    """Payload of a SERIES_PART section."""

    patient: PatientRecord
    study: StudyRecord
    series: SeriesRecord
    part: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    high_water: dict[str, _Number]
    rows: Annotated[int, msgspec.Meta(ge=0, le=MAX_PART_ROWS)]
    runs: tuple[Run, ...]
    position: IntColumn
    name_level: IntColumn
    has_number: IntColumn
    """1 where there is an Instance Number."""
    number: IntColumn
    """Instance Numbers, of the rows that have one only."""
    uid: TextColumn
    body: IntColumn
    """Size of the file without its header bytes."""
    mtime: IntColumn
    sha256: bytes
    """32 bytes for each row."""
    order: IntColumn
    notes: tuple[str, ...]
    note: IntColumn
    """Index in ``notes``."""
    keys: tuple[tuple[Annotated[int, msgspec.Meta(ge=1, le=5)], _Digest, _IndexDigest], ...]
    """Packs that pieces and header blocks need: kind, digest in its name, that of the plain index."""
    shapes: tuple[bytes, ...]
    """Sequences of piece kinds: H header, F frames, S stream, C and T codestreams."""
    shape: IntColumn
    """Index in ``shapes``."""
    header: IntColumn
    """Length of each header piece, row after row; the columns below likewise for their pieces."""
    frames: Annotated[tuple[IntColumn, ...], msgspec.Meta(min_length=5, max_length=5)]
    """Index in ``keys``, stack, first, count, step."""
    stream: Annotated[tuple[IntColumn, ...], msgspec.Meta(min_length=4, max_length=4)]
    """Index in ``keys``, stream, offset, length."""
    coded: CodedColumns | None = None
    """Since 1.1; only with the feature of that name."""
    uid_places: UidPlaces | None = None
    """Since 1.1: where the UIDs lie that are not in ``uid``."""


def features(parts: Sequence[SeriesPart]) -> tuple[str, ...]:
    """What a reader of a header pack with these parts must know."""
    coded = any(
        isinstance(piece, CodedPiece | TranscodedPiece)
        for part in parts
        for entry in part.entries
        for piece in entry.pieces
    )
    return (FEATURE,) if coded else ()


def encode_part(part: SeriesPart, runs: Sequence[Run], headers: Sequence[bytes]) -> PartRecord:
    """The stored form; FormatError for entries that no reader would accept.

    ``headers`` are the header bytes of the entries: their UIDs are not stored twice.
    """
    entries = part.entries
    pieces = [piece for entry in entries for piece in entry.pieces]
    if len(entries) > MAX_PART_ROWS or len(pieces) > MAX_PART_PIECES:
        raise FormatError(_WRITING, f"{len(entries)} instances of {len(pieces)} pieces are too many")
    keys: dict[ObjectKey, int] = {}
    for piece in pieces:
        if not isinstance(piece, HeaderPiece):
            keys.setdefault(piece.pack, len(keys))
    for key in part.packs:
        if is_text_pack(key):
            keys.setdefault(key, len(keys))
    if keys.keys() != part.packs.keys():
        raise FormatError(_WRITING, "its list of packs is not that of its pieces")
    frames = [
        (keys[piece.pack], piece.stack, piece.first, piece.count, piece.step)
        for piece in pieces
        if isinstance(piece, FramePiece)
    ]
    streams = [
        (keys[piece.pack], piece.stream, piece.offset, piece.length)
        for piece in pieces
        if isinstance(piece, StreamPiece)
    ]
    notes, note = _distinct([entry.note for entry in entries])
    shapes, shape = _distinct([_shape_of(entry) for entry in entries])
    uid_places, uids = find_uids([entry.sop_instance_uid for entry in entries], headers)
    return PartRecord(
        patient=PatientRecord.of(part.patient),
        study=StudyRecord.of(part.study),
        series=SeriesRecord.of(part.series),
        part=part.part,
        high_water=part.high_water,
        rows=len(entries),
        runs=tuple(runs),
        position=encode_ints([entry.position for entry in entries]),
        name_level=encode_ints([entry.name_level for entry in entries]),
        has_number=encode_ints([entry.instance_number is not None for entry in entries]),
        number=encode_ints([entry.instance_number for entry in entries if entry.instance_number is not None]),
        uid=encode_texts(uids),
        body=encode_ints([entry.size - entry.header_length for entry in entries]),
        mtime=encode_ints([entry.mtime_ns for entry in entries]),
        sha256=b"".join(entry.sha256 for entry in entries),
        order=encode_ints([entry.order for entry in entries]),
        notes=tuple(notes),
        note=encode_ints(note),
        keys=tuple(_stored_key(key, part.packs[key]) for key in keys),
        shapes=tuple(shapes),
        shape=encode_ints(shape),
        header=encode_ints([piece.length for piece in pieces if isinstance(piece, HeaderPiece)]),
        frames=_encode_rows(frames, 5),
        stream=_encode_rows(streams, 4),
        coded=encode_coded(pieces, keys),
        uid_places=uid_places,
    )


def decode_part(
    record: PartRecord, artefact: str, header: Callable[[int], bytes] | None = None
) -> SeriesPart:
    """The checked values; DamagedError for anything that the writer would not have written.

    ``header`` gives the header bytes of a row.  Without it SOP Instance UIDs that only these hold are ''.
    """
    entries = _Entries(record, artefact, header).build()
    packs = {
        _key(kind, digest): int.from_bytes(index_digest, "little")
        for kind, digest, index_digest in record.keys
    }
    if len(packs) != len(record.keys):
        raise DamagedError(artefact, "a pack is listed twice")
    if any(map(is_header_pack, packs)):
        raise DamagedError(artefact, "pieces lie in a header pack")
    return SeriesPart(
        record.patient.node(),
        record.study.node(),
        record.series.node(),
        record.part,
        dict(record.high_water),
        entries,
        packs,
    )


def header_lengths(record: PartRecord, artefact: str) -> _Int64s:
    """Bytes of each row that lie in a header block, recipes among them, shape (rows,); DamagedError."""
    shapes = _shapes(record, artefact)
    lengths = _piece_lengths(record, shapes, artefact)
    if record.coded is not None:
        counts = [[shape.count(kind) for shape in shapes] for kind in (_CODED, _TRANSCODED)]
        recipes = recipe_lengths(record.coded, sum(counts[0]), sum(counts[1]), artefact)
        lengths = lengths + _by_row(recipes[0], counts[0]) + _by_row(recipes[1], counts[1])
    return lengths


def _piece_lengths(record: PartRecord, shapes: Sequence[bytes], artefact: str) -> _Int64s:
    """Bytes of the header pieces of each row."""
    counts = [shape.count(_HEADER) for shape in shapes]
    return _by_row(_bounded(record.header, sum(counts), MAX_BLOCK, artefact), counts)


def _by_row(lengths: _Int64s, counts: Sequence[int]) -> _Int64s:
    """Sums of the next ``counts[k]`` lengths for each row k."""
    sums = np.concatenate(([0], np.cumsum(lengths)))
    edges = np.concatenate(([0], np.cumsum(np.array(counts, dtype=np.int64)))).astype(np.int64)
    return np.diff(sums[edges])


def _shapes(record: PartRecord, artefact: str) -> list[bytes]:
    """The shape of each row; the sum of their lengths is bounded."""
    numbers = _bounded(record.shape, record.rows, len(record.shapes) - 1, artefact)
    if any(shape.strip(_KINDS) for shape in record.shapes):
        raise DamagedError(artefact, "unknown kind of piece")
    lengths = np.array([len(shape) for shape in record.shapes], dtype=np.int64)
    if record.rows and int(lengths[numbers].sum()) > MAX_PART_PIECES:
        raise DamagedError(artefact, "too many pieces")
    return [record.shapes[number] for number in numbers.tolist()]


def _bounded(column: IntColumn, count: int, largest: int, artefact: str, smallest: int = 0) -> _Int64s:
    values = decode_ints(column, count, artefact)
    if count and (int(values.min()) < smallest or int(values.max()) > largest):
        raise DamagedError(artefact, "number out of range in a column")
    return values


class _Entries:
    """Puts the rows of a part together again."""

    def __init__(self, record: PartRecord, artefact: str, header: Callable[[int], bytes] | None) -> None:
        self._record = record
        self._header = header
        self._artefact = artefact
        self._shapes = _shapes(record, artefact)
        self._keys = [_key(kind, digest) for kind, digest, _ in record.keys]
        self._pieces = {
            _HEADER: self._header_pieces(),
            _FRAMES: self._frame_pieces(),
            _STREAM: self._stream_pieces(),
            **self._coded_pieces(),
        }

    def build(self) -> list[InstanceEntry]:
        record, artefact, rows = self._record, self._artefact, self._record.rows
        if len(record.sha256) != rows * _SHA256_BYTES:
            raise DamagedError(artefact, "wrong number of digests in a table")
        header = _piece_lengths(record, self._shapes, artefact)
        sizes = _bounded(record.body, rows, MAX_LENGTH, artefact) + header
        notes = [record.notes[at] for at in self._column(record.note, len(record.notes) - 1)]
        columns = zip(
            self._column(record.position, (1 << POSITION_BITS) - 1),
            self._column(record.name_level, 0xFFFF),
            self._numbers(),
            read_uids(record.uid_places, record.uid, rows, self._header, artefact),
            sizes.tolist(),
            decode_ints(record.mtime, rows, artefact).tolist(),
            (record.sha256[at * _SHA256_BYTES : (at + 1) * _SHA256_BYTES] for at in range(rows)),
            self._column(record.order, _MAX_ORDER),
            self._rows_of_pieces(),
            notes,
            strict=True,
        )
        return [InstanceEntry(*row) for row in columns]

    def _column(self, column: IntColumn, largest: int) -> list[int]:
        values: list[int] = _bounded(column, self._record.rows, largest, self._artefact).tolist()
        return values

    def _numbers(self) -> list[int | None]:
        present = self._column(self._record.has_number, 1)
        values = iter(decode_ints(self._record.number, sum(present), self._artefact).tolist())
        return [next(values) if flag else None for flag in present]

    def _rows_of_pieces(self) -> Iterator[tuple[Piece, ...]]:
        for shape in self._shapes:
            yield tuple(next(self._pieces[kind]) for kind in shape)

    def _count(self, kind: int) -> int:
        return sum(shape.count(kind) for shape in self._shapes)

    def _header_pieces(self) -> Iterator[Piece]:
        lengths = _bounded(self._record.header, self._count(_HEADER), MAX_BLOCK, self._artefact)
        return map(HeaderPiece, lengths.tolist())

    def _frame_pieces(self) -> Iterator[Piece]:
        limits = (len(self._keys) - 1, MAX_STACKS, MAX_FRAMES, MAX_FRAMES, MAX_FRAMES)
        # Frames of a file may lie backwards in their stack: a negative step.
        smallest = (0, 0, 0, 1, -MAX_FRAMES)
        for key, stack, first, count, step in self._piece_rows(
            self._record.frames, smallest, limits, _FRAMES
        ):
            yield FramePiece(self._keys[key], stack, first, count, step)

    def _stream_pieces(self) -> Iterator[Piece]:
        limits = (len(self._keys) - 1, MAX_STREAMS, MAX_LENGTH, MAX_LENGTH)
        for key, stream, offset, length in self._piece_rows(self._record.stream, (0,) * 4, limits, _STREAM):
            yield StreamPiece(self._keys[key], stream, offset, length)

    def _coded_pieces(self) -> dict[int, Iterator[Piece]]:
        columns, coded, other = self._record.coded, self._count(_CODED), self._count(_TRANSCODED)
        if columns is None:
            if coded or other:
                raise DamagedError(self._artefact, "codestreams without columns")
            return {}
        return {
            _CODED: coded_pieces(columns, coded, self._keys, self._artefact),
            _TRANSCODED: transcoded_pieces(columns, coded, other, self._keys, self._artefact),
        }

    def _piece_rows(
        self, columns: tuple[IntColumn, ...], smallest: tuple[int, ...], largest: tuple[int, ...], kind: int
    ) -> Iterator[tuple[int, ...]]:
        count = self._count(kind)
        decoded = [
            _bounded(column, count, high, self._artefact, low).tolist()
            for column, low, high in zip(columns, smallest, largest, strict=True)
        ]
        return zip(*decoded, strict=True)


def _encode_rows(rows: Sequence[tuple[int, ...]], width: int) -> tuple[IntColumn, ...]:
    return tuple(encode_ints([row[column] for row in rows]) for column in range(width))


def _distinct(values: Sequence[_Value]) -> tuple[list[_Value], list[int]]:
    """Distinct values in order of appearance, and for each value its number among them."""
    numbers: dict[_Value, int] = {}
    indices = [numbers.setdefault(value, len(numbers)) for value in values]
    return list(numbers), indices


def _stored_key(key: ObjectKey, index_digest: int) -> tuple[int, bytes, bytes]:
    kind, digest = parse_pack_key(key)
    return kind.value, digest, index_digest.to_bytes(DIGEST_BYTES, "little")


def _key(kind: int, digest: bytes) -> ObjectKey:
    return pack_key(PackKind(kind), digest.hex())


def _shape_of(entry: InstanceEntry) -> bytes:
    return bytes(_KIND_OF[type(piece)] for piece in entry.pieces)
