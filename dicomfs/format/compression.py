"""zstd (RFC 8878) and LZMA with hard bounds, the only use of zstandard and lzma in format/.

Owns: compress, decompress to a length known beforehand.  The length is checked against the frame's own
before anything is allocated, so that a small hostile input can't ask for much memory.
"""

from __future__ import annotations

import lzma

import zstandard

from dicomfs.errors import DamagedError

_WINDOW_LIMIT = 1 << 27
"""Largest zstd window accepted; level 22 asks for 128 MiB, we never write more than 8 MiB."""
_SMALLEST_WINDOW = 4096
"""Bytes; LZMA takes no less."""


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


def compress_lzma(data: bytes, contexts: tuple[int, int, int]) -> bytes:
    """The properties byte of LZMA for ``contexts`` (lc, lp, pb) and a raw LZMA stream with end marker."""
    lc, lp, pb = contexts
    filters = [
        {
            "id": lzma.FILTER_LZMA1,
            "dict_size": _window(len(data)),
            "lc": lc,
            "lp": lp,
            "pb": pb,
            "mode": lzma.MODE_NORMAL,
            "nice_len": 273,
            "mf": lzma.MF_BT4,
            "depth": 0,
        }
    ]
    packed = lzma.compress(data, lzma.FORMAT_RAW, filters=filters)
    return bytes([(pb * 5 + lp) * 9 + lc]) + packed


def decompress_lzma(data: bytes, plain: int, artefact: str) -> bytes:
    """Exactly ``plain`` bytes, which the caller has bounded; memory is bounded by them.  DamagedError."""
    if not data or data[0] >= 225:
        raise DamagedError(artefact, "impossible LZMA properties")
    rest, lc = divmod(data[0], 9)
    pb, lp = divmod(rest, 5)
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": _window(plain), "lc": lc, "lp": lp, "pb": pb}]
    try:
        machine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        result = machine.decompress(data[1:], plain + 1)
    except lzma.LZMAError as error:
        raise DamagedError(artefact, "compressed bytes can't be decompressed") from error
    if len(result) != plain or not machine.eof or machine.unused_data:
        raise DamagedError(artefact, f"decompresses to another length than {plain}")
    return result


def _window(plain: int) -> int:
    """Bytes of LZMA's window for so many bytes: all of them."""
    return max(_SMALLEST_WINDOW, 1 << max(0, plain - 1).bit_length())
