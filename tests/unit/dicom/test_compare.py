"""Two files of one instance differ by truncation, encoding, attributes or pixels."""

from __future__ import annotations

import pytest

from dicomfs.dicom.compare import complete, conflict_class
from dicomfs.dicom.part10 import scan
from dicomfs.model import ConflictClass
from tests import samples
from tests.samples import BIG, BIG_ENDIAN, EXPLICIT, IMPLICIT, LITTLE, PIXEL_DATA, PLAIN, Attribute, Writing

HEAD: list[Attribute] = [
    *samples.identity(),
    *samples.plane(1.0),
    *samples.image(4, 4),
    (0x00186020, "SL", -3),
]
WORDS = list(range(16))


def build(
    how: Writing = LITTLE, extra: list[Attribute] | None = None, words: list[int] = WORDS, tail: bytes = b""
) -> bytes:
    pixels = b"".join(word.to_bytes(2, "big" if how.big else "little") for word in words)
    syntax = BIG_ENDIAN if how.big else EXPLICIT if how.explicit else IMPLICIT
    nested = how.sequence(
        0x00081140,
        [how.element(0x00081150, "UI", "1.2.3") + how.element(0x00081155, "UI", "1.2.4")],
        undefined=not how.big,
    )
    head = [a for a in HEAD if a[0] not in {e[0] for e in extra or []}] + (extra or [])
    low, high = [a for a in head if a[0] < 0x00081140], [a for a in head if a[0] > 0x00081140]
    content = (
        samples.write(low, how)
        + nested
        + samples.write(high, how)
        + how.element(PIXEL_DATA, "OW", pixels)
        + tail
    )
    return samples.part10(content, syntax)


def both_ways(one: bytes, two: bytes) -> ConflictClass:
    found = conflict_class(one, two)
    assert conflict_class(two, one) == found
    return found


def test_equal_bytes_are_no_conflict() -> None:
    assert both_ways(build(), build()) == ConflictClass.NONE


@pytest.mark.parametrize("cut", [1, 10, 40, 300])
def test_the_beginning_of_a_file_is_truncated(cut: int) -> None:
    assert both_ways(build(), build()[:-cut]) == ConflictClass.TRUNCATED


def test_another_file_that_stops_within_a_value_is_truncated() -> None:
    assert both_ways(build(), build(PLAIN)[:-3]) == ConflictClass.TRUNCATED


@pytest.mark.parametrize(
    "other",
    [
        build(PLAIN),
        build(BIG),
        build(extra=[(0x00080000, "UL", 400)]),
        build(extra=[(0x00100010, "PN", b"Sample^Patient  ")]),
        build(tail=bytes(2)) + bytes(8),
        build()[132:],
    ],
)
def test_the_same_object_in_another_encoding(other: bytes) -> None:
    changed = build() if other[: len(build())] != build() else build(PLAIN)
    assert both_ways(changed, other) == ConflictClass.ENCODING


@pytest.mark.parametrize(
    "extra", [[(0x00100010, "PN", "Other^Name")], [(0x00104000, "LT", "added")], [(0x00186020, "SL", 3)]]
)
def test_other_attributes_with_the_same_pixels(extra: list[Attribute]) -> None:
    assert both_ways(build(), build(extra=extra)) == ConflictClass.ATTRIBUTES
    assert both_ways(build(PLAIN), build(BIG, extra=extra)) == ConflictClass.ATTRIBUTES


@pytest.mark.parametrize(
    "vr,value",
    [
        ("LO", "private"),
        ("LO", "odd"),
        ("DS", " 1.5"),
        ("FD", 2.5),
        ("US", 7),
        ("UN", b"\1\2\3\4"),
        ("LO", ""),
    ],
)
def test_a_private_attribute_without_its_representation_is_the_same(vr: str, value: samples.Value) -> None:
    extra: list[Attribute] = [(0x00290010, "LO", "SAMPLE WORKS 1"), (0x00291001, vr, value)]
    assert both_ways(build(extra=extra), build(PLAIN, extra=extra)) == ConflictClass.ENCODING


def test_a_private_sequence_without_its_representation_is_the_same() -> None:
    files = []
    for how in (LITTLE, PLAIN):
        creator = how.element(0x7FDF0010, "LO", "SAMPLE WORKS 1")
        private = how.sequence(0x7FDF1001, [how.element(0x00081150, "UI", "1.2.3")])
        data_set = samples.write(HEAD, how) + creator + private + how.element(PIXEL_DATA, "OW", bytes(32))
        files.append(samples.part10(data_set, EXPLICIT if how.explicit else IMPLICIT))
    assert both_ways(*files) == ConflictClass.ENCODING


def test_other_pixels() -> None:
    assert both_ways(build(), build(words=[1, *WORDS[1:]])) == ConflictClass.PIXELS
    assert both_ways(build(), build(BIG, words=[1, *WORDS[1:]])) == ConflictClass.PIXELS
    assert both_ways(build(), samples.part10(samples.write(HEAD))) == ConflictClass.PIXELS


def test_double_words_under_ow_are_swapped_by_words() -> None:
    little, big = bytes(range(64)), bytes(value ^ 1 for value in range(64))
    head = [*samples.identity(), *samples.image(4, 4, bits=32)]
    one = samples.part10(samples.write([*head, (PIXEL_DATA, "OW", little)]))
    two = samples.part10(samples.write([*head, (PIXEL_DATA, "OW", big)], BIG), BIG_ENDIAN)
    assert both_ways(one, two) == ConflictClass.ENCODING


def test_files_without_pixels_differ_in_attributes() -> None:
    one, two = samples.structured_report(text="one"), samples.structured_report(text="two")
    assert both_ways(one, two) == ConflictClass.ATTRIBUTES


def test_an_encapsulated_value_is_compared_by_its_bytes() -> None:
    one = samples.encapsulated([b"first!", b"second"], suffix=LITTLE.element(0x7FE10010, "LO", "x "))
    other_tail = samples.encapsulated([b"first!", b"second"], suffix=LITTLE.element(0x7FE10010, "LO", "y "))
    assert both_ways(one, samples.encapsulated([b"first!", b"SECOND"])) == ConflictClass.PIXELS
    assert both_ways(one, other_tail) == ConflictClass.ATTRIBUTES


def test_deflated_files_are_never_taken_for_equal() -> None:
    one = samples.part10(samples.write(HEAD), samples.DEFLATED)
    two = samples.part10(samples.write([*HEAD, (0x00104000, "LT", "added")]), samples.DEFLATED)
    assert both_ways(one, two) == ConflictClass.PIXELS


def test_complete_says_what_the_scan_found() -> None:
    assert complete(scan(build()))
    assert not complete(scan(build()[:-1]))
