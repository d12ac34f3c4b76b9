"""Band payloads written by earlier versions still decode to the same bytes.

The files in ``bands/`` are never written again: a change that needs new ones breaks the format.  A file is
named ``<codec>-<content>-<format version>.band``; what it holds follows from the formulas below.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dicomfs.codec.base import CodecId
from dicomfs.codec.segment import decode_band
from dicomfs.model import PixelLayout

BANDS = Path(__file__).parent / "bands"
FRAMES, ROWS, COLUMNS = 4, 40, 64


def content(kind: str) -> tuple[PixelLayout, npt.NDArray[np.uint8]]:
    """Return layout and raw bytes of the content of that name: integers only, no generator involved."""
    frame, row, column = np.indices((FRAMES, ROWS, COLUMNS))
    words = (
        frame * 3 + row * 7 + column * 11 + (row * column) % 13 + (row * row + column * frame) % 5
    ) % 1500
    if kind == "colour":
        three = np.stack([words % 256, (words + row) % 256, (words * 3) % 251], axis=3)
        return PixelLayout(ROWS, COLUMNS, 3, 8, 8, 7, signed=False), three.astype(np.uint8).reshape(
            FRAMES, -1
        )
    if kind in {"float", "scaled"}:
        return wide_content(kind, words)
    stored = "<u2"
    if kind == "signed":
        words = np.where(column < 5, -2000, words - 1024)
    elif kind == "overlay":
        words = words | ((row * 5 + column * 3 + row * column) % 7 < 2).astype(np.int64) << 15
    elif kind == "swapped":
        stored = ">u2"
    raw: npt.NDArray[np.uint8] = (words & 0xFFFF).astype(stored).view(np.uint8)
    return PixelLayout(ROWS, COLUMNS, 1, 16, 12, 11, kind == "signed", kind == "swapped"), raw.reshape(
        FRAMES, -1
    )


def wide_content(kind: str, words: npt.NDArray[np.int64]) -> tuple[PixelLayout, npt.NDArray[np.uint8]]:
    """As `content`, of words of 32 bits: no operation rounds otherwise on another machine."""
    if kind == "float":
        values = ((words * words - 5000) / np.float64(7)).astype("<f4").view(np.uint8)
    else:
        values = ((words % 50 - 20) * 123_457).astype("<i4").view(np.uint8)
    layout = PixelLayout(ROWS, COLUMNS, 1, 32, 32, 31, kind == "scaled", is_float=kind == "float")
    return layout, values.reshape(FRAMES, -1)


@pytest.mark.parametrize("path", sorted(BANDS.glob("*.band")), ids=lambda path: path.stem)
def test_a_band_written_by_an_earlier_version_decodes_to_the_same_bytes(path: Path) -> None:
    codec, kind, _ = path.stem.split("-")
    layout, raw = content(kind)
    found = decode_band(path.read_bytes(), layout, ROWS, FRAMES, CodecId[codec.upper()])
    assert found == {index: frame.tobytes() for index, frame in enumerate(raw)}


def test_every_codec_has_bands_to_stay_compatible_with() -> None:
    streams_of_their_own = {CodecId.FAST, CodecId.DENSE}
    assert {path.stem.split("-")[0] for path in BANDS.glob("*.band")} == {
        codec.name.lower() for codec in set(CodecId) - streams_of_their_own
    }
