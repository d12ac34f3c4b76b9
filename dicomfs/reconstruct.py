"""From a record to exact bytes: any range of any file, spliced from header bytes, frames and streams.

The only way file bytes leave the archive: the mount, ``verify`` and the sealing of a pack all read through an
`InstanceReader`, so what is proven at sealing is what is served later.  A byte is
handed out once the band, block or chunk it lies in was checked; a large file is never assembled whole.
"""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from dicomfs.codestreams import CodestreamReader
from dicomfs.dicom.keywords import keyword_value
from dicomfs.errors import (
    CodecError,
    DamagedError,
    FormatError,
    MismatchError,
    NotFoundError,
    ObjectCold,
    ObjectNotFound,
    TierError,
)
from dicomfs.format.header import InstanceEntry, SeriesPart
from dicomfs.frames import FrameReader, Slice, codec_of, segment_of
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import PartRef
from dicomfs.model import (
    CodedPiece,
    FramePiece,
    HeaderPiece,
    InstanceId,
    ObjectKey,
    Piece,
    StreamPiece,
    TranscodedPiece,
)
from dicomfs.packs import PackSource
from dicomfs.spool import Spool

_STEP_BYTES = 4 << 20
_MOVES = 8
"""How often a pack may be moved during one read before that is taken for an error."""
_ATTRIBUTE_BYTES = 4 << 20
"""Where attributes are looked for in a file that is not split."""


