"""The codecs of this version, by id, and why one cannot be used.  Owns no codec."""

from __future__ import annotations

from dicomfs.codec.base import CodecId, FrameCodec
from dicomfs.codec.jpegls import JpegLs
from dicomfs.codec.jxl import JpegXl
from dicomfs.codec.own import Dense, Fast
from dicomfs.codec.raw import Raw
from dicomfs.codec.video import Ffv1, Hevc
from dicomfs.codec.zstd import Zstd
from dicomfs.errors import CodecUnavailable

_CODECS: dict[CodecId, FrameCodec] = {
    CodecId.RAW: Raw(),
    CodecId.ZSTD: Zstd(),
    CodecId.JPEGLS: JpegLs(),
    CodecId.JPEGXL: JpegXl(),
    CodecId.FFV1: Ffv1(),
    CodecId.HEVC: Hevc(),
    CodecId.FAST: Fast(),
    CodecId.DENSE: Dense(),
}


def codec(wanted: CodecId) -> FrameCodec:
    """Return the codec; raises `CodecUnavailable` with the reason when its library is missing."""
    found = _CODECS[wanted]
    reason = found.unavailable()
    if reason:
        raise CodecUnavailable(found.name, reason)
    return found


def reasons() -> dict[CodecId, str]:
    """Return why each codec is unavailable; an empty string for those that work."""
    return {wanted: found.unavailable() for wanted, found in _CODECS.items()}
