"""zstd (RFC 8878) with hard bounds, the only use of zstandard in format/.

Owns: compress, decompress to a length known beforehand.  The length is checked against the frame's own
before anything is allocated, so that a small hostile input can't ask for much memory.
"""

from __future__ import annotations

import zstandard

from dicomfs.errors import DamagedError

_WINDOW_LIMIT = 1 << 27
"""Largest zstd window accepted; level 22 asks for 128 MiB, we never write more than 8 MiB."""


def compress(data: bytes | memoryview, level: int, dictionary: bytes | None = None) -> bytes:
    """One zstd frame with its content size, without checksum (sections carry their own)."""
    size = len(data) + (len(dictionary) if dictionary else 0)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=size,
        dict_size=len(dictionary) if dictionary else 0,
        enable_ldm=size > 1 << 20,
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    raw = zstandard.ZstdCompressionDict(dictionary, zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=raw).compress(data)


def compress_if_smaller(data: bytes | memoryview, level: int) -> bytes | None:
    """The zstd frame, or None when it does not gain."""
    packed = compress(data, level)
    return packed if len(packed) < len(data) else None


def decompress(data: bytes | memoryview, plain: int, artefact: str, dictionary: bytes | None = None) -> bytes:
    """Exactly ``plain`` bytes from one zstd frame.

    The caller has bounded ``plain``.  Raises DamagedError for anything else: bad frame, other length,
    bytes after the frame, a window beyond 128 MiB.
    """
    raw = zstandard.ZstdCompressionDict(dictionary, zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    try:
        frame = zstandard.get_frame_parameters(data)
        if frame.content_size != plain or frame.window_size > _WINDOW_LIMIT:
            raise DamagedError(artefact, f"compressed frame does not declare {plain} bytes")
        decompressor = zstandard.ZstdDecompressor(dict_data=raw, max_window_size=_WINDOW_LIMIT)
        result = decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedError(artefact, "compressed bytes can't be decompressed") from error
    if len(result) != plain:
        raise DamagedError(artefact, f"decompresses to {len(result)} bytes instead of {plain}")
    return result