class InstanceReader(Protocol):
    """Reads one instance.  Thread-safe."""

    size: int
    """Bytes of the whole file."""
    sha256: bytes
    """Digest of the whole file, 32 bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """These bytes; short only at the end of the file.  May block.

        Raises:
            MismatchError, FormatError, CodecError, TierError: they cannot be had intact.
        """
        ...

    def read_ready(self, offset: int, length: int) -> bytes | None:
        """These bytes if no decoding, disk or tier is needed, else None."""
        ...

    def info(self) -> dict[str, object]:
        """How the instance is stored: codec, sizes."""
        ...

    def dicom_value(self, keyword: str) -> str | None:
        """Value of a top-level attribute as text; None where there is none.  May block."""
        ...

    def close(self) -> None:
        """Give back what the reader holds."""
        ...


class SpooledReader:
    """Reads an instance whose raw bytes lie in the spool."""

    def __init__(self, spool: Spool, instance: InstanceId, size: int, sha256: bytes) -> None:
        self.size, self.sha256 = size, sha256
        self._what = f"spooled instance {instance}"
        try:
            self._descriptor = os.open(spool.path(instance, sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError("spooled instance", str(instance)) from None
        except OSError as problem:
            raise TierError("spool", self._what, problem.strerror or "failed") from problem
        if os.fstat(self._descriptor).st_size != size:
            os.close(self._descriptor)
            raise DamagedError(self._what, "has another size than was accepted")

    def read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        end = min(self.size, offset + length)
        while offset < end:
            part = self._read_some(offset, end - offset)
            if not part:
                # The kernel takes a short answer for the end of the file, and would show a shorter one.
                raise DamagedError(self._what, "was cut off", offset)
            parts.append(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_some(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as problem:
            raise TierError("spool", self._what, problem.strerror or "failed") from problem

    def read_ready(self, offset: int, length: int) -> bytes | None:  # noqa: ARG002  a disk may always wait
        return None

    def info(self) -> dict[str, object]:
        return {
            "state": "spooled",
            "codec": "none",
            "stored_bytes": self.size,
            "sha256": self.sha256.hex(),
        }

    def dicom_value(self, keyword: str) -> str | None:
        return keyword_value(self.read(0, _ATTRIBUTE_BYTES), keyword)

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class _Span:
    """A piece and where it begins in the file, with what it needs to be read."""

    start: int
    piece: Piece
    header_at: int
    """Where its header bytes, or its recipe, begin."""


class PackedReader:
    """Reads an instance from packs: header bytes in memory, frames, streams and codestreams on demand."""

    def __init__(
        self,
        part: SeriesPart,
        row: int,
        header: bytes,
        frames: FrameReader,
        source: PackSource,
        codestreams: CodestreamReader | None = None,
        elsewhere: Callable[[], PackedReader | None] = lambda: None,
    ) -> None:
        """``elsewhere`` gives another reader once the instance is in another part, else None."""
        self._elsewhere = elsewhere
        entry = part.entries[row]
        self.size, self.sha256 = entry.size, entry.sha256
        self._packs = frozenset(piece.pack for piece in entry.pieces if not isinstance(piece, HeaderPiece))
        _require_all(source, {pack: part.packs[pack] for pack in self._packs})
        self._entry, self._header, self._frames, self._source = entry, header, frames, source
        self._codestreams = codestreams or CodestreamReader(frames, source)
        starts = [0, *accumulate(_piece_bytes(piece, frames) for piece in entry.pieces)]
        if starts[-1] != entry.size or entry.header_bytes != len(header):
            raise DamagedError(
                f"instance at position {entry.position}", "its pieces do not add up to its size"
            )
        self._starts = starts
        self._spans = [
            _Span(start, piece, at)
            for start, piece, at in zip(starts, entry.pieces, _header_places(entry), strict=False)
        ]

    def read(self, offset: int, length: int) -> bytes:
        for _ in range(_MOVES):
            try:
                return b"".join(self._read(offset, length))
            except TierError as problem:
                # A pack that is gone may have been moved to another profile since the file was opened; of one
                # that cannot be had there may be a twin.
                if self._source.moved(self._packs, ObjectKey(problem.key)):
                    continue
                if not isinstance(problem, ObjectNotFound):
                    raise
                # Or it was packed again together with other parts.
                reader = self._elsewhere()
                if reader is None:
                    raise
                return reader.read(offset, length)
            except (CodecError, FormatError, MismatchError):
                # The copy that was read is bad: there may be another one.
                if not self._source.doubt(self._packs):
                    raise
                self._frames.forget_payloads()
        return b"".join(self._read(offset, length))

    def read_ready(self, offset: int, length: int) -> bytes | None:
        try:
            return self._read_ready(offset, length)
        except ObjectNotFound:
            return None

    def _read_ready(self, offset: int, length: int) -> bytes | None:
        parts: list[bytes] = []
        for span, start, stop in self._covering(offset, length):
            if isinstance(span.piece, HeaderPiece):
                parts.append(self._header[span.header_at + start : span.header_at + stop])
                continue
            self._source.note_used(span.piece.pack)
            if not self._source.is_open(span.piece.pack):
                return None
            if isinstance(span.piece, FramePiece):
                for wanted in self._slices(span.piece, start, stop):
                    raw = self._frames.ready(wanted.unit)
                    if raw is None:
                        return None
                    parts.append(raw[wanted.start : wanted.stop])
            elif isinstance(span.piece, CodedPiece | TranscodedPiece):
                made = self._codestreams.ready(span.piece, self._recipe(span.piece, span.header_at))
                if made is None:
                    return None
                parts.append(made[start:stop])
            else:
                return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def prefetch(self, limit_bytes: int) -> None:
        """Decode the first ``limit_bytes`` of the file into the cache.  May block."""
        for span, start, stop in self._covering(0, limit_bytes):
            if isinstance(span.piece, FramePiece):
                for wanted in self._slices(span.piece, start, stop):
                    self._frames.fetch(wanted.unit)
            elif isinstance(span.piece, CodedPiece | TranscodedPiece):
                self._codestreams.fetch(span.piece, self._recipe(span.piece, span.header_at))

    def info(self) -> dict[str, object]:
        codecs = set()
        stored = float(len(self._header))
        for piece in self._entry.pieces:
            if isinstance(piece, FramePiece):
                segment = segment_of(piece.pack, self._frames.stack(piece.pack, piece.stack), piece.first)
                codecs.add(codec_of(piece.pack, segment).name.lower())
                stored += sum(band.length for band in segment.bands) * piece.count / segment.frames
            elif isinstance(piece, CodedPiece):
                segment = segment_of(piece.pack, self._frames.stack(piece.pack, piece.stack), piece.frame)
                codecs.add(codec_of(piece.pack, segment).name.lower())
                stored += sum(band.length for band in segment.bands) / segment.frames
            elif isinstance(piece, TranscodedPiece):
                codecs.add("transcoded")
                stored += piece.stored
            elif isinstance(piece, StreamPiece):
                codecs.add("chunks")
                stored += self._stored_of(piece)
        return {
            "state": "packed",
            "codec": "+".join(sorted(codecs)) or "header",
            "stored_bytes": round(stored),
            "ratio": round(self.size / max(1.0, stored), 3),
            "sha256": self.sha256.hex(),
            "note": self._entry.note,
        }

    def _stored_of(self, piece: StreamPiece) -> float:
        """Bytes of the chunks under a range, shared out where others use them too."""
        end, stored = piece.offset + piece.length, 0.0
        for chunk in self._source.pack(piece.pack).stream(piece.stream).chunks:
            used = min(end, chunk.offset + chunk.plain) - max(piece.offset, chunk.offset)
            stored += chunk.stored * max(0, used) / chunk.plain
        return stored

    def dicom_value(self, keyword: str) -> str | None:
        first = self._entry.pieces[0] if self._entry.pieces else None
        length = first.length if isinstance(first, HeaderPiece) else _ATTRIBUTE_BYTES
        return keyword_value(self.read(0, length), keyword)

    def close(self) -> None:
        return

    def _covering(self, offset: int, length: int) -> Iterator[tuple[_Span, int, int]]:
        end = min(self.size, offset + length)
        at = max(0, bisect.bisect_right(self._starts, offset) - 1)
        while at < len(self._spans) and self._spans[at].start < end:
            span, stop = self._spans[at], self._starts[at + 1]
            if stop > offset:
                yield span, max(offset, span.start) - span.start, min(end, stop) - span.start
            at += 1

    def _read(self, offset: int, length: int) -> Iterator[bytes]:
        for span, start, stop in self._covering(offset, length):
            piece = span.piece
            if isinstance(piece, HeaderPiece):
                yield self._header[span.header_at + start : span.header_at + stop]
                continue
            self._source.note_used(piece.pack)
            if isinstance(piece, FramePiece):
                for wanted in self._slices(piece, start, stop):
                    yield self._frames.fetch(wanted.unit)[wanted.start : wanted.stop]
            elif isinstance(piece, CodedPiece | TranscodedPiece):
                made = self._codestreams.fetch(piece, self._recipe(piece, span.header_at))
                yield made[start:stop]
            else:
                yield self._source.pack(piece.pack).read_stream(
                    piece.stream, piece.offset + start, stop - start
                )

    def _recipe(self, piece: CodedPiece | TranscodedPiece, at: int) -> bytes:
        return self._header[at : at + piece.recipe]

    def _slices(self, piece: FramePiece, start: int, stop: int) -> Iterator[Slice]:
        frame_bytes = self._frames.stack(piece.pack, piece.stack).layout.frame_bytes
        for index in range(start // frame_bytes, -(-stop // frame_bytes)):
            base = index * frame_bytes
            inside = max(start, base) - base, min(stop, base + frame_bytes) - base
            yield from self._frames.slices(piece.pack, piece.stack, piece.first + index * piece.step, *inside)


def _require_all(source: PackSource, packs: Mapping[ObjectKey, int]) -> None:
    """See that each pack is there; raises as `PackSource.require` does.

    Cold ones are raised last: so all of them are being restored, not the next one when the first is done.
    """
    cold = None
    for pack, index_digest in packs.items():
        try:
            source.require(pack, index_digest)
        except ObjectCold as problem:
            cold = problem
    if cold is not None:
        raise cold


def _piece_bytes(piece: Piece, frames: FrameReader) -> int:
    if isinstance(piece, FramePiece):
        return piece.count * frames.stack(piece.pack, piece.stack).layout.frame_bytes
    return piece.length


def _header_places(entry: InstanceEntry) -> Iterator[int]:
    """Where the header bytes of each piece begin: first come those of the file, then all recipes."""
    header, recipe = 0, entry.header_length
    for piece in entry.pieces:
        if isinstance(piece, CodedPiece | TranscodedPiece):
            yield recipe
            recipe += piece.recipe
        else:
            yield header
            header += piece.length if isinstance(piece, HeaderPiece) else 0


class Reconstructor:
    """Opens instances of an archive for reading.  Thread-safe."""

    def __init__(self, catalog: Catalog, spool: Spool, source: PackSource, cache_bytes: int) -> None:
        self._catalog, self._spool, self._source = catalog, spool, source
        self._frames = FrameReader(source, cache_bytes)
        self._codestreams = CodestreamReader(self._frames, source)
        self._prefetch_bytes = cache_bytes // 8

    def open(self, instance: InstanceId) -> SpooledReader | PackedReader:
        """A reader of one instance.  May block.

        Raises:
            NotFoundError: the archive holds no such instance.
            TierError, FormatError: its header pack cannot be had.
        """
        record = self._catalog.spooled(instance)
        if record is not None:
            try:
                return SpooledReader(self._spool, instance, record.size, record.sha256)
            except NotFoundError:
                # Packed and released between the look into the catalog and the open; or long since, where
                # this process has a list of its own that nobody keeps up to date.
                if self._catalog.spooled(instance) is not None and not self._catalog.is_packed(instance):
                    raise DamagedError(
                        f"spooled instance {instance}", "its bytes are missing from the spool"
                    ) from None
        doubted = False
        while True:
            place = self._catalog.part_of(instance)
            try:
                return self._packed(instance, place)
            except ObjectNotFound:
                # Between the look into the catalog and the open it was packed again, together with others.
                if self._catalog.part_of(instance) == place:
                    raise
            except (FormatError, MismatchError):
                # A copy that was read is bad: there may be another one.
                needed = [place.header_key, *self._catalog.references(place.header_key)]
                if doubted or not self._source.doubt(needed):
                    raise
                doubted = True

    def _packed(self, instance: InstanceId, place: PartRef) -> PackedReader:
        part = self._source.part(place.header_key, place.part_index)
        entry = part.entries[place.row] if place.row < len(part.entries) else None
        row = self._catalog.row(instance)
        # The position alone would fit an instance of another pack, had the two changed places.
        if (
            entry is None
            or (entry.position, entry.size) != (instance.position, row.size)
            or entry.sha256[:8] != row.sha256_start
        ):
            raise DamagedError(
                place.header_key, "lists another instance than the catalog; run `dicomfs recover`"
            )
        self._source.note_used(place.header_key)
        header = self._source.header_bytes(place.header_key, place.part_index, place.row)

        def elsewhere() -> PackedReader | None:
            now = self._catalog.part_of(instance)
            return None if now == place else self._packed(instance, now)

        return PackedReader(part, place.row, header, self._frames, self._source, self._codestreams, elsewhere)

    def close(self) -> None:
        """Decode nothing more that nobody waits for."""
        self._frames.close()

    def prefetch(self, instance: InstanceId) -> None:
        """Decode an instance into the cache, within bounds.  May block; raises as reading would."""
        reader = self.open(instance)
        try:
            if isinstance(reader, PackedReader):
                reader.prefetch(self._prefetch_bytes)
        finally:
            reader.close()


def file_sha256(reader: InstanceReader) -> bytes:
    """SHA-256 of all bytes a reader gives, read in steps; raises as reading does."""
    digest = hashlib.sha256()
    for offset in range(0, reader.size, _STEP_BYTES):
        digest.update(reader.read(offset, _STEP_BYTES))
    return digest.digest()


def check_whole(reader: InstanceReader, what: str) -> None:
    """Read a whole file and compare it with its recorded digest.

    Raises:
        MismatchError: the bytes are others.
    """
    if file_sha256(reader) != reader.sha256:
        raise MismatchError(what)
