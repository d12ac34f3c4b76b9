"""The codecs of our own, fast and dense; the only module that calls the kernel in C.

Owns the way from numpy buffers to the kernel's interface (``kernel/kernel.h``) and back: nothing is copied,
the interpreter lock is released during each call, and the kernel works in memory allocated here, within a
bound.  The streams are specified in docs/codec.md; a payload is one stream and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicomfs.codec.base import CodecId, Planes, Settings
from dicomfs.errors import CodecError

try:
    from dicomfs.codec.kernel._kernel import ffi, lib
except ImportError as _error:  # pragma: no cover - depends on how the package was built
    _MISSING = f"the kernel was not built: {_error}"
else:
    _MISSING = ""

if TYPE_CHECKING:
    from dicomfs.codec.kernel._kernel import CData

_MOST_MEMORY = 1 << 31
"""Bytes that one encoder or decoder may ask for; frames of the largest detectors need far less."""
_ALIGNMENT = 64
_KEPT = threading.local()
_MOST_KEPT = 96 << 20
"""Bytes of memory that a thread keeps for its next call at most (to code 8 MiB takes about 80 MiB): fresh
pages cost up to a fifth of a band's time."""
_AT_ONCE = 1 << 16
"""Bytes of samples decoded in one call, where frames are smaller: a call costs as much as those do."""

_REASONS = {
    -1: "does not take this shape, depth or memory",
    -2: "the stream is larger than the samples",
    -3: "the stream is damaged",
    -4: "the stream ends before the last frame",
}


