"""What the transform finds in the words of a band."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dicomfs.codec.planes import SamplePlanes, parse_header, to_planes, to_raw
from dicomfs.errors import CodecError
from dicomfs.model import PixelLayout

ROWS, COLUMNS, FRAMES = 24, 32, 3
LAYOUT = PixelLayout(ROWS, COLUMNS, 1, 16, 12, 11, signed=False)


def smooth(low: int, high: int) -> npt.NDArray[np.int64]:
    """Return words that rise from ``low`` to ``high`` along each row, with some noise."""
    rng = np.random.default_rng(3)
    line = np.linspace(low, high, COLUMNS).astype(np.int64)
    spread = (high - low) // COLUMNS
    words: npt.NDArray[np.int64] = line + rng.integers(-spread, spread + 1, (FRAMES, ROWS, COLUMNS))
    return np.clip(words, low, high)


def scattered() -> npt.NDArray[np.int64]:
    """Return a plane of single bits, like the graphics of an overlay."""
    return (np.random.default_rng(4).random((FRAMES, ROWS, COLUMNS)) < 0.2).astype(np.int64)


def transformed(
    words: npt.NDArray[np.int64], layout: PixelLayout = LAYOUT, stored: str = "<u2"
) -> SamplePlanes:
    """Transform the words and check that they come back."""
    raw = (words & 0xFFFF).astype(stored).view(np.uint8).reshape(FRAMES, -1)
    found = to_planes(raw, layout, ROWS)
    parsed = parse_header(memoryview(found.header), layout, ROWS, FRAMES)
    for index, frame in enumerate(raw):
        assert [*to_raw(parsed, index, found.planes[index : index + 1], layout)] == [frame.tobytes()]
    return found


def test_the_minimum_is_subtracted() -> None:
    found = transformed(smooth(1000, 1200))
    assert (found.bits, int(found.planes.min()), found.planes.itemsize) == (8, 0, 1)


def test_signed_words_count_from_their_minimum_whatever_the_hint_says() -> None:
    assert transformed(smooth(-1024, 1000)).bits == 11


def test_signed_samples_without_sign_extension_are_rotated() -> None:
    found = transformed(smooth(-500, 500) & 0xFFF)
    assert (found.bits, int(found.planes.max())) == (10, 1000)


def test_a_padding_value_far_below_all_others_lands_just_below_them() -> None:
    words = smooth(-1024, 900)
    words[:, :4] = -2000
    found = transformed(words)
    assert found.bits == 11
    assert set(np.unique(found.planes[:, :4])) == {0}
    assert int(found.planes[:, 4:].min()) == 1


def test_samples_in_the_upper_bits_are_moved_down() -> None:
    assert transformed(smooth(0, 4095) << 4).bits == 12


def test_overlay_bits_above_the_samples_become_a_plane_of_their_own() -> None:
    words = smooth(0, 4095)
    words |= scattered() << 15
    assert transformed(words).bits == 12


def test_an_overlay_is_found_without_the_help_of_bits_stored() -> None:
    words = smooth(0, 4095)
    words |= scattered() << 15
    assert transformed(words, PixelLayout(ROWS, COLUMNS, 1, 16, 16, 15, signed=False)).bits == 12


def test_the_other_byte_order_is_recognised_against_the_hint() -> None:
    assert transformed(smooth(0, 4095), stored=">u2").bits == 12


def test_equal_words_leave_nothing_to_code() -> None:
    assert transformed(np.full((FRAMES, ROWS, COLUMNS), -2000)).bits == 0


@pytest.mark.parametrize("bits_allocated", [1, 12, 32, 64])
def test_only_words_of_8_and_16_bits_have_sample_planes(bits_allocated: int) -> None:
    layout = PixelLayout(2, 8, 1, bits_allocated, bits_allocated, bits_allocated - 1, signed=False)
    with pytest.raises(CodecError):
        to_planes(np.zeros((1, max(1, layout.frame_bytes)), np.uint8), layout, 2)


def test_a_header_that_makes_no_sense_is_refused() -> None:
    header = transformed(smooth(1000, 1200)).header
    broken = [
        header[:-1],
        b"\xff" + header[1:],
        header[:1] + b"\x09\x09" + header[3:],
        header[:3] + b"\x11" + header[4:],
    ]
    broken.append(header[:12] + b"\x01\x00\x00")
    for damaged in broken:
        with pytest.raises(CodecError):
            parse_header(memoryview(damaged), LAYOUT, ROWS, FRAMES)
