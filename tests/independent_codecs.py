"""Band payloads and zstd frames, decoded from `docs/format.md` alone; see `independent_reader`."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import av
import av.codec
import imagecodecs
import numpy as np
import numpy.typing as npt
import zstandard
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from tests import independent_dense, independent_fast, kernel_builds
from tests.independent_kernel import Damaged, Stack

Array = npt.NDArray[Any]
Decode = Callable[[bytes, tuple[int, ...], int], Array]
WINDOW_LIMIT = 128 << 20
GREY_DEPTHS = (8, 9, 10, 12, 14, 16)
HEVC_DEPTHS = (8, 10, 12)


class Refused(Exception):
    """The bytes are damaged: bad magic, check, digest, length, range, order, text or number."""


class Unsupported(Refused):
    """A newer major version, an unknown feature, required section kind, entry tag or codec."""


@dataclass(frozen=True)
class Layout:
    """Layout of the frames of a stack."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high_bit: int
    flags: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.columns * self.samples * self.allocated // 8

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return self.rows * self.row_bytes


@dataclass(frozen=True)
class Planes:
    """The planes header and its rest plane."""

    big_endian: bool
    shift: int
    width: int
    bits: int
    fixed: int
    offset: int
    fold_at: int
    fold_size: int
    rest: Array | None


