"""Every error dicomfs raises, in one tree.

    DicomfsError
    ├── UsageError              the request makes no sense here (wrong folder, wrong option)
    │   └── ConfigError         a setting is wrong: file, key, problem
    ├── NotFoundError           no such patient, study, series, instance, path or object in the archive
    ├── NotTakenError           a source file was not accepted: path, reason, what to do
    ├── FormatError             stored bytes do not follow docs/format.md
    │   ├── UnsupportedVersion  written by a newer major version
    │   ├── UnsupportedFeature  needs features this version does not know
    │   └── DamagedError        bad magic, bad digest, truncated, impossible length
    ├── MismatchError           reconstructed bytes differ from the recorded digest: never served
    ├── CodecError              a codec cannot encode or decode this
    │   └── CodecUnavailable    the codec's library is missing: reason
    ├── TierError               a tier failed: tier, key
    │   ├── ObjectNotFound      the tier holds no such object
    │   ├── ObjectExists        put if absent found other bytes under that name
    │   ├── ObjectDamaged       stored bytes are not those that were put: never served
    │   ├── KeyMissing          no key at hand opens what is stored
    │   │   └── KeyDestroyed    its key was removed on purpose
    │   ├── ObjectCold          the object must be restored from a cold storage class first
    │   ├── TierFull            no space, no inodes or quota reached
    │   └── TransientTierError  a retry makes sense
    ├── MountError              mounting or unmounting failed: mount point, problem
    │   └── MountBusy           a program still uses the mount
    └── CatalogError            the index failed
        ├── CatalogFull         the map or the disk is full
        ├── CatalogBusy         locked by another process for too long
        └── CatalogOutdated     written by another schema version, or missing: run `recover`

Arguments are facts, the sentence is made here.  No error carries patient attributes.  ``errno`` values
are assigned in the FUSE adapter only, exit codes in ``cli`` only.
"""

from __future__ import annotations


class DicomfsError(Exception):
    """Base of all errors raised on purpose; its text is meant for the administrator."""


class UsageError(DicomfsError):
    """The request makes no sense here."""


class ConfigError(UsageError):
    """A setting is wrong."""

    def __init__(self, file: str, key: str, problem: str) -> None:
        self.file, self.key, self.problem = file, key, problem
        super().__init__(f"{file}: {key}: {problem}")


class NotFoundError(DicomfsError):
    """The archive holds nothing under that name."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"no such {kind}: {name}")


class NotTakenError(DicomfsError):
    """A source file was not accepted; it stays where it is."""

    def __init__(self, path: str, reason: str, advice: str = "") -> None:
        self.path, self.reason, self.advice = path, reason, advice
        super().__init__(f"{path}: {reason}" + (f"; {advice}" if advice else ""))


class FormatError(DicomfsError):
    """Stored bytes do not follow the format."""

    def __init__(self, artefact: str, problem: str, offset: int | None = None) -> None:
        self.artefact, self.problem, self.offset = artefact, problem, offset
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{artefact}{where}: {problem}")


class UnsupportedVersion(FormatError):
    """Written by a newer major version of dicomfs."""

    def __init__(self, artefact: str, found: int, accepted: int) -> None:
        self.found, self.accepted = found, accepted
        super().__init__(artefact, f"format version {found} is newer than {accepted}; upgrade dicomfs")


class UnsupportedFeature(FormatError):
    """Needs features that this version does not know."""

    def __init__(self, artefact: str, names: list[str]) -> None:
        self.names = names
        super().__init__(artefact, f"needs features unknown here: {', '.join(names)}; upgrade dicomfs")


class DamagedError(FormatError):
    """Bad magic, bad digest, truncated, or an impossible length."""


class MismatchError(DicomfsError):
    """Reconstructed bytes differ from the recorded digest; they are never served."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what}: reconstructed bytes do not match the recorded digest")


class CodecError(DicomfsError):
    """A codec cannot encode or decode this."""

    def __init__(self, codec: str, problem: str) -> None:
        self.codec, self.problem = codec, problem
        super().__init__(f"codec {codec}: {problem}")


class CodecUnavailable(CodecError):
    """The codec's library is missing on this machine."""


class TierError(DicomfsError):
    """A tier failed."""

    def __init__(self, tier: str, key: str, problem: str) -> None:
        self.tier, self.key, self.problem = tier, key, problem
        super().__init__(f"tier {tier}: {key or 'tier'}: {problem}")


class ObjectNotFound(TierError):
    """The tier holds no such object."""

    def __init__(self, tier: str, key: str) -> None:
        super().__init__(tier, key, "no such object")


class ObjectExists(TierError):
    """Put if absent found other bytes under that name."""

    def __init__(self, tier: str, key: str, problem: str = "another object has this name") -> None:
        super().__init__(tier, key, problem)


class ObjectDamaged(TierError):
    """Stored bytes are not those that were put: damaged, cut short, exchanged or forged; never served."""


class KeyMissing(TierError):
    """No key at hand opens what is stored; the text names the one that would."""


class KeyDestroyed(KeyMissing):
    """The key was removed on purpose; nothing opens what is stored any more."""

    def __init__(self, tier: str, key: str, keyring: int, index: int) -> None:
        self.keyring, self.index = keyring, index
        super().__init__(tier, key, f"key {index} of keyring {keyring:016x} was destroyed")


class ObjectCold(TierError):
    """The object is in a cold storage class: it is there, and can't be read before it is restored."""

    def __init__(self, tier: str, key: str, *, restoring: bool) -> None:
        self.restoring = restoring
        state = "a restore is under way, try later" if restoring else "restore it first (`dicomfs tier warm`)"
        super().__init__(tier, key, f"in a cold storage class; {state}")


class TierFull(TierError):
    """No space, no inodes or quota reached."""


class TransientTierError(TierError):
    """A retry makes sense; the only class that the retry wrapper catches."""


class MountError(DicomfsError):
    """Mounting or unmounting failed."""

    def __init__(self, mountpoint: str, problem: str) -> None:
        self.mountpoint, self.problem = mountpoint, problem
        super().__init__(f"{mountpoint}: {problem}")


class MountBusy(MountError):
    """A program still uses the mount."""


class CatalogError(DicomfsError):
    """The index failed."""


class CatalogFull(CatalogError):
    """The index's map or the disk under it is full."""


class CatalogBusy(CatalogError):
    """Another process holds the index for too long."""


class CatalogOutdated(CatalogError):
    """The index is missing or was written by another schema version."""
