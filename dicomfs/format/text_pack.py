"""Text packs: the stored form of a shared text.

Owns their contents, one stream; what a shared text is, says `shared_texts`.
"""

from __future__ import annotations

from typing import BinaryIO

from dicomfs.errors import DamagedError
from dicomfs.format.header_columns import pack_text, unpack_text
from dicomfs.format.pack import PackSummary, PackWriter
from dicomfs.format.pack_reader import PackReader
from dicomfs.format.version import MAX_CHUNK
from dicomfs.model import PackKind


def write_text(file: BinaryIO, archive_id: bytes, data: bytes) -> PackSummary:
    """Write a text pack; ``data`` has 1 to 1,048,576 bytes."""
    writer = PackWriter(file, PackKind.TEXT, archive_id)
    stored = pack_text(data)
    stream = writer.add_stream(len(stored))
    for start in range(0, len(stored), MAX_CHUNK):
        writer.add_chunk(stream, start, stored[start : start + MAX_CHUNK])
    return writer.finish()


def read_text(pack: PackReader) -> bytes:
    """The text of a text pack; DamagedError, UnsupportedFeature for an unknown dictionary."""
    if pack.kind is not PackKind.TEXT or len(pack.streams) != 1 or pack.streams[0].length > 2 * MAX_CHUNK:
        raise DamagedError(pack.name, "holds no shared text")
    return unpack_text(pack.read_stream(0, 0, 2 * MAX_CHUNK), pack.name)
