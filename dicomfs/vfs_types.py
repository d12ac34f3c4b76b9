"""The tree's values, and what it asks of the archive beneath it.

Owns the shapes only: no behaviour, no FUSE types.  The protocols are what ``dicomfs.index`` and
``dicomfs.reconstruct`` provide; tests provide them in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from dicomfs.model import InstanceId, InstanceRow, Level, PatientNode, SeriesNode, StudyNode


class Attributes(NamedTuple):
    """What ``stat`` shows of an inode, short of owner and permissions."""

    inode: int
    is_folder: bool
    size: int
    """Bytes of a file, 0 for a folder."""
    mtime_ns: int
    """Nanoseconds since 1970: of the accepted file, or of the last commit that changed the folder."""
    is_volatile: bool = False
    """True where the content changes without a commit: nothing of it may be cached."""


class Entry(NamedTuple):
    """A name in a folder."""

    name: bytes
    attributes: Attributes


class Listing(NamedTuple):
    """A folder at one moment: its entries in order, and the change number they were read at."""

    change: int
    entries: Sequence[Entry]


class FileReader(Protocol):
    """An open file.  Any thread may call it, several at once."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of a range, short only at the end of the file; may block."""

    def read_ready(self, offset: int, length: int) -> bytes | None:
        """The same without blocking, or None."""

    def close(self) -> None:
        """Release what the reader holds."""


class InstanceReader(FileReader, Protocol):
    """An open instance, with what is known about how it is stored."""

    def info(self) -> Mapping[str, object]:
        """How the instance is stored; may block."""

    def dicom_value(self, keyword: str) -> str | None:
        """Value of a top-level DICOM attribute as text; may block."""


class InstanceSource(Protocol):
    """Opens instances (dicomfs.reconstruct.Reconstructor)."""

    def open(self, instance: InstanceId, /) -> InstanceReader:
        """A reader; may block.  Raises NotFoundError."""

    def prefetch(self, instance: InstanceId, /) -> None:
        """Fill the decoded cache with the instance's frames; may block."""


class ResidencyControl(Protocol):
    """Where instances are, and having them brought or kept near (dicomfs.residency.Residency)."""

    def of(self, instance: InstanceId, /) -> Mapping[str, str]:
        """Facts by name: ``tier``, ``residency``, ``pin``; may block."""

    def set_pin(self, instance: InstanceId, /, *, pinned: bool) -> None:
        """Keep the series of an instance on the local tier, or end that; may block."""

    def warm(self, instance: InstanceId, /) -> None:
        """Have an instance brought to the local tier; may block, but does not wait for it."""


class TreeCatalog(Protocol):
    """The point reads and scans of the catalog that the tree is made of (dicomfs.index.Catalog)."""

    def patients(self) -> list[PatientNode]: ...
    def studies(self, patient: int, /) -> list[StudyNode]: ...
    def series_of(self, study: int, /) -> list[SeriesNode]: ...
    def study(self, number: int, /) -> StudyNode: ...
    def series(self, number: int, /) -> SeriesNode: ...
    def child(self, level: Level, parent: int, folder: str, /) -> int | None: ...
    def changed_ns(self, level: int, number: int, /) -> int: ...
    def rows(self, series: int, /) -> Sequence[InstanceRow]: ...
    def row(self, instance: InstanceId, /) -> InstanceRow: ...
    def row_named(self, series: int, name: str, version: int = 0, /) -> InstanceRow | None: ...
    def parts(self, series: int, /) -> Sequence[object]: ...
    def spooled_series(self) -> list[int]: ...
    def versioned_series(self) -> list[int]: ...
    def last_change(self) -> int: ...
