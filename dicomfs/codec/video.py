"""FFV1 (RFC 9043) and lossless HEVC (ITU-T H.265): neighbouring frames as video; the only door to PyAV.

Owns the choice of pixel format, encoder settings and the bare packet framing (no container).  All frames
of a band decode together.  One thread per call: the caller runs bands side by side.

Payload: extradata, then one packet per frame in decoding order, framed by `join_streams`.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import CodecId, Planes, Settings, join_streams, split_streams
from dicomfs.errors import CodecError

try:
    import av
    import av.codec
    import av.logging
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
except ImportError as _error:  # pragma: no cover - depends on the machine
    _MISSING = str(_error)
else:
    _MISSING = ""
    # FFmpeg writes to stderr of the process by itself; what goes wrong comes back as an exception.
    av.logging.set_level(None)
    av.logging.set_libav_level(av.logging.PANIC)

_GREY = {8: "gray", 9: "gray9le", 10: "gray10le", 12: "gray12le", 14: "gray14le", 16: "gray16le"}
_COLOUR = {8: "bgr0", 9: "gbrp9le", 10: "gbrp10le", 12: "gbrp12le", 14: "gbrp14le", 16: "gbrp16le"}
_HEVC_GREY = {8: "gray", 10: "gray10le", 12: "gray12le"}
_NO_COLOUR: dict[int, str] = {}
_GLOBAL_HEADER = 1 << 22


class _Video:
    """What both video codecs share."""

    name = ""
    id = CodecId.FFV1
    random_access = False
    encoder = ""
    decoder = ""
    smallest = 1
    grey: dict[int, str]
    colour: dict[int, str]

    def unavailable(self) -> str:
        """Return what is missing, or an empty string."""
        if _MISSING:
            return _MISSING
        for name, mode in ((self.encoder, "w"), (self.decoder, "r")):
            if name not in av.codecs_available:
                return f"FFmpeg was built without {name} ({mode})"
        return ""

    def options(self, shape: Sequence[int], effort: int) -> Sequence[dict[str, str]]:
        """Return the encoder options worth trying on the whole band."""
        raise NotImplementedError

    def _format(self, shape: Sequence[int], bits: int) -> str:
        formats = self.grey if len(shape) == 3 else self.colour if shape[3] == 3 else {}
        return next((formats[depth] for depth in sorted(formats) if depth >= bits), "")

    def supports(self, planes: Planes, bits: int) -> bool:
        """Take sizes and depths for which the codec has a pixel format."""
        rows, columns = planes.shape[1:3]
        return (
            1 <= bits <= planes.itemsize * 8 <= 16
            and self.smallest <= min(rows, columns)
            and max(rows, columns) <= 16384
            and bool(self._format(planes.shape, bits))
        )

    def encode(self, planes: Planes, bits: int, settings: Settings) -> bytes:
        """Code the frames as one group of pictures; raises `CodecError`."""
        if not self.supports(planes, bits):
            raise CodecError(self.name, f"does not take frames of {planes.shape[1:]} with {bits} bits")
        return min(
            (self._encode(planes, bits, one) for one in self.options(planes.shape, settings.effort)), key=len
        )

    def _encode(self, planes: Planes, bits: int, options: dict[str, str]) -> bytes:
        pixel_format = self._format(planes.shape, bits)
        try:
            context = _context(self.encoder, "w")
            context.width, context.height = planes.shape[2], planes.shape[1]
            context.pix_fmt = pixel_format
            context.framerate, context.gop_size = Fraction(25), len(planes)
            context.thread_count = 1
            context.flags |= _GLOBAL_HEADER
            context.options = options
            packets = [
                packet
                for index, plane in enumerate(planes)
                for packet in context.encode(_to_frame(plane, pixel_format, index))
            ]
            packets += context.encode(None)
            extradata = context.extradata or b""
        except (av.FFmpegError, ValueError, MemoryError) as error:
            raise CodecError(self.name, str(error)) from error
        if len(packets) != len(planes):
            raise CodecError(self.name, f"{len(packets)} packets for {len(planes)} frames")
        return join_streams([extradata, *(bytes(packet) for packet in packets)])

    def decode(
        self,
        payload: memoryview,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        bits: int,
        wanted: Collection[int],
    ) -> Iterator[tuple[int, Planes]]:
        """Decode as far as the next wanted frame; see `FrameCodec.decode`."""
        streams = split_streams(self.name, payload, shape[0] + 1)
        pixel_format = self._format(shape, bits)
        if not pixel_format or any(not len(stream) for stream in streams[1:]):
            raise CodecError(self.name, "no such video")
        keep, last = set(wanted), max(wanted, default=-1)
        found = 0
        try:
            context = _context(self.decoder, "r")
            context.width, context.height = shape[2], shape[1]
            context.pix_fmt = pixel_format
            context.thread_count = 1
            # A stream that changes its size is refused before the decoder allocates for it.
            context.options = {"max_pixels": str(max(4096, 2 * shape[1] * shape[2])), "err_detect": "explode"}
            context.extradata = bytes(streams[0])
            for index, frame in enumerate(_decoded(context, streams[1:], last)):
                if index in keep:
                    found += 1
                    yield index, _from_frame(frame, pixel_format, shape, dtype)
        except (av.FFmpegError, ValueError, MemoryError, EOFError) as error:
            raise CodecError(self.name, str(error)) from error
        if found != len(keep):
            raise CodecError(self.name, "the stream ends before the last frame")


def _context(name: str, mode: Literal["r", "w"]) -> VideoCodecContext:
    context = av.codec.CodecContext.create(name, mode)
    if not isinstance(context, VideoCodecContext):
        raise CodecError(name, "not a video codec")
    return context


def _decoded(
    context: VideoCodecContext, packets: Sequence[memoryview], last: int
) -> Generator[VideoFrame, None, None]:
    """Yield frames in order until number ``last``."""
    index = 0
    for data in (*packets, None):
        if index > last:
            return
        for frame in context.decode(None if data is None else av.Packet(bytes(data))):
            yield frame
            index += 1
            if index > last:
                return


def _views(frame: VideoFrame, pixel_format: str) -> list[npt.NDArray[Any]]:
    """Return writable arrays (rows, columns[, 4]) over the frame's planes, without padding."""
    wide = np.dtype("<u2") if pixel_format.endswith("le") else np.dtype(np.uint8)
    out = []
    for plane in frame.planes:
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height]
        width = frame.width * (4 if pixel_format == "bgr0" else wide.itemsize)
        view = lines[:, :width].view(wide)
        out.append(view.reshape(frame.height, frame.width, 4) if pixel_format == "bgr0" else view)
    return out


