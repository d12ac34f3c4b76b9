"""Blocks of columns: what goes in comes out, small where headers are alike, by two readers."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicomfs.errors import FormatError, UnsupportedFeature
from dicomfs.format import dictionaries, header_blocks
from dicomfs.format.header_blocks import Block, make_blocks, make_joint_block
from dicomfs.format.header_columns import assemble, templates_of, unpack
from tests import samples
from tests.conftest import CHECKOUT
from tests.independent_headers import plain_block


def blocks_of(headers: Sequence[bytes]) -> list[Block]:
    """Blocks of some headers, after both readers gave these back."""
    blocks = list(make_blocks(headers))
    at = 0
    for number, block in enumerate(blocks):
        plain = b"".join(headers[at : at + block.rows])
        base = None if block.base is None else blocks[number - block.base].payload
        templates = None if base is None else templates_of(unpack(base, "base"), "base")
        size = len(plain)
        assert block.plain == plain
        assert assemble(unpack(block.payload, "block"), templates, block.rows, size, "block") == plain
        assert plain_block(block.payload, base, block.rows, size) == plain
        at += block.rows
    assert at == len(headers)
    return blocks


def stored(headers: Sequence[bytes]) -> float:
    """Bytes a header."""
    return sum(len(block.payload) for block in blocks_of(headers)) / len(headers)


def test_series_of_a_study_keep_their_own_templates_in_one_block() -> None:
    first = [data[:-128] for data in samples.ct_series(20, 8, 8, 5)]
    second = [data[:-128] for data in samples.ct_series(18, 8, 8, 6, patient="Sample^Patient", series="x")]
    mixed = [samples.enhanced_mr(3 + number, 4, 4)[:2000] for number in range(3)]
    series = [first, second, mixed]
    block = make_joint_block(series)
    plain = b"".join(header for each in series for header in each)
    assert (block.rows, block.plain, block.base) == (41, plain, None)
    assert assemble(unpack(block.payload, "block"), None, 41, len(plain), "block") == plain
    assert plain_block(block.payload, None, 41, len(plain)) == plain
    assert len(block.payload) < sum(stored(each) * len(each) for each in series)


def text(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element in explicit little-endian, padded."""
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def series(make: Callable[[int], bytes], count: int = 200) -> list[bytes]:
    """Headers with a long part that is always the same, and one element."""
    same = text(0x00080070, b"LO", b"the maker") + text(
        0x00181030, b"LO", random.Random(1).randbytes(600).hex().encode()
    )
    return [same + make(row) for row in range(count)]