def unzstd(frame: bytes, plain: int, dictionary: bytes = b"", *, must_declare: bool = True) -> bytes:
    """Decompress one zstd frame of a known plain length; raises Refused."""
    raw = zstandard.ZstdCompressionDict(dictionary, zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    try:
        declared = zstandard.get_frame_parameters(frame).content_size
        if declared != plain and (must_declare or declared != zstandard.CONTENTSIZE_UNKNOWN):
            raise Refused(f"a zstd frame does not declare {plain} bytes")
        machine = zstandard.ZstdDecompressor(dict_data=raw, max_window_size=WINDOW_LIMIT)
        found = machine.decompress(frame, max_output_size=plain, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Refused("a zstd frame is damaged") from error
    if len(found) != plain:
        raise Refused(f"{len(found)} bytes instead of {plain}")
    return found


def split_streams(payload: bytes, count: int) -> list[bytes]:
    """Cut streams apart that follow the list of their lengths."""
    lengths, at = [], 0
    for _ in range(count):
        value = shift = 0
        while True:
            if at >= len(payload) or shift > 35:
                raise Refused("lengths of streams")
            byte = payload[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        lengths.append(value)
    if at + sum(lengths) != len(payload):
        raise Refused("streams do not end with the payload")
    streams = []
    for length in lengths:
        streams.append(payload[at : at + length])
        at += length
    return streams


def decode_band(payload: bytes, layout: Layout, rows: int, frames: int, codec: int) -> list[bytes]:
    """Raw bytes of the band's rows, a byte string for each frame; raises Refused."""
    size = rows * layout.row_bytes
    if codec == 0:
        if len(payload) != size * frames:
            raise Refused("a raw band has another length")
        return [payload[k * size : (k + 1) * size] for k in range(frames)]
    if codec not in {1, 2, 3, 4, 5, 7, 8}:
        raise Unsupported(f"codec {codec}")
    kind, body = payload[:1], payload[1:]
    shape = (frames, rows, layout.columns, layout.samples)
    if kind in {b"\1", b"\2"} and codec == 1:
        words = _zstandard(body, shape, layout.allocated // 8)
        raw = (words.byteswap() if kind == b"\2" else words).tobytes()
    elif kind == b"\3" and codec != 1 and layout.allocated in {8, 16}:
        raw = _sample_planes(body, shape, layout.allocated // 8, _CODECS[codec])
    elif kind == b"\4" and codec in {5, 7, 8} and layout.allocated in {8, 16} and layout.samples > 1:
        apart = functools.partial(_components, _CODECS[codec])
        raw = _sample_planes(body, shape, layout.allocated // 8, apart)
    elif kind == b"\5" and codec != 1 and layout.allocated in {32, 64}:
        raw = _wide(body, layout, rows, frames)
    else:
        raise Refused("a band kind that does not go with its codec")
    return [raw[k * size : (k + 1) * size] for k in range(frames)]


def _wide(body: bytes, layout: Layout, rows: int, frames: int) -> bytes:
    """Words of 32 or 64 bits from planes of 16."""
    size, top = layout.allocated // 8, 1 << layout.allocated - 1
    if len(body) < 14:
        raise Refused("a header of wide words is cut off")
    flags, bits, least, ranks = struct.unpack_from("<BBQI", body)
    if flags > 31 or bits > layout.allocated or bool(flags & 4) != bool(ranks) or ranks > 1 << 16:
        raise Refused("a header of wide words")
    streams = split_streams(body[14:], -(-bits // 16) + bool(ranks))
    table = [0]
    if ranks:
        steps = unzstd(streams.pop(0), ranks * size, must_declare=False)
        for k in range(ranks):
            table.append((table[-1] + int.from_bytes(steps[k::ranks], "little")) % (2 * top))
    narrow = Layout(layout.rows, layout.columns, layout.samples, 16, 16, 15, 0)
    numbers = np.zeros((frames, rows, layout.columns, layout.samples), object)
    left = bits
    for stream in streams:
        left = max(0, left - 16)
        plane = b"".join(decode_band(stream[1:], narrow, rows, frames, stream[0]))
        numbers += np.frombuffer(plane, "<u2").reshape(numbers.shape).astype(object) << left
    if ranks:
        numbers = np.array([table[1 + int(one)] for one in numbers.ravel()], object).reshape(numbers.shape)
    elif flags & 8:
        numbers = np.array([-(one + 1) // 2 if one & 1 else one // 2 for one in numbers.ravel()], object)
        numbers = numbers.reshape(frames, rows, layout.columns, layout.samples).cumsum(axis=1).cumsum(axis=2)
    out = []
    for one in (numbers.ravel() + least) % (2 * top):
        word = one ^ top if flags & 16 or (flags & 2 and one >= top) else one
        out.append(int(2 * top - 1 - one if flags & 2 and one < top else word))
    return b"".join(one.to_bytes(size, "big" if flags & 1 else "little") for one in out)


def _zstandard(body: bytes, shape: tuple[int, ...], word_bytes: int) -> Array:
    """Words of a band, little-endian."""
    if not body or body[0] > 3:
        raise Refused("an unknown filter")
    count = int(np.prod(shape))
    data = np.frombuffer(unzstd(body[1:], count * word_bytes, must_declare=False), np.uint8)
    if body[0] & 1:
        data = np.ascontiguousarray(data.reshape(word_bytes, count).T).ravel()
    words: Array = data.view(f"<u{word_bytes}").reshape(shape)
    return np.cumsum(words, axis=2, dtype=words.dtype) if body[0] & 2 else words


def _sample_planes(body: bytes, shape: tuple[int, ...], word_bytes: int, decode: Decode) -> bytes:
    planes, payload = _planes_header(body, shape, word_bytes)
    if planes.bits:
        samples = decode(payload, shape, planes.bits).astype(np.int64)
    elif payload:
        raise Refused("a band of zeros has a payload")
    else:
        samples = np.zeros(shape, np.int64)
    if planes.fold_size:
        samples = np.where(samples >= planes.fold_at, samples + planes.fold_size, samples)
    words = ((samples + planes.offset) % (1 << planes.width)) << planes.shift
    words |= planes.fixed if planes.rest is None else planes.rest
    return words.astype(f"{'>' if planes.big_endian else '<'}u{word_bytes}").tobytes()


def _planes_header(body: bytes, shape: tuple[int, ...], word_bytes: int) -> tuple[Planes, bytes]:
    if len(body) < 15:
        raise Refused("a planes header is cut off")
    flags, shift, width, bits, fixed, offset, fold_at, fold_size = struct.unpack_from("<BBBBHHHH", body)
    end = 15 + int.from_bytes(body[12:15], "little")
    if flags > 3 or max(shift + width, bits) > 8 * word_bytes or end > len(body):
        raise Refused("a planes header")
    rest: Array | None = None
    if flags & 2:
        count = int(np.prod(shape))
        data = unzstd(body[15:end], word_bytes * count, must_declare=False)
        low_and_high = np.frombuffer(data, np.uint8).reshape(word_bytes, count).astype(np.int64)
        rest = sum(low_and_high[k] << 8 * k for k in range(word_bytes)).reshape(shape)
    elif end != 15:
        raise Refused("a rest plane that no flag announces")
    header = Planes(bool(flags & 1), shift, width, bits, fixed, offset, fold_at, fold_size, rest)
    return header, body[end:]


def _components(decode: Decode, payload: bytes, shape: tuple[int, ...], bits: int) -> Array:
    frames, rows, columns, samples = shape
    transform = payload[0]
    if transform > 2 or (transform and samples != transform + 2):
        raise Refused("an unknown transform")
    widths = [2 * columns, columns, columns] if transform == 2 else [columns] * samples
    streams = split_streams(payload[1:], len(widths))
    found = [
        decode(stream, (frames, rows, width, 1), bits).astype(np.int64)[..., 0]
        for stream, width in zip(streams, widths, strict=True)
    ]
    if transform == 2:
        pairs = found[0].reshape(frames, rows, columns, 2)
        return np.concatenate([pairs, np.stack(found[1:], axis=3)], axis=3)
    if transform == 1:
        for sample in (0, 2):
            found[sample] = (found[sample] + found[1] - (1 << bits - 1)) % (1 << bits)
    return np.stack(found, axis=3)


def _jpeg_ls(payload: bytes, shape: tuple[int, ...], bits: int) -> Array:
    frames, rows, columns, samples = shape
    transform, length = payload[0], payload[1]
    header = payload[2 : 2 + length]
    streams = split_streams(payload[2 + length :], frames * samples)
    images = [imagecodecs.jpegls_decode(header + stream + b"\xff\xd9") for stream in streams]
    if any(image.shape != (rows, columns) for image in images):
        raise Refused("a JPEG-LS image of another size")
    found = np.stack(images).astype(np.int64).reshape(frames, samples, rows, columns)
    if transform > 1 or (transform and samples != 3):
        raise Refused("an unknown transform")
    if transform:
        for sample in (0, 2):
            found[:, sample] = (found[:, sample] + found[:, 1] - (1 << bits - 1)) % (1 << bits)
    return np.moveaxis(found, 1, 3)


def _own(codec: str, payload: bytes, shape: tuple[int, ...], bits: int) -> Array:
    """Samples of a stream of our own: small ones by the text alone, which is slow, others by the kernel."""
    frames, rows, columns, samples = shape
    if samples != 1:
        raise Refused("a stream of one sample for pixels of more")
    decode, most = _BY_TEXT[codec]
    if frames * rows * columns > most:
        return _by_kernel(codec, payload, kernel_builds.Shape(frames, rows, columns, bits)).reshape(shape)
    try:
        return decode(Stack(frames, rows, columns, bits), bytes(payload)).reshape(shape)
    except Damaged as error:
        raise Refused(f"{codec}: {error}") from error


def _by_kernel(codec: str, payload: bytes, size: kernel_builds.Shape) -> Array:
    try:
        raw = kernel_builds.decode("gcc", codec, size, payload)
    except kernel_builds.KernelError as error:
        raise Refused(f"{codec}: {error}") from error
    return np.frombuffer(raw, f"<u{size.sample_bytes}").astype(np.int64)


def _jpeg_xl(payload: bytes, shape: tuple[int, ...], bits: int) -> Array:
    frames, rows, columns, samples = shape
    if payload[:1] not in {b"\0", b"\1"} or (payload[0] and samples != 1):
        raise Refused("an unknown grouping")
    triples = frames // 3 * payload[0]
    out: list[Array] = []
    for number, stream in enumerate(split_streams(payload[1:], frames - 2 * triples)):
        channels = 3 if number < triples else samples
        image = imagecodecs.jpegxl_decode(stream)
        if image.size != rows * columns * channels or image.max() >> bits:
            raise Refused("a JPEG XL image of another size")
        image = image.reshape(rows, columns, channels)
        out += [image[..., k : k + 1] for k in range(3)] if number < triples else [image]
    return np.stack(out)


def _video(name: str, payload: bytes, shape: tuple[int, ...], depth: int) -> Array:
    frames, rows, columns, samples = shape
    colour = samples == 3
    if samples not in {1, 3} or (colour and name == "hevc"):
        raise Refused("no such video")
    extradata, *packets = split_streams(payload, frames + 1)
    context = av.codec.CodecContext.create(name, "r")
    assert isinstance(context, VideoCodecContext)
    if depth == 8:
        context.pix_fmt = "bgr0" if colour else "gray"
    else:
        context.pix_fmt = f"{'gbrp' if colour else 'gray'}{depth}le"
    context.width, context.height, context.extradata = columns, rows, extradata
    try:
        pictures = [one for data in packets for one in context.decode(av.Packet(data))]
        pictures += context.decode(None)
    except av.FFmpegError as error:
        raise Refused(f"{name}: {error}") from error
    found = [(one.width, one.height, one.format.name) for one in pictures]
    if found != [(columns, rows, context.pix_fmt)] * frames:
        raise Refused("a video of other pictures")
    return np.stack([_picture(one, colour, depth) for one in pictures])


def _picture(picture: VideoFrame, colour: bool, depth: int) -> Array:
    """Samples of a picture, (rows, columns, samples)."""
    planes = []
    for plane in picture.planes:
        lines = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[: picture.height]
        planes.append(lines.view(np.uint8 if depth == 8 else "<u2"))
    if not colour:
        return planes[0][:, : picture.width, None]
    if depth == 8:
        return planes[0][:, : 4 * picture.width].reshape(picture.height, picture.width, 4)[..., 2::-1]
    green, blue, red = (plane[:, : picture.width] for plane in planes)
    return np.stack([red, green, blue], axis=2)


def _least(depths: tuple[int, ...], bits: int) -> int:
    if bits > depths[-1]:
        raise Refused(f"no depth for {bits} bits")
    return next(depth for depth in depths if depth >= bits)


# Decoders by the text, and the most samples that they are given; a stream is often read more than once.
_BY_TEXT: dict[str, tuple[Callable[[Stack, bytes], Array], int]] = {
    "fast": (functools.lru_cache(16)(independent_fast.decode), 100_000),
    "dense": (functools.lru_cache(16)(independent_dense.decode), 14_000),
}
_CODECS: dict[int, Decode] = {
    2: _jpeg_ls,
    3: _jpeg_xl,
    4: lambda payload, shape, bits: _video("ffv1", payload, shape, _least(GREY_DEPTHS, bits)),
    5: lambda payload, shape, bits: _video("hevc", payload, shape, _least(HEVC_DEPTHS, bits)),
    7: lambda payload, shape, bits: _own("fast", payload, shape, bits),
    8: lambda payload, shape, bits: _own("dense", payload, shape, bits),
}