def _to_frame(plane: Planes, pixel_format: str, index: int) -> VideoFrame:
    frame = VideoFrame(plane.shape[1], plane.shape[0], pixel_format)
    frame.pts = index
    views = _views(frame, pixel_format)
    if pixel_format == "bgr0":
        views[0][..., :3] = plane[..., ::-1]
        views[0][..., 3] = 0
    elif plane.ndim == 2:
        views[0][...] = plane
    else:
        for view, sample in zip(views, (1, 2, 0), strict=True):
            view[...] = plane[..., sample]
    return frame


def _from_frame(frame: VideoFrame, pixel_format: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Planes:
    if (frame.height, frame.width, frame.format.name) != (shape[1], shape[2], pixel_format):
        raise ValueError(f"a frame of {frame.height} x {frame.width} in {frame.format.name}")
    views = _views(frame, pixel_format)
    if len(shape) == 3:
        return views[0].astype(dtype)
    if pixel_format == "bgr0":
        return views[0][..., 2::-1].astype(dtype)
    return np.stack([views[index] for index in (2, 0, 1)], axis=2).astype(dtype)


class Ffv1(_Video):
    """FFV1 version 3: context modelling that goes on from frame to frame."""

    name = "ffv1"
    id = CodecId.FFV1
    encoder = "ffv1"
    decoder = "ffv1"
    grey = _GREY
    colour = _COLOUR

    def options(self, shape: Sequence[int], effort: int) -> Sequence[dict[str, str]]:
        """Return options for the fewest slices the encoder allows, without checksums (digests are ours).

        The large context model pays on long runs of alike frames only.
        """
        small = shape[2] <= 352 and shape[1] <= 288
        common = {"level": "3", "coder": "1", "slices": "1" if small else "4", "slicecrc": "0"}
        return [{**common, "context": model} for model in ("0", "1")[: 1 if effort < 5 else 2]]


class Hevc(_Video):
    """HEVC lossless by x265, grey up to 12 bits.

    x265 calls streams lossless that are not: with weighted prediction, and where a picture is one coding
    tree unit wide or high.  The settings avoid both, and every stream is decoded before it is returned.
    """

    name = "hevc"
    id = CodecId.HEVC
    encoder = "libx265"
    decoder = "hevc"
    smallest = 32
    grey = _HEVC_GREY
    colour = _NO_COLOUR

    def options(self, shape: Sequence[int], effort: int) -> Sequence[dict[str, str]]:
        """Return lossless settings; weighted prediction stays off, with it x265 is not exact."""
        quiet = "log-level=none:info=0:repeat-headers=0:pools=none:frame-threads=1"
        exact = "lossless=1:weightp=0:weightb=0"
        unit = next((size for size in (64, 32) if min(shape[1:3]) >= 4 * size), 16)
        preset = "fast" if effort <= 3 else "medium" if effort < 9 else "slow"
        parameters = f"{quiet}:{exact}:ctu={unit}:keyint={shape[0]}:scenecut=0"
        return [{"preset": preset, "x265-params": parameters}]

    def encode(self, planes: Planes, bits: int, settings: Settings) -> bytes:
        """Code the frames and make sure that they come back; raises `CodecError`."""
        payload = super().encode(planes, bits, settings)
        found = dict(self.decode(memoryview(payload), planes.shape, planes.dtype, bits, range(len(planes))))
        if any(not np.array_equal(found[index], plane) for index, plane in enumerate(planes)):
            raise CodecError(self.name, "the encoder was not exact")
        return payload
