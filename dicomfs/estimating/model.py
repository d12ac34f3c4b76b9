"""What is known of files before they are packed, and what is said of them: plain values."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dicomfs.dicom.attributes import Attributes
from dicomfs.errors import NotTakenError
from dicomfs.format.header import SeriesPart

_DEVIATIONS = 2
_WITHIN_SERIES = 0.01
"""By how much a series that was measured may be off, since some of its segments stand for all."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """An instance among the sources."""

    path: Path
    size: int
    mtime_ns: int
    uid: str
    number: int | None
    """Instance Number."""
    pixel_bytes: int = 0
    """From where the pixel value begins; 0 where there is none."""


@dataclass(slots=True)
class FoundSeries:
    """Instances of one series in one transfer syntax."""

    described: Attributes
    """Of the instance that was found first."""
    syntax: str
    """Transfer Syntax UID."""
    files: list[FoundFile] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)

    @property
    def pixel_size(self) -> int:
        """Bytes of the pixel values."""
        return sum(file.pixel_bytes for file in self.files)

    @property
    def group(self) -> tuple[str, str]:
        """Modality and transfer syntax: what results are given by."""
        return self.described.modality or "none", self.syntax

    def in_name_order(self) -> list[FoundFile]:
        """The files as an archive would name them."""
        return sorted(self.files, key=lambda file: (file.number is None, file.number or 0, str(file.path)))


@dataclass(slots=True)
class Survey:
    """What lies below the sources."""

    series: list[FoundSeries] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    """All regular files that are there."""
    looked_files: int = 0
    looked_bytes: int = 0
    """Those that were opened: fewer where there are too many."""
    repeated_files: int = 0
    repeated_bytes: int = 0
    """Same bytes as another file: an archive keeps them once."""
    not_taken: Counter[str] = field(default_factory=Counter)
    """Why a file would not be taken -> how many."""
    unreadable: list[NotTakenError] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """Bytes there are for each that was looked at."""
        return self.bytes / self.looked_bytes if self.looked_bytes else 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What packing would make of one series; ``part`` and ``headers`` are not in a pack yet."""

    pixel_bytes: float
    """In packs of frames."""
    stream_bytes: float
    """In opaque packs."""
    part: SeriesPart
    headers: list[bytes]
    """Tables and header bytes, of some rows where there are many."""
    more_header_bytes: float
    """What the others would add to a header pack."""
    cpu_s: float
    """Processor time of packing."""
    sampled_bytes: int
    """Bytes that were coded to find out."""
    codecs: tuple[str, ...] = ()


@dataclass(slots=True)
class GroupEstimate:
    """What is expected of the files of one modality and transfer syntax."""

    modality: str
    syntax: str
    series: int = 0
    instances: int = 0
    raw_bytes: int = 0
    pixel_bytes: int = 0
    stream_bytes: int = 0
    header_bytes: int = 0
    cpu_s: float = 0.0
    sampled_bytes: int = 0
    sampled_series: int = 0
    codecs: Counter[str] = field(default_factory=Counter)
    deviation: float = 0.0
    """Standard deviation of ``stored_bytes``, from how much measured series differ from each other."""

    @property
    def stored_bytes(self) -> int:
        """What the archive would take."""
        return self.pixel_bytes + self.stream_bytes + self.header_bytes


@dataclass(slots=True)
class Estimate:
    """The whole answer."""

    profile: str
    groups: list[GroupEstimate]
    survey: Survey
    workers: int
    """Processors that packing would use."""
    stopped: bool = False

    @property
    def raw_bytes(self) -> int:
        """Bytes of the instances, each once."""
        return sum(group.raw_bytes for group in self.groups)

    @property
    def stored_bytes(self) -> int:
        """What the archive would take."""
        return sum(group.stored_bytes for group in self.groups)

    @property
    def range_bytes(self) -> tuple[int, int]:
        """Between what the archive would take in nineteen of twenty cases."""
        deviation = math.sqrt(sum(group.deviation**2 for group in self.groups))
        margin = _DEVIATIONS * deviation + _WITHIN_SERIES * self.stored_bytes
        return round(max(0.0, self.stored_bytes - margin)), round(self.stored_bytes + margin)

    @property
    def seconds(self) -> float:
        """How long packing would take on this machine with all its processors."""
        return sum(group.cpu_s for group in self.groups) / self.workers