class _Own:
    """What the fast and the dense codec share: the kernel's functions differ in their names alone."""

    name = ""
    id = CodecId.FAST
    random_access = False

    def unavailable(self) -> str:
        """Return why there is no kernel, or an empty string."""
        return _MISSING

    def supports(self, planes: Planes, bits: int) -> bool:
        """Take one sample a pixel of up to 16 bits."""
        return (
            planes.ndim == 3
            and 1 <= bits <= planes.itemsize * 8 <= 16
            and min(planes.shape) >= 1
            and max(planes.shape) <= 0xFFFF
        )

    def encode(self, planes: Planes, bits: int, settings: Settings) -> bytes:
        """Code the frames as one stream; raises `CodecError` where it would be far larger than they."""
        if not self.supports(planes, bits):
            raise CodecError(self.name, f"does not take frames of {planes.shape[1:]} with {bits} bits")
        if int(planes.max()) >> bits:
            raise CodecError(self.name, f"samples beyond {bits} bits")
        shape = _shape(planes.shape, bits, planes.itemsize)
        samples = _view(np.ascontiguousarray(planes).reshape(-1).view(np.uint8))
        how = ffi.new("dfk_settings *", self._settings(settings))
        room = planes.nbytes + planes.nbytes // 2 + 64 * len(planes) + 4096
        with self._memory(self._call("encoder_memory")(shape, how), room) as (memory, out):
            length: int = self._call("encode")(shape, how, samples, out, room, memory, len(memory))
            return bytes(ffi.buffer(out, self._checked(length)))

    def decode(
        self,
        payload: memoryview,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        bits: int,
        wanted: Collection[int],
    ) -> Iterator[tuple[int, Planes]]:
        """Decode as far as the next wanted frame; see `FrameCodec.decode`."""
        keep = frozenset(wanted)
        for first, frames in self.decode_runs(payload, shape, dtype, bits, keep):
            yield from ((index, frame) for index, frame in enumerate(frames, first) if index in keep)

    def decode_runs(
        self,
        payload: memoryview,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        bits: int,
        wanted: Collection[int],
    ) -> Iterator[tuple[int, Planes]]:
        """Decode as `decode` does, but yield runs of frames that have wanted ones, and the first's number.

        Small frames are decoded many at a time.

        Raises as `FrameCodec.decode` does.
        """
        if len(shape) != 3 or max(shape) > 0xFFFF:
            raise CodecError(self.name, f"no such stream: {tuple(shape)}")
        stream = ffi.from_buffer("uint8_t[]", payload)
        described = _shape(shape, bits, dtype.itemsize)
        step = self._call("next")
        keep = frozenset(wanted)
        stop = max(keep, default=-1) + 1
        most = max(1, _AT_ONCE // max(1, shape[1] * shape[2] * dtype.itemsize))
        with self._memory(self._decoder_memory(described, stream)) as (memory, _):
            self._checked(self._call("open")(described, stream, len(stream), memory, len(memory)))
            first = 0
            while first < stop:
                frames: Planes = np.empty((min(most, stop - first), *shape[1:]), dtype)
                count = self._checked(step(memory, len(frames), _view(frames.reshape(-1).view(np.uint8))))
                if not keep.isdisjoint(range(first, first + count)):
                    yield first, frames[:count]
                first += count

    def _settings(self, settings: Settings) -> dict[str, object]:
        distances = [*settings.references[: lib.DFK_REFERENCES]]
        return {
            "effort": max(1, min(settings.effort, 9)),
            "level": settings.level,
            "references": distances + [0] * (lib.DFK_REFERENCES - len(distances)),
        }

    def _decoder_memory(self, shape: CData, stream: CData) -> int:
        raise NotImplementedError

    def _call(self, function: str) -> Callable[..., int]:
        found: Callable[..., int] = getattr(lib, f"dfk_{self.name}_{function}")
        return found

    @contextlib.contextmanager
    def _memory(self, size: int, more: int = 0) -> Iterator[tuple[CData, CData]]:
        """Lend what the kernel asked for, aligned for vectors, and ``more`` bytes for the caller."""
        if self._checked(size) > _MOST_MEMORY:
            raise CodecError(self.name, f"wants {size} bytes of memory")
        block: npt.NDArray[np.uint8] | None = getattr(_KEPT, "block", None)
        # Nobody else gets it meanwhile: other decoders of this thread may run before this one ends.
        _KEPT.block = None
        if block is None or block.size < size + more + _ALIGNMENT:
            block = np.empty(size + more + _ALIGNMENT, np.uint8)
        try:
            start = -block.ctypes.data % _ALIGNMENT
            yield _view(block[start : start + size]), _view(block[start + size : start + size + more])
        finally:
            if block.size <= _MOST_KEPT:
                _KEPT.block = block

    def _checked(self, code: int) -> int:
        if code < 0:
            raise CodecError(self.name, _REASONS.get(code, f"error {code}"))
        return code


class Fast(_Own):
    """Forward-adaptive: decodes several times as fast as any other codec here."""

    name = "fast"
    id = CodecId.FAST

    def _settings(self, settings: Settings) -> dict[str, object]:
        return {**super()._settings(settings), "level": 0}

    def _decoder_memory(self, shape: CData, stream: CData) -> int:  # noqa: ARG002 - depends on the shape alone
        return lib.dfk_fast_decoder_memory(shape)


class Dense(_Own):
    """Backward-adaptive: the smallest; its level 1 is the archive level."""

    name = "dense"
    id = CodecId.DENSE

    def _decoder_memory(self, shape: CData, stream: CData) -> int:
        return lib.dfk_dense_decoder_memory(shape, stream, len(stream))


def to_words(samples: Planes, field: tuple[int, ...], word: np.dtype[Any]) -> bytes:
    """The words, in native order, that samples stand for.

    ``field``: fold_at, fold_size, offset, mask, shift, fixed (docs/format.md, "Sample planes"), below 2**16.
    Raises `CodecError` without a kernel.
    """
    if _MISSING:
        raise CodecError("planes", _MISSING)
    native = np.ascontiguousarray(samples, samples.dtype.newbyteorder("="))
    given = _view(native.reshape(-1).view(np.uint8))
    # Filled in before anybody else has it.  Fresh memory is slow to touch, and this way that happens without
    # the interpreter's lock: `bytes` asks for zeros, which the system gives page by page as they are written.
    words = bytes(samples.size * word.itemsize)
    out, how = ffi.from_buffer("uint8_t[]", words), ffi.new("dfk_field *", field)
    code: int = lib.dfk_words(how, given, samples.itemsize, samples.size, out, word.itemsize)
    if code < 0:
        raise CodecError("planes", _REASONS[code])
    return words


def _shape(shape: Sequence[int], bits: int, sample_bytes: int) -> CData:
    return ffi.new("dfk_shape *", [*(int(size) for size in shape), bits, sample_bytes])


def _view(array: npt.NDArray[np.uint8]) -> CData:
    """Lend an array's memory to the kernel; it stays alive as long as what is returned."""
    return ffi.from_buffer("uint8_t[]", array, require_writable=array.flags.writeable)
