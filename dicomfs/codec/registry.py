"""The codecs of this version, by id, and why one cannot be used.  Owns no codec."""

from __future__ import annotations

from dicomfs.codec.base import FROM_DISK, CodecId, FrameCodec
from dicomfs.codec.jpegls import JpegLs
from dicomfs.codec.jxl import JpegXl
from dicomfs.codec.video import Ffv1, Hevc
from dicomfs.codec.zstd import Zstd
from dicomfs.errors import CodecError, CodecUnavailable

_CODECS: dict[CodecId, FrameCodec] = {
    CodecId.ZSTD: Zstd(),
    CodecId.JPEGLS: JpegLs(),
    CodecId.JPEGXL: JpegXl(),
    CodecId.FFV1: Ffv1(),
    CodecId.HEVC: Hevc(),
}


def codec(wanted: CodecId) -> FrameCodec:
    """Return the codec; raises `CodecUnavailable` with the reason when its library is missing.

    `CodecId.RAW` has none: raw bytes are handled where they are stored (``segment``).
    """
    found = _CODECS.get(wanted)
    if found is None:
        raise CodecUnavailable(wanted.name.lower(), "no such frame codec in this version")
    reason = found.unavailable()
    if reason:
        raise CodecUnavailable(found.name, reason)
    return found


def from_disk(number: int) -> CodecId:
    """Return the codec that a stored id names; raises `CodecError` for one unknown here."""
    found = FROM_DISK.get(number)
    if found is None:
        raise CodecError(f"number {number}", "unknown to this version")
    return found


def reasons() -> dict[CodecId, str]:
    """Return why each codec is unavailable; an empty string for those that work."""
    return {wanted: found.unavailable() for wanted, found in _CODECS.items()}
