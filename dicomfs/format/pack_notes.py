"""What a pack of frames says of its own making, and which packs it stands for: values and their stored form.

None of it is needed to decode a frame.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dicomfs.errors import FormatError
from dicomfs.format.digest import DIGEST_BYTES
from dicomfs.format.keys import pack_key, parse_pack_key
from dicomfs.format.version import MAX_LENGTH, MAX_STACKS, MAX_STANDS_FOR
from dicomfs.model import ObjectKey, PackKind

PROFILES = ("", "fast", "dense", "archive")
"""Name of a profile by its stored number; 0 where none was noted."""

_Bytes = Annotated[int, msgspec.Meta(ge=0, le=MAX_LENGTH)]
_Codec = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_Small = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
_SHA256_BYTES = 32


class Decision(msgspec.Struct, frozen=True, array_like=True):
    """Why the frames of a stack are coded as they are: what the trial on a sample of them found."""

    order: _Small
    """0: as the files are named; 1: along the slices."""
    candidates: Annotated[tuple[tuple[_Codec, _Small, _Bytes, _Bytes], ...], msgspec.Meta(max_length=64)]
    """Codec id, its level, raw and coded bytes of the sample; the chosen one is that of the segments."""
    references: Annotated[tuple[_Codec, ...], msgspec.Meta(max_length=16)] = ()
    """Distances back to the frames that predict, of a codec that has such."""
    other_order: _Bytes = 0
    """What the best candidate made of the order that was not taken; 0 where only one made sense."""


class StoodFor(msgspec.Struct, frozen=True, array_like=True):
    """A pack in whose place this one is read."""

    kind: Annotated[int, msgspec.Meta(ge=1, le=3)]
    digest: Annotated[bytes, msgspec.Meta(min_length=_SHA256_BYTES, max_length=_SHA256_BYTES)]
    index_digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]

    @classmethod
    def of(cls, key: ObjectKey, index_digest: int) -> StoodFor:
        """The record of a pack and of the digest of its plain index."""
        kind, digest = parse_pack_key(key)
        return cls(kind, digest, index_digest.to_bytes(DIGEST_BYTES, "little"))

    @property
    def key(self) -> ObjectKey:
        """Name of the pack."""
        return pack_key(PackKind(self.kind), self.digest.hex())


class Packing(msgspec.Struct, frozen=True, array_like=True):
    """What the writer of a pack noted."""

    profile: Annotated[int, msgspec.Meta(ge=0, le=0xFF)] = 0
    decisions: Annotated[tuple[Decision | None, ...], msgspec.Meta(max_length=MAX_STACKS)] = ()
    """One for each stack, or none at all."""
    stands_for: Annotated[tuple[StoodFor, ...], msgspec.Meta(max_length=MAX_STANDS_FOR)] = ()
    """From the oldest to the newest."""

    @property
    def profile_name(self) -> str:
        """The profile, or an empty string where it is not known."""
        return PROFILES[self.profile] if self.profile < len(PROFILES) else ""


class StandsFor(msgspec.Struct, frozen=True, array_like=True):
    """Payload of a STANDS_FOR section: the same as in the index, for when that is lost."""

    packs: Annotated[tuple[StoodFor, ...], msgspec.Meta(max_length=MAX_STANDS_FOR)]


def profile_number(name: str) -> int:
    """The stored number of a profile; FormatError for a name that has none."""
    if name not in PROFILES:
        raise FormatError("pack being written", f"no number for profile {name}")
    return PROFILES.index(name)
