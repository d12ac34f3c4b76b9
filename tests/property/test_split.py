"""Whatever the bytes, the scan never raises and the runs of the split join to the file."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests import samples
from tests.conftest import real_files
from tests.fuzz.target import exercise
from tests.samples import BIG, LITTLE, PIXEL_DATA, PLAIN, UNDEFINED, Writing

SYNTHETIC = [*samples.odd_files().values(), *samples.junk().values()]
SMALL_REAL = [path for path in real_files("odd") if path.stat().st_size < 20_000][::3]
VRS = [
    "AE",
    "CS",
    "DS",
    "FD",
    "IS",
    "LO",
    "OB",
    "OW",
    "PN",
    "SQ",
    "UI",
    "UL",
    "UN",
    "US",
    "UT",
    "ZZ",
    "??",
    "\0\0",
]
KNOWN_TAGS = [0x00080005, 0x00080018, 0x00080060, 0x00100010, 0x00280008, 0x00280010, 0x00280011, 0x00280100]
SPECIAL_TAGS = [0, 0x00020010, 0x52009230, 0x7FE00008, PIXEL_DATA, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD]
TAGS = st.sampled_from(KNOWN_TAGS + SPECIAL_TAGS) | st.integers(0, 0xFFFFFFFF)
LENGTHS = (
    st.none() | st.sampled_from([0, 1, UNDEFINED, UNDEFINED - 1, 0x7FFFFFFF, 0x10000]) | st.integers(0, 300)
)
WRITINGS = st.sampled_from([LITTLE, PLAIN, BIG, Writing(explicit=False, big=True)])


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> bytes:
    """A run of elements, more or less well-formed, in any mixture of encodings."""
    how = draw(WRITINGS)
    out = b""
    for _ in range(draw(st.integers(0, 5))):
        shape = draw(st.integers(0, 3)) if depth else 0
        tag, vr = draw(TAGS), draw(st.sampled_from(VRS))
        if shape == 0:
            out += how.element(tag, vr, draw(st.binary(max_size=40)), length=draw(LENGTHS))
        elif shape == 1:
            items = draw(st.lists(elements(depth - 1), max_size=3))
            out += how.sequence(
                tag, items, undefined=draw(st.booleans()), vr=vr, open_items=draw(st.booleans())
            )
        elif shape == 2:
            out += how.fragments(draw(st.lists(st.binary(max_size=20), max_size=4)), tag=tag)
        else:
            out += how.delimiter(
                draw(st.sampled_from([samples.ITEM, samples.ITEM_END, samples.SEQUENCE_END]))
            )
        if draw(st.booleans()):
            how = draw(WRITINGS)
    return out


@st.composite
def mutated(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """A file with a few bytes changed, dropped, doubled or cut off."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == 2:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        else:
            del data[at:]
    return bytes(data)


@settings(max_examples=150, deadline=5000)
@given(st.binary(max_size=4096))
def test_random_bytes_split_and_join(data: bytes) -> None:
    exercise(data)


@settings(max_examples=150, deadline=5000)
@given(
    elements(),
    st.sampled_from([samples.EXPLICIT, samples.IMPLICIT, samples.BIG_ENDIAN, samples.DEFLATED, "1.2.3", ""]),
)
def test_any_structure_splits_and_joins(content: bytes, syntax: str) -> None:
    exercise(content)
    exercise(samples.part10(content, syntax))


@settings(max_examples=200, deadline=5000)
@given(mutated(SYNTHETIC))
def test_damaged_synthetic_files_split_and_join(data: bytes) -> None:
    exercise(data)


@settings(max_examples=100, deadline=5000)
@given(st.data())
def test_damaged_real_files_split_and_join(data: st.DataObject) -> None:
    files = [path.read_bytes() for path in _some(SMALL_REAL)] or SYNTHETIC
    exercise(data.draw(mutated(files)))


def _some(paths: list[Path]) -> list[Path]:
    return paths[:40]
