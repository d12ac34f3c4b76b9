"""Samples as they are: what remains when no codec makes them smaller, and the bound for all others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from dicomfs.codec.base import CodecId, Planes, Settings
from dicomfs.errors import CodecError


class Raw:
    """The bytes of all frames, one after the other."""

    name = "raw"
    id = CodecId.RAW
    random_access = True

    def unavailable(self) -> str:
        """Return an empty string: there is nothing to miss."""
        return ""

    def supports(self, planes: Planes, bits: int) -> bool:
        """Take everything."""
        return bits <= planes.itemsize * 8

    def encode(self, planes: Planes, bits: int, settings: Settings) -> bytes:  # noqa: ARG002 - nothing to choose
        """Return the bytes; never raises."""
        return planes.tobytes()

    def decode(
        self,
        payload: memoryview,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        bits: int,  # noqa: ARG002 - any depth
        wanted: Collection[int],
    ) -> Iterator[tuple[int, Planes]]:
        """Yield the wanted frames; see `FrameCodec.decode`."""
        size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        if len(payload) != size * shape[0]:
            raise CodecError(self.name, f"{len(payload)} bytes instead of {size * shape[0]}")
        for index in sorted(wanted):
            yield index, np.frombuffer(payload[index * size : (index + 1) * size], dtype).reshape(shape[1:])
