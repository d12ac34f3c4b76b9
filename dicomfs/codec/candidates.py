"""What can be tried on a stack, and what reading it costs: the facts that a trial weighs.

Owns the profiles' settings, the nominal reading speeds and the rule that turns bytes and speed into a price.
Encodes nothing.

The rule: price = bytes x (1 + margin) ** halvings, where halvings says how often the codec's reading speed
goes into that of plain bytes by halving.  So a codec that reads slower has to be smaller by the margin for
every halving.  Speeds are constants: a choice must not depend on how busy a machine is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dicomfs.codec.base import EFFORT_ARCHIVE, EFFORT_DENSE, EFFORT_FAST, CodecId, Profile, Settings
from dicomfs.model import PixelLayout

ARCHIVE_LEVEL = 1
STILL = (CodecId.JPEGLS, CodecId.JPEGXL)
"""Codecs of single images: no other may be chosen where one of these is smaller."""
OWN = (CodecId.FAST, CodecId.DENSE)
VIDEO = (CodecId.FFV1, CodecId.HEVC)

_EFFORT = {Profile.FAST: EFFORT_FAST, Profile.DENSE: EFFORT_DENSE, Profile.ARCHIVE: EFFORT_ARCHIVE}
_MARGIN = {Profile.FAST: 0.035, Profile.DENSE: 0.001, Profile.ARCHIVE: 0.001}
_READING_MBS = {
    CodecId.RAW: 2000,
    CodecId.ZSTD: 600,
    CodecId.FAST: 200,
    CodecId.JPEGLS: 85,
    CodecId.FFV1: 30,
    CodecId.JPEGXL: 20,
    CodecId.HEVC: 20,
    CodecId.DENSE: 13,
}
_ARCHIVE_MBS = 3
"""Raw bytes decoded by one processor in a second, in MB; orders of magnitude matter."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A codec and how it would be used."""

    codec: CodecId
    settings: Settings

    @property
    def halvings(self) -> float:
        """How often the speed of plain bytes is halved."""
        speed = _READING_MBS[self.codec]
        if self.codec is CodecId.DENSE and self.settings.level == ARCHIVE_LEVEL:
            speed = _ARCHIVE_MBS
        return math.log2(_READING_MBS[CodecId.RAW] / speed)

    def price(self, stored: float, profile: Profile) -> float:
        """What ``stored`` bytes are worth when read at this codec's speed."""
        return stored * float((1 + _MARGIN[profile]) ** self.halvings)


def candidates(layout: PixelLayout, profile: Profile, *, single: bool) -> tuple[Candidate, ...]:
    """Return what is worth trying, raw first; ``single`` says that the stack's frames have no neighbours.

    In the fast profile nothing that decodes as slowly as the dense codec is tried but JPEG XL and video,
    which on some kinds of images have no rival.
    """
    plain = Settings(_EFFORT[profile])
    ids = [CodecId.RAW, CodecId.ZSTD]
    ids.append(CodecId.FAST)
    if layout.bits_allocated in (8, 16):
        ids += STILL if single else (*STILL, *VIDEO)
    found = [Candidate(codec, _settings(codec, plain)) for codec in ids]
    if profile is not Profile.FAST:
        found.append(Candidate(CodecId.DENSE, plain))
    if profile is Profile.ARCHIVE:
        found.append(Candidate(CodecId.DENSE, Settings(plain.effort, ARCHIVE_LEVEL)))
    return tuple(found)


def _settings(codec: CodecId, plain: Settings) -> Settings:
    """Who wants it denser than the fast codec in a hurry gets the dense one, which codes no slower."""
    return Settings(EFFORT_FAST) if codec is CodecId.FAST else plain


def reference_sets(period: int) -> tuple[tuple[int, ...], ...]:
    """Return sets of reference distances worth a look, the usual one first.

    ``period`` is the number of frames after which positions repeat (0: they do not): the frame a period ago
    shows the same place at another time.
    """
    usual = ((1, 2), (1, 2, 3))
    if period < 2:
        return usual
    timely = ((period, 1), (period, 2 * period, 1))
    return (*usual, *(one for one in timely if max(one) <= 0xFFFF and len(set(one)) == len(one)))
