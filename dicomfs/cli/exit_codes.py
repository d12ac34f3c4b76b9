"""What the exit status of ``dicomfs`` means; scripts rely on it (docs/operations.md, "Exit codes")."""

from __future__ import annotations

import enum

from dicomfs.errors import (
    CatalogBusy,
    CatalogError,
    CodecError,
    DicomfsError,
    FormatError,
    KeyDestroyed,
    KeyMissing,
    MismatchError,
    MountBusy,
    MountError,
    NotFoundError,
    NotTakenError,
    ObjectCold,
    ObjectDamaged,
    TierError,
    TransientTierError,
    UnsupportedFeature,
    UnsupportedVersion,
    UsageError,
)


class ExitCode(enum.IntEnum):
    """Every exit status there is."""

    DONE = 0
    """All that was asked is done."""
    PART_FAILED = 1
    """Damage was found, or part of the work failed; the output says which part."""
    USAGE = 2
    """The command line or a setting is wrong; nothing was done."""
    NOT_FOUND = 3
    """The archive holds nothing under that name."""
    BUSY = 4
    """Another process holds what is needed, or it is being restored; the same command may succeed later."""
    STORAGE = 5
    """A tier, the index, the disk or the mount failed."""
    TOO_NEW = 6
    """The archive was written by a newer version; nothing was changed."""
    INTERNAL = 70
    """A defect in dicomfs; please report it."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C or SIGTERM; what was reported done is done, the same command goes on from there."""
    PIPE_CLOSED = 141
    """The reader of the output went away."""


_CODES: tuple[tuple[type[DicomfsError], ExitCode], ...] = (
    (UnsupportedVersion, ExitCode.TOO_NEW),
    (UnsupportedFeature, ExitCode.TOO_NEW),
    (CatalogBusy, ExitCode.BUSY),
    (MountBusy, ExitCode.BUSY),
    (TransientTierError, ExitCode.BUSY),
    (ObjectCold, ExitCode.BUSY),
    (UsageError, ExitCode.USAGE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (NotTakenError, ExitCode.PART_FAILED),
    (FormatError, ExitCode.PART_FAILED),
    (MismatchError, ExitCode.PART_FAILED),
    (CodecError, ExitCode.PART_FAILED),
    (ObjectDamaged, ExitCode.PART_FAILED),
    (KeyDestroyed, ExitCode.PART_FAILED),
    (KeyMissing, ExitCode.USAGE),
    (TierError, ExitCode.STORAGE),
    (CatalogError, ExitCode.STORAGE),
    (MountError, ExitCode.STORAGE),
)
"""The first class that fits decides, so the special ones come first."""


def exit_code(error: DicomfsError) -> ExitCode:
    """Return the exit status for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.PART_FAILED)
