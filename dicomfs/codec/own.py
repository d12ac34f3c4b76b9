"""The codecs of our own, fast and dense; the only module that calls the kernel in C.

Owns the way from numpy buffers to the kernel's interface (``kernel/kernel.h``) and back: nothing is copied,
the interpreter lock is released during each call, and the kernel works in memory allocated here, within a
bound.  The streams are specified in docs/codec.md; a payload is one stream and nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
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

Field = tuple[int, int, int, int, int, int]
"""What samples stand for: fold_at, fold_size, offset, mask, shift, fixed, each below 2**16 (docs/format.md,
"Sample planes")."""

Block = npt.NDArray[np.uint8]

_MOST_MEMORY = 1 << 31
"""Bytes that one encoder or decoder may ask for; frames of the largest detectors need far less."""
_ALIGNMENT = 64
_MOST_KEPT = 96 << 20
"""Bytes of the largest block that is kept for a later call: to code 8 MiB takes about 80 MiB."""
_AT_ONCE = 1 << 16
"""Bytes decoded in one call, where frames are smaller: a call costs as much as those do."""

_REASONS = {
    -1: "does not take this shape, depth or memory",
    -2: "the stream is larger than the samples",
    -3: "the stream is damaged",
    -4: "the stream ends before the last frame",
}


class _Kept:
    """Memory between calls, a block for each processor: fresh pages cost up to a fifth of a band's time.

    Has no lock: what is collected as garbage gives its block back in the middle of anything, this too.
    """

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque(maxlen=len(os.sched_getaffinity(0)))

    def take(self, size: int) -> Block:
        """Return at least so many bytes, which hold anything; the block given back last is tried first."""
        for _ in range(len(self._blocks)):
            try:
                block = self._blocks.pop()
            except IndexError:  # another thread was faster
                break
            if block.size >= size:
                return block
            self._blocks.appendleft(block)
        return np.empty(size, np.uint8)

    def give(self, block: Block) -> None:
        """Keep a block for the next call in the place of one that was not used for longer."""
        if block.size <= _MOST_KEPT:
            self._blocks.append(block)


_kept = _Kept()


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
        for first, found in self.decode_words(payload, shape, dtype, bits, keep, None, dtype):
            frames: Planes = np.frombuffer(found, dtype).reshape(-1, *shape[1:])
            numbered = enumerate(frames, first)
            yield from ((index, frame) for index, frame in numbered if index in keep)

    def decode_words(
        self,
        payload: memoryview,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        bits: int,
        wanted: Collection[int],
        field: Field | None,
        word: np.dtype[Any],
    ) -> Iterator[tuple[int, bytes]]:
        """Decode as `decode` does, but to the words, in native order, that the samples stand for.

        Without a field those are the samples, and ``word`` is their type.  Yields neighbouring frames of
        which some are wanted in one, and the number of the first.  Raises as `FrameCodec.decode` does.
        """
        if len(shape) != 3 or max(shape) > 0xFFFF:
            raise CodecError(self.name, f"no such stream: {tuple(shape)}")
        stream = ffi.from_buffer("uint8_t[]", payload)
        described = _shape(shape, bits, dtype.itemsize)
        step, how = self._call("next"), ffi.NULL if field is None else ffi.new("dfk_field *", field)
        keep = frozenset(wanted)
        stop = max(keep, default=-1) + 1
        size = shape[1] * shape[2] * word.itemsize
        most = max(1, _AT_ONCE // max(1, size))
        with self._memory(self._decoder_memory(described, stream)) as (memory, _):
            self._checked(self._call("open")(described, stream, len(stream), memory, len(memory)))
            first = 0
            while first < stop:
                frames = min(most, stop - first)
                found, out = _fresh(frames * size)
                count = self._checked(step(memory, frames, how, word.itemsize, out))
                if not keep.isdisjoint(range(first, first + count)):
                    yield first, found[: count * size]
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
        block = _kept.take(size + more + _ALIGNMENT)
        try:
            start = -block.ctypes.data % _ALIGNMENT
            yield _view(block[start : start + size]), _view(block[start + size : start + size + more])
        finally:
            _kept.give(block)

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


def to_words(samples: Planes, field: Field, word: np.dtype[Any]) -> bytes:
    """The words, in native order, that samples stand for.  Raises `CodecError` without a kernel."""
    if _MISSING:
        raise CodecError("planes", _MISSING)
    native = np.ascontiguousarray(samples, samples.dtype.newbyteorder("="))
    given = _view(native.reshape(-1).view(np.uint8))
    words, out = _fresh(samples.size * word.itemsize)
    how = ffi.new("dfk_field *", field)
    code: int = lib.dfk_words(how, given, samples.itemsize, samples.size, out, word.itemsize)
    if code < 0:
        raise CodecError("planes", _REASONS[code])
    return words


def _fresh(size: int) -> tuple[bytes, CData]:
    """Bytes that the kernel fills in before anybody else has them.

    Fresh memory is slow to touch, and this way that happens without the interpreter's lock: `bytes` asks for
    zeros, which the system gives page by page as they are written.
    """
    made = bytes(size)
    return made, ffi.from_buffer("uint8_t[]", made)


def _shape(shape: Sequence[int], bits: int, sample_bytes: int) -> CData:
    return ffi.new("dfk_shape *", [*(int(size) for size in shape), bits, sample_bytes])


def _view(array: npt.NDArray[np.uint8]) -> CData:
    """Lend an array's memory to the kernel; it stays alive as long as what is returned."""
    return ffi.from_buffer("uint8_t[]", array, require_writable=array.flags.writeable)
