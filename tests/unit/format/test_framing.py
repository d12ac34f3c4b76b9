"""Sections: what is written is found again, also between damage."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import pytest

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.framing import SectionWriter, open_section, scan_sections
from dicomfs.format.version import SECTION_MAGIC
from tests.format_samples import CountingReader

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def _object(*payloads: bytes) -> bytes:
    file = io.BytesIO()
    writer = SectionWriter(file)
    for payload in payloads:
        writer.add(2, (payload,))
    return file.getvalue()


class _OneByteFile(io.BytesIO):
    """Takes one byte a call, as an unbuffered file may."""

    def write(self, data: ReadableBuffer) -> int:
        return super().write(memoryview(data)[:1])


class _FailingFile(io.BytesIO):
    def write(self, data: ReadableBuffer) -> int:
        raise OSError(28, "No space left on device")


def test_a_section_comes_back_with_its_payload() -> None:
    data = _object(b"payload")
    header, payload = open_section(data, 0, 100, "x")
    assert (header.kind, header.number, header.optional, payload) == (2, 0, False, b"payload")


def test_a_section_at_another_offset_is_refused() -> None:
    data = _object(b"payload")
    with pytest.raises(DamagedError, match="check"):
        open_section(data, 8, 100, "x")


def test_a_section_above_the_limit_is_refused_before_it_is_decompressed() -> None:
    with pytest.raises(DamagedError, match="at most 3"):
        open_section(_object(b"payload"), 0, 3, "x")


def test_the_writer_hashes_and_counts_what_it_wrote() -> None:
    file = _OneByteFile()
    writer = SectionWriter(file)
    writer.add(2, (b"first", b"second"))
    assert writer.size == len(file.getvalue())
    assert writer.sha256 == hashlib.sha256(file.getvalue()).hexdigest()


def test_a_writer_is_unusable_after_a_failed_write() -> None:
    writer = SectionWriter(_FailingFile())
    with pytest.raises(OSError, match="No space"):
        writer.add(2, (b"x",))
    with pytest.raises(FormatError, match="earlier write failed"):
        writer.add(2, (b"x",))


def test_a_scan_finds_all_sections_in_order() -> None:
    data = _object(b"a", b"", b"c" * 3_000_000)
    assert [s.number for s in scan_sections(CountingReader(data), len(data), "x")] == [0, 1, 2]


def test_a_scan_goes_on_behind_a_damaged_section() -> None:
    data = bytearray(_object(b"a", b"b" * 2_000_000, b"c"))
    data[500_000] ^= 1
    assert [s.number for s in scan_sections(CountingReader(bytes(data)), len(data), "x")] == [0, 2]


def test_a_scan_goes_on_behind_garbage_and_a_truncated_section() -> None:
    data = _object(b"a", b"b" * 1000, b"c")
    damaged = data[:100] + bytes(17) + data[100:]
    found = list(scan_sections(CountingReader(damaged), len(damaged), "x"))
    assert [s.number for s in found] == [0], "what lies behind was moved, thus is not this object's"


def test_a_scan_does_not_take_sections_of_a_pack_inside_a_payload() -> None:
    inner = _object(b"x", b"y")
    data = bytearray(_object(b"a", inner, b"c"))
    data[len(_object(b"a")) + 16] ^= 1
    assert [s.number for s in scan_sections(CountingReader(bytes(data)), len(data), "x")] == [0, 2]


def test_a_scan_gives_up_on_an_object_made_of_false_sections() -> None:
    size = 1 << 20
    claim = SECTION_MAGIC + bytes([2, 0, 0, 0]) + bytes(4)
    claim += (size // 2).to_bytes(8, "little") * 2 + bytes(8)
    data = claim * (size // len(claim))
    with pytest.raises(DamagedError, match="too many false sections"):
        list(scan_sections(CountingReader(data), len(data), "x"))
