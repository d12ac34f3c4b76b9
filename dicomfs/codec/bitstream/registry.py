"""Codestreams read and written by method, with the item headers of a frame that lies in several fragments.

Owns the check that a reading gives the same bytes back, and the bounds on what is read.

Recipe of a piece: the number of item headers inside, for each the bytes of the codestream before it since the
last one (LEB128 both) and its 8 bytes, then the recipe of the method.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicomfs.codec.base import put_varint
from dicomfs.codec.bitstream.base import FrameBitstream, Method, Reading, take_varint
from dicomfs.codec.bitstream.jpeg_lossless import JpegLossless
from dicomfs.codec.bitstream.jpegls import JpegLsStream
from dicomfs.codec.bitstream.markers import parse
from dicomfs.codec.bitstream.rle import Rle
from dicomfs.codec.bitstream.transcode import restore
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

MAX_RAW = 1 << 27
"""Bytes of a frame that is read from a codestream: it is held in memory as a whole, several times."""

_ITEM_HEADER = 8
_MAX_INSERTS = 1 << 12
_NAME = "codestream"
_BY_METHOD: dict[Method, FrameBitstream] = {
    Method.JPEG_LOSSLESS: JpegLossless(),
    Method.JPEG_LS: JpegLsStream(),
    Method.RLE: Rle(),
}
_BY_FRAME_HEADER = {0xFFC3: Method.JPEG_LOSSLESS, 0xFFF7: Method.JPEG_LS}


def method_of(data: bytes, hint: PixelLayout, *, run_length: bool) -> Method:
    """The method that may read a codestream as a frame; ``run_length`` where the file says it is RLE.

    Raises:
        CodecError: none does, or the frame is too large.
    """
    if run_length:
        if hint.frame_bytes > MAX_RAW:
            raise CodecError(_NAME, "too large a frame")
        return Method.RLE
    frame = parse(data).frame
    method = _BY_FRAME_HEADER.get(frame.marker)
    if method is None:
        raise CodecError(_NAME, f"frames of marker {frame.marker:04x} are not read")
    if 2 * frame.rows * frame.columns * len(frame.components) > MAX_RAW:
        raise CodecError(_NAME, "too large a frame")
    return method


def read_frame(method: Method, data: bytes, hint: PixelLayout) -> Reading:
    """Samples and recipe of a codestream; not checked.  Raises `CodecError`."""
    return _BY_METHOD[method].read(data, hint)


def read_checked(method: Method, data: bytes, hint: PixelLayout) -> Reading:
    """As `read_frame`, after writing gave back every byte.

    Raises:
        CodecError: the codestream has no reading.
    """
    found = read_frame(method, data, hint)
    if _BY_METHOD[method].write(found.raw, found.layout, found.recipe) != data:
        raise CodecError(_NAME, "written by an encoder of another kind")
    return found


def write_frame(method: int, raw: bytes, layout: PixelLayout, recipe: bytes) -> bytes:
    """The bytes of a piece made from a frame, item headers inside included.

    Raises:
        CodecError: unknown method, or recipe and frame do not fit.
    """
    writer = _BY_METHOD.get(_method(method))
    if writer is None or layout.frame_bytes > MAX_RAW or len(raw) != layout.frame_bytes:
        raise CodecError(_NAME, "not made from a frame, or from another one")
    inserts, own = _take_inserts(recipe)
    return _with_inserts(writer.write(raw, layout, own), inserts)


def write_transcoded(method: int, stored: bytes, recipe: bytes, length: int) -> bytes:
    """The bytes of a piece made from a range of a stream, ``length`` in all; raises `CodecError`."""
    if _method(method) is not Method.JPEG_TRANSCODED:
        raise CodecError(_NAME, "not made from a stream")
    inserts, own = _take_inserts(recipe)
    return _with_inserts(restore(stored, own, length), inserts)


def piece_recipe(recipe: bytes, inserts: Sequence[tuple[int, bytes]]) -> bytes:
    """Recipe of a piece: of a method, and item headers each behind so many bytes of the codestream."""
    out, before = [put_varint(len(inserts))], 0
    for position, header in inserts:
        out += [put_varint(position - before), header]
        before = position
    return b"".join([*out, recipe])


def _method(number: int) -> Method:
    try:
        return Method(number)
    except ValueError:
        raise CodecError(_NAME, f"method {number} is not known here; upgrade dicomfs") from None


def _take_inserts(recipe: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    count, at = take_varint(_NAME, recipe, 0)
    if count > _MAX_INSERTS:
        raise CodecError(_NAME, "the recipe is damaged")
    inserts, position = [], 0
    for _ in range(count):
        gap, at = take_varint(_NAME, recipe, at)
        header = recipe[at : at + _ITEM_HEADER]
        at += _ITEM_HEADER
        position += gap
        if len(header) != _ITEM_HEADER:
            raise CodecError(_NAME, "the recipe is cut off")
        inserts.append((position, header))
    return inserts, recipe[at:]


def _with_inserts(data: bytes, inserts: Sequence[tuple[int, bytes]]) -> bytes:
    if not inserts:
        return data
    out, last = [], 0
    for position, header in inserts:
        if position > len(data):
            raise CodecError(_NAME, "an item header beyond the codestream")
        out += [data[last:position], header]
        last = position
    return b"".join([*out, data[last:]])
