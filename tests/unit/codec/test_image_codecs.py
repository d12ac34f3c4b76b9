"""Checks of stream headers, and encoders that are not to be trusted."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest

from dicomfs.codec.base import Planes, Settings, put_varint
from dicomfs.codec.jpegls import JpegLs
from dicomfs.codec.jxl import JpegXl
from dicomfs.codec.video import Ffv1, Hevc
from dicomfs.errors import CodecError

QUICK = Settings(effort=3)


def planes(count: int = 3, rows: int = 64, columns: int = 64, bits: int = 12) -> Planes:
    rng = np.random.default_rng(9)
    words = np.cumsum(rng.integers(-9, 10, (count, rows, columns)), axis=2) + (1 << bits - 1)
    return np.clip(words, 0, (1 << bits) - 1).astype(np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize("offset, value", [(0, 0), (6, 13), (8, 200), (10, 200), (11, 3), (24, 1)])
def test_a_jpeg_ls_header_that_promises_something_else_is_refused(offset: int, value: int) -> None:
    wanted = planes()
    payload = bytearray(JpegLs().encode(wanted, 12, QUICK))
    payload[2 + offset] = value
    with pytest.raises(CodecError):
        dict(JpegLs().decode(memoryview(payload), wanted.shape, wanted.dtype, 12, [0]))


def test_a_jpeg_xl_codestream_that_promises_more_pixels_is_refused() -> None:
    wanted = planes()
    large = JpegXl().encode(planes(rows=512, columns=512), 12, QUICK)
    with pytest.raises(CodecError, match="another size"):
        dict(JpegXl().decode(memoryview(large), wanted.shape, wanted.dtype, 12, [0]))


def test_jpeg_xl_refuses_a_container_at_decoding() -> None:
    wanted = planes(1)
    stream = struct.pack(">I4sI", 12, b"JXL ", 0x0D0A870A)
    payload = b"\0" + put_varint(len(stream)) + stream
    with pytest.raises(CodecError, match="bare"):
        dict(JpegXl().decode(memoryview(payload), wanted.shape, wanted.dtype, 12, [0]))


def test_jpeg_xl_groups_frames_that_repeat() -> None:
    alike = np.repeat(planes(1, bits=16), 8, axis=0)
    payload = JpegXl().encode(alike, 16, QUICK)
    assert payload[0] == 1
    found = dict(JpegXl().decode(memoryview(payload), alike.shape, alike.dtype, 16, [1, 5, 7]))
    assert sorted(found) == [1, 5, 7]
    assert all(np.array_equal(found[index], alike[index]) for index in found)


@pytest.mark.parametrize(
    "rows, columns", [(32, 32), (64, 64), (200, 64), (64, 200), (33, 47), (130, 129), (300, 70)]
)
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_hevc_is_exact_for_narrow_pictures(rows: int, columns: int, bits: int) -> None:
    wanted = planes(6, rows, columns, bits)
    payload = memoryview(Hevc().encode(wanted, bits, QUICK))
    found = dict(Hevc().decode(payload, wanted.shape, wanted.dtype, bits, range(6)))
    assert all(np.array_equal(found[index], plane) for index, plane in enumerate(wanted))


def test_hevc_refuses_what_its_encoder_did_not_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(_self: Hevc, _shape: object, _effort: int) -> list[dict[str, str]]:
        return [{"preset": "fast", "x265-params": "log-level=none:crf=30:pools=none:repeat-headers=0"}]

    monkeypatch.setattr(Hevc, "options", lossy)
    with pytest.raises(CodecError, match="not exact"):
        Hevc().encode(planes(), 12, QUICK)


@pytest.mark.parametrize("codec", [JpegLs(), JpegXl(), Ffv1(), Hevc()], ids=lambda codec: codec.name)
def test_image_codecs_refuse_samples_deeper_than_their_type(codec: JpegLs | JpegXl | Ffv1 | Hevc) -> None:
    with pytest.raises(CodecError):
        codec.encode(planes(bits=8), 9, QUICK)


def test_nothing_is_written_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    for codec in (Ffv1(), Hevc()):
        payload = bytearray(codec.encode(planes(), 12, QUICK))
        payload[-9:] = b"\xff" * 9
        with contextlib.suppress(CodecError):
            dict(codec.decode(memoryview(payload), (3, 64, 64), np.dtype(np.uint16), 12, [2]))
    assert capfd.readouterr() == ("", "")
