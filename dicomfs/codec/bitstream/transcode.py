"""JPEG baseline, extended and progressive of 8 bits as JPEG XL, which gives the same JPEG back.

ISO/IEC 18181-2, JPEG bitstream reconstruction data: coefficients are coded better, the rest is kept.  The
result holds all of the codestream's segments, comments among them, so it is identity class.

Recipe: flag 0, one part: the bytes behind the end of the image.
"""

from __future__ import annotations

from dicomfs.codec.bitstream.base import put_parts, take_parts
from dicomfs.codec.bitstream.markers import parse
from dicomfs.codec.jxl import bare_codestream, frame_size
from dicomfs.errors import CodecError

try:
    import imagecodecs
except ImportError as _error:  # pragma: no cover - depends on the machine
    _MISSING = str(_error)
else:
    _MISSING = "" if imagecodecs.JPEGXL.available else "imagecodecs was built without libjxl"

_NAME = "jpeg transcoding"
_EOI = b"\xff\xd9"
_FRAMES = frozenset({0xFFC0, 0xFFC1, 0xFFC2})
_MAX_PIXELS = 1 << 26
_MAX_TAIL = 1 << 16
_PIXELS_A_BYTE = 512
"""A block of 64 pixels takes at least a bit."""


def may_transcode(data: bytes) -> bool:
    """Whether the codestream is of a sort that can be transcoded; trying is what decides."""
    try:
        found = parse(data, scans=64)
    except CodecError:
        return False
    frame = found.frame
    return (
        frame.marker in _FRAMES
        and frame.precision == 8
        and len(frame.components) in (1, 3)
        and frame.rows * frame.columns <= min(_MAX_PIXELS, _PIXELS_A_BYTE * len(data))
    )


def transcode(data: bytes) -> tuple[bytes, bytes]:
    """What to store of a codestream, and the recipe; checked by `restore`.

    Raises:
        CodecError: it cannot be transcoded, or does not come back.
    """
    if _MISSING:
        raise CodecError(_NAME, _MISSING)
    end = data.rfind(_EOI) + len(_EOI)
    if not may_transcode(data) or len(data) - end > _MAX_TAIL:
        raise CodecError(_NAME, "of another sort")
    try:
        stored = bytes(imagecodecs.jpegxl_encode_jpeg(data[:end], numthreads=1))
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise CodecError(_NAME, str(error)) from error
    recipe = put_parts(0, [data[end:]])
    if restore(stored, recipe, len(data)) != data:
        raise CodecError(_NAME, "does not come back")
    return stored, recipe


def restore(stored: bytes, recipe: bytes, length: int) -> bytes:
    """The codestream of ``length`` bytes.

    Raises:
        CodecError: ``stored`` or the recipe is damaged.
    """
    if _MISSING:
        raise CodecError(_NAME, _MISSING)
    flags, parts = take_parts(_NAME, recipe, 1)
    if flags or len(parts) != 1:
        raise CodecError(_NAME, "the recipe is damaged")
    # The decoder allocates what the header says.
    rows, columns = frame_size(bare_codestream(stored))
    if rows * columns > min(_MAX_PIXELS, _PIXELS_A_BYTE * length):
        raise CodecError(_NAME, "an image larger than its codestream can hold")
    try:
        return bytes(imagecodecs.jpegxl_decode_jpeg(stored, numthreads=1)) + parts[0]
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise CodecError(_NAME, str(error)) from error