@pytest.mark.parametrize(
    "make",
    [
        lambda row: text(0x00200013, b"IS", b"%d" % row),
        lambda row: text(0x00201041, b"DS", b"%.3f" % (row * 1.25 - 40)),
        lambda row: (
            text(0x00200032, b"DS", b"-1.5\\2\\%.6f" % (row * 3 - 66)) + text(0x00201041, b"DS", b"%d" % row)
        ),
        lambda row: text(0x00080032, b"TM", b"%02d%02d%02d.250000" % (row // 60 % 24, row % 60, 30)),
        lambda row: text(0x00080018, b"UI", b"1.2.840.113619.2.1.%d" % (row * 7 + 1)),
        lambda row: text(0x00280107, b"US", struct.pack("<H", 3 * row)),
        lambda row: text(0x00280107, b"US", struct.pack(">H", 3 * row)),
        lambda row: text(0x00201041, b"DS", b"%16d" % row),
        lambda row: text(0x00080032, b"TM", b"%02d%02d%02d" % (row // 60 % 24, row % 60, 30)),
        lambda row: (
            text(0x00280106, b"SS", struct.pack("<h", row - 100)) + text(0x00281050, b"DS", b"%d" % (row * 2))
        ),
        lambda row: text(0x00180081, b"DS", b"%g" % (row / 8)),
        lambda row: text(0x0008103E, b"LO", b"Slice %d of 200" % row) if row % 2 else b"",
    ],
)
def test_what_follows_from_the_number_of_a_header_costs_less_than_a_byte_each(
    make: Callable[[int], bytes],
) -> None:
    constant = stored([series(make)[0]])
    assert stored(series(make)) * 200 - constant < 200


def test_a_value_that_stands_twice_is_stored_once() -> None:
    source = random.Random(2)
    numbers = [source.randrange(10**36, 10**37) for _ in range(200)]
    once = series(lambda row: text(0x00080018, b"UI", b"1.2.%d" % numbers[row]))
    twice = series(
        lambda row: (
            text(0x00080018, b"UI", b"1.2.%d" % numbers[row])
            + text(0x0020000E, b"UI", b"1.2.%d" % numbers[row])
        )
    )
    assert 200 * stored(once) < 200 * 15.6 + stored(once[:1])
    assert stored(twice) - stored(once) < 0.5


def test_random_digits_take_no_more_than_they_say() -> None:
    source = random.Random(3)
    headers = series(lambda _: text(0x00080018, b"UI", b"2.25.%038d" % source.randrange(10**38)))
    assert 200 * stored(headers) < 200 * 16 + stored(headers[:1])


def test_later_blocks_of_a_series_use_the_templates_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_blocks, "BLOCK_ROWS", 50)
    first, *others = blocks_of(series(lambda row: text(0x00200013, b"IS", b"%d" % row)))
    assert first.base is None
    assert [other.base for other in others] == [1, 2, 3]
    assert all(len(other.payload) < 40 for other in others)


def _header(data: bytes) -> bytes:
    at = data.find(struct.pack("<HH", 0x7FE0, 0x0010))
    return data[: at + 12]


@pytest.mark.parametrize("syntax", [samples.IMPLICIT, samples.BIG_ENDIAN, samples.EXPLICIT])
def test_headers_in_all_encodings_cost_tens_of_bytes(syntax: str) -> None:
    files = samples.ct_series(60, 8, 8, 5, syntax=syntax)
    headers = [data[:-128] for data in files]
    assert len(headers[0]) > 500
    assert stored(headers) < 60


def test_files_of_any_kind_come_back_as_headers() -> None:
    odd = [data[: 1 << 16] for data in samples.odd_files().values()]
    several = [*odd, samples.enhanced_mr(12, 8, 8), samples.enhanced_mr(5, 8, 8), samples.structured_report()]
    blocks_of(several)
    for data in several:
        blocks_of([data, data[:-3], data[1:], data[: len(data) // 2], data])


def _mutated(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.randrange(4)):
        at = source.randrange(len(changed))
        changed[at : at + source.randrange(3)] = source.randbytes(source.randrange(3))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(12))
def test_headers_with_any_change_come_back(seed: int) -> None:
    source = random.Random(seed)
    files = [samples.enhanced_mr(4, 4, 4), *samples.ct_series(4, 4, 4, 1), csa_file(3), csa_file(40)]
    blocks_of([_mutated(source.choice(files)[:6000], source) for _ in range(20)])


def csa_file(number: int) -> bytes:
    """An element with a Siemens CSA header of three tags, one of them without items."""
    tags = b""
    for name, items in (
        (b"ICE_Dims", [b"X_%d_1" % number]),
        (b"B_matrix", []),
        (b"EchoTime", [b"%d.5" % number] * 6),
    ):
        tags += struct.pack("<64si4siii", name, 1, b"DS", 6, len(items), 77)
        for item in items:
            tags += struct.pack("<iiii", len(item), len(item), 77, len(item)) + item + bytes(-len(item) % 4)
    value = b"SV10\4\3\2\1" + struct.pack("<II", 3, 77) + tags
    return struct.pack("<HH2sHL", 0x0029, 0x1010, b"OB", 0, len(value)) + value


def test_values_in_siemens_headers_are_columns() -> None:
    headers = [csa_file(number) for number in range(10, 60)]
    assert stored(headers) * 50 - stored(headers[:1]) < 150


_HEADERS = st.lists(st.binary(max_size=60), min_size=1, max_size=12)
_VALUES = st.lists(
    st.from_regex(rb"\A-?[0-9]{0,5}(\.[0-9]{0,4})?[ \\0]?\Z", fullmatch=True), min_size=2, max_size=10
)
_NUMBERS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=2, max_size=12)


@settings(max_examples=150, deadline=None)
@given(_HEADERS)
def test_any_bytes_come_back(headers: list[bytes]) -> None:
    blocks_of(headers)


@settings(max_examples=150, deadline=None)
@given(_VALUES)
def test_anything_like_a_number_comes_back(values: list[bytes]) -> None:
    blocks_of([text(0x00201041, b"DS", value) for value in values])


@settings(max_examples=100, deadline=None)
@given(_NUMBERS, st.integers(-3, 3))
@example([0, -(1 << 63), 1], 0)
def test_binary_numbers_and_their_multiples_come_back(values: list[int], factor: int) -> None:
    headers = []
    for value in values:
        pair = struct.pack("<qQ", value, (value * factor) % (1 << 64))
        headers.append(struct.pack("<HH2sH", 0x0019, 0x1001, b"FD", 16) + pair)
    blocks_of(headers)


def test_the_dictionary_is_the_one_that_was_shipped() -> None:
    path = CHECKOUT / "dicomfs" / "format" / "dictionaries" / "1.zdict"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == "13bb010f278463765a295d06598662a5a28ef563c8c1642637d2eb82f6b63552", (
        "blocks were written with it: another dictionary gets the next number"
    )
    assert found[:32] in (CHECKOUT / "docs" / "format.md").read_text()
    assert len(path.read_bytes()) <= 64 << 10


def test_a_dictionary_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.zdict").write_bytes(b"another")
    dictionaries.dictionary.cache_clear()
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    with pytest.raises(FormatError, match="is not the one that was shipped"):
        dictionaries.dictionary(1)
    dictionaries.dictionary.cache_clear()


def test_an_unknown_dictionary_is_an_unsupported_feature() -> None:
    with pytest.raises(UnsupportedFeature):
        unpack(bytes([18, 1, 1]) + bytes(6) + b"x", "block")
