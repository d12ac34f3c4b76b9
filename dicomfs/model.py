"""The nouns of dicomfs: frozen values without behaviour beyond arithmetic on themselves.

Standard library only.  The words are those of docs/glossary.md and of the DICOM Standard.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

ObjectKey = NewType("ObjectKey", str)
"""Name of an object on a tier: ``<prefix>/<2 hex>/<64 hex>`` or ``journal/<16 hex>``."""

SERIES_BITS = 37
POSITION_BITS = 23


@dataclass(frozen=True, slots=True, order=True)
class InstanceId:
    """Names the *bytes* of one accepted file for ever: never reused, never rebound."""

    series: int
    """Archive-wide series number, below 2**37."""
    position: int
    """Order of acceptance within the series, below 2**23."""


class Level(enum.IntEnum):
    """Level of a folder in the tree."""

    PATIENT = 1
    STUDY = 2
    SERIES = 3


INSTANCE_LEVEL = 4
"""Stands beside `Level` where a file is meant and no folder."""


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What a hold is about: a patient, a study, a series, or one instance."""

    level: int
    """A `Level`, or INSTANCE_LEVEL."""
    number: int
    """Of the folder; of its series for an instance."""
    position: int = 0
    """Of an instance; else 0."""


@dataclass(frozen=True, slots=True)
class PatientNode:
    """A patient as stored: (issuer, id, name); never merged automatically."""

    number: int
    issuer: str
    patient_id: str
    name: str
    folder: str
    """Folder name in the tree, fixed when the node was made."""


@dataclass(frozen=True, slots=True)
class StudyNode:
    """A study of one patient."""

    number: int
    patient: int
    uid: str
    date: str
    """Study Date as DICOM DA (YYYYMMDD) or empty."""
    description: str
    folder: str


@dataclass(frozen=True, slots=True)
class SeriesNode:
    """A series of one study."""

    number: int
    study: int
    uid: str
    modality: str
    series_number: str
    description: str
    folder: str


class ConflictClass(enum.IntEnum):
    """How two files with one SOP Instance UID differ (docs/architecture.md, conflicts)."""

    NONE = 0
    TRUNCATED = 1
    ENCODING = 2
    ATTRIBUTES = 3
    PIXELS = 4


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """How one frame of a native pixel value lies in memory; all that a codec needs to know.

    Of colour by plane (Planar Configuration 1) each plane is a frame of one sample.  The hints
    (``bits_stored``, ``high_bit``, ``signed``) come from metadata and may be wrong: nothing may fail when
    they are.
    """

    rows: int
    columns: int
    samples: int
    """Samples per pixel, interleaved."""
    bits_allocated: int
    """8, 16, 32 or 64."""
    bits_stored: int
    high_bit: int
    signed: bool
    big_endian: bool = False
    is_float: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.columns * self.samples * (self.bits_allocated // 8)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.rows * self.row_bytes


class PackKind(enum.IntEnum):
    """What a pack holds (docs/format.md)."""

    PIXEL = 1
    """Segments of frames, pixel class: no identity."""
    BURNED = 2
    """Segments of frames of kinds that burn names in: identity class."""
    OPAQUE = 3
    """Chunks of byte streams: identity class."""
    HEADER = 4
    """Instance tables and header blocks: identity class."""
    TEXT = 5
    """Bytes that header blocks have in common: identity class."""

    @property
    def prefix(self) -> str:
        """First component of the object keys of this kind."""
        return self.name.lower()

    @property
    def identity_class(self) -> bool:
        """Whether objects of this kind may carry patient identity."""
        return self is not PackKind.PIXEL


def is_header_pack(key: ObjectKey) -> bool:
    """Whether an object is a header pack, by its name."""
    return key.startswith(PackKind.HEADER.prefix + "/")


def is_text_pack(key: ObjectKey) -> bool:
    """Whether an object is a text pack, by its name."""
    return key.startswith(PackKind.TEXT.prefix + "/")


READ_FIRST_KINDS = frozenset({PackKind.HEADER, PackKind.TEXT})
"""Small packs that are read before anything else of a series: they stay near."""


def is_read_first(key: ObjectKey) -> bool:
    """Whether an object is a header pack or the text of some, by its name."""
    return any(key.startswith(f"{kind.prefix}/") for kind in READ_FIRST_KINDS)


FRAME_KINDS = frozenset({PackKind.PIXEL, PackKind.BURNED})
"""Packs of frames: what has a profile."""
STREAM_KINDS = frozenset({PackKind.OPAQUE, PackKind.TEXT})
"""Packs of byte streams."""


def holds_frames(key: ObjectKey) -> bool:
    """Whether an object is a pack of frames, by its name."""
    return any(key.startswith(f"{kind.prefix}/") for kind in FRAME_KINDS)


@dataclass(frozen=True, slots=True)
class HeaderPiece:
    """The next ``length`` bytes of the instance's header bytes."""

    length: int


@dataclass(frozen=True, slots=True)
class FramePiece:
    """``count`` whole frames of a stack: first, first + step, ..."""

    pack: ObjectKey
    stack: int
    first: int
    count: int
    step: int


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """``length`` bytes of an opaque stream of a pack, from ``offset``."""

    pack: ObjectKey
    stream: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class CodedPiece:
    """A codestream of ``length`` bytes that is written anew from one frame of a stack and a recipe."""

    pack: ObjectKey
    stack: int
    frame: int
    method: int
    recipe: int
    """Bytes of the recipe; recipes follow the header pieces in the instance's header bytes."""
    length: int
    digest: int
    """XXH3-64 of the codestream."""


@dataclass(frozen=True, slots=True)
class TranscodedPiece:
    """A codestream of ``length`` bytes made from ``stored`` bytes of an opaque stream and a recipe."""

    pack: ObjectKey
    stream: int
    offset: int
    stored: int
    method: int
    recipe: int
    length: int
    digest: int
    """XXH3-64 of the codestream."""


Piece = HeaderPiece | FramePiece | StreamPiece | CodedPiece | TranscodedPiece
"""A file is the concatenation of its pieces, in order."""


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """What the catalog knows of an instance without touching a pack: enough for ``ls -l`` and lookups."""

    id: InstanceId
    name: str
    """File name in its series folder (or the name of its group under ``versions/``)."""
    sop_instance_uid: str
    size: int
    mtime_ns: int
    sha256_start: bytes
    """First 8 bytes of the file's SHA-256."""
    version: int
    """0 = shown under ``patients/``; n = shown as ``versions/.../<name>/<n>.dcm``."""
    conflict: ConflictClass
    spooled: bool
    """True while the raw bytes lie in the spool (not packed yet)."""
