"""Data element headers and undefined-length values of the Part 10 encoding (PS3.5 section 7).

Owns reading one element header in any of the four encodings, stepping over values of undefined length, and
judging by trial which encoding a run of bytes follows.  Does not own what elements mean, nor the file's frame
(preamble, meta group): that is `part10`.  Nothing here recurses or raises on any input; every step moves
forward, and the number of steps is limited by a `Budget`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD

MAX_ELEMENTS = 1_000_000
"""Elements, items and fragments that one scan looks at; what has more is stored unsplit."""
MAX_FRAGMENTS = 1 << 18
SEARCH_START, SEARCH_CHUNK = 1 << 8, 1 << 20

LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"}
    | {b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
KNOWN_VRS = LONG_VRS | SHORT_VRS
TRIAL_ELEMENTS = 6


@dataclass(frozen=True, slots=True)
class Encoding:
    """How element headers are written: compiled readers for one byte order."""

    explicit: bool
    big_endian: bool
    head: struct.Struct
    """Group, element, 32-bit length."""
    short: struct.Struct
    """16-bit length."""
    long: struct.Struct
    """32-bit length."""

    def implicit(self) -> Encoding:
        """The implicit encoding of the same byte order."""
        return ENCODINGS[False, self.big_endian]

    def tag_bytes(self, tag: int) -> bytes:
        """A tag as it stands in the file."""
        return struct.pack(">HH" if self.big_endian else "<HH", tag >> 16, tag & 0xFFFF)


ENCODINGS = {
    (explicit, big): Encoding(
        explicit, big, struct.Struct(order + "HHL"), struct.Struct(order + "H"), struct.Struct(order + "L")
    )
    for explicit in (False, True)
    for big, order in ((False, "<"), (True, ">"))
}


class Budget:
    """Work left for one scan."""

    __slots__ = ("left",)

    def __init__(self, left: int = MAX_ELEMENTS) -> None:
        self.left = left

    def spend(self) -> bool:
        """Take one step; False when nothing is left."""
        self.left -= 1
        return self.left >= 0


Header = tuple[int, bytes, int, int]
"""Tag, value representation (b'' where none is written), offset of the value, length as written."""


def read_header(view: memoryview, at: int, end: int, encoding: Encoding) -> Header | None:
    """The element header at ``at``; None where fewer bytes than a header are left before ``end``.

    In an explicit data set an element whose representation is not two capital letters is read as implicit:
    writers are known to switch within a file.
    """
    if at + 8 > end:
        return None
    group, element, length = encoding.head.unpack_from(view, at)
    tag = group << 16 | element
    if not encoding.explicit or group == 0xFFFE:
        return tag, b"", at + 8, length
    vr = bytes(view[at + 4 : at + 6])
    if vr in LONG_VRS:
        if at + 12 > end:
            return None
        return tag, vr, at + 12, encoding.long.unpack_from(view, at + 8)[0]
    if vr in SHORT_VRS or (vr.isalpha() and vr.isupper()):
        return tag, vr, at + 8, encoding.short.unpack_from(view, at + 6)[0]
    if length != UNDEFINED and at + 8 + length > end:
        # Not implicit either: some writers put question marks for a representation they do not know.
        short: int = encoding.short.unpack_from(view, at + 6)[0]
        length = short if at + 8 + short <= end else length
    return tag, b"", at + 8, length


def find(view: memoryview, needle: bytes, at: int, end: int) -> int:
    """Offset of the first occurrence of ``needle`` in [at, end), or -1.

    In pieces, so that memory stays small, and growing ones, so that a search costs what it steps over.
    """
    overlap = len(needle) - 1
    piece = SEARCH_START
    while at < end:
        stop = min(end, at + piece)
        found = bytes(view[at : min(end, stop + overlap)]).find(needle)
        if found >= 0:
            return at + found
        at = stop
        piece = min(2 * piece, SEARCH_CHUNK)
    return -1


def only_zeros(view: memoryview, at: int, end: int) -> bool:
    """Whether [at, end) holds nothing but zero bytes."""
    while at < end:
        stop = min(end, at + SEARCH_CHUNK)
        if bytes(view[at:stop]).strip(b"\0"):
            return False
        at = stop
    return True


def opens_items(view: memoryview, at: int, end: int, encoding: Encoding) -> bool:
    """Whether an item or the end of a sequence stands at ``at``."""
    if at + 8 > end:
        return False
    group, element, _ = encoding.head.unpack_from(view, at)
    return group == 0xFFFE and element in {0xE000, 0xE0DD}


def item_encoding(view: memoryview, at: int, end: int, outer: Encoding) -> Encoding:
    """Encoding inside an item whose first element is at ``at``: implicit items occur in explicit files."""
    if at + 8 > end:
        return outer
    vr = bytes(view[at + 4 : at + 6])
    if vr in KNOWN_VRS:
        return outer
    group, _, _ = outer.head.unpack_from(view, at)
    if not outer.explicit or group == 0xFFFE or (vr.isalpha() and vr.isupper()):
        return outer
    return outer.implicit()


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a value of undefined length ends."""

    value_end: int
    next: int
    """Offset of the element behind it (behind the sequence delimiter)."""
    closed: bool
    """False where the data ended, or the budget, before the delimiter."""


def skip_undefined(view: memoryview, at: int, end: int, encoding: Encoding, budget: Budget) -> Extent:
    """Step over the value of undefined length at ``at``: by its items, else by searching its delimiter."""
    if opens_items(view, at, end, encoding):
        return _skip_items(view, at, end, encoding, budget)
    found = find(view, encoding.tag_bytes(SEQUENCE_END), at, end)
    if found < 0:
        return Extent(end, end, closed=False)
    return Extent(found, min(end, found + 8), closed=found + 8 <= end)


def _skip_items(view: memoryview, at: int, end: int, encoding: Encoding, budget: Budget) -> Extent:
    # One entry per open level: None where items are expected, else the encoding of the open item's elements.
    levels: list[Encoding | None] = [None]
    outer = [encoding]
    while levels and at + 8 <= end and budget.spend():
        inside = levels[-1]
        group, element, length = encoding.head.unpack_from(view, at)
        if group == 0xFFFE and element in {0xE000, 0xE00D, 0xE0DD}:
            if inside is not None:
                levels.pop()
                if element == 0xE000:
                    continue  # the item before was never closed
            if element == 0xE000:
                at += 8
                if length == UNDEFINED:
                    levels.append(item_encoding(view, at, end, outer[-1]))
                else:
                    at += length
                continue
            if element == 0xE0DD:
                levels.pop()
                outer.pop()
                if not levels:
                    return Extent(at, at + 8, closed=True)
            at += 8
        elif inside is None:
            levels.pop()  # neither item nor delimiter: the sequence was never closed
            outer.pop()
            if not levels:
                return Extent(at, at, closed=True)
        else:
            at = _skip_element(view, at, end, inside, (levels, outer))
    return Extent(end, end, closed=False)


def _skip_element(
    view: memoryview,
    at: int,
    end: int,
    inside: Encoding,
    stacks: tuple[list[Encoding | None], list[Encoding]],
) -> int:
    """Offset behind the element at ``at``, or of its first item when a sequence opens (then pushed)."""
    header = read_header(view, at, end, inside)
    if header is None:
        return end
    _, vr, value, length = header
    if length != UNDEFINED or vr in SHORT_VRS:
        return value + length
    if opens_items(view, value, end, inside):
        levels, outer = stacks
        levels.append(None)
        outer.append(inside)
        return value
    found = find(view, inside.tag_bytes(SEQUENCE_END), value, end)
    return end if found < 0 else found + 8


def read_fragments(
    view: memoryview, at: int, end: int, encoding: Encoding, budget: Budget
) -> tuple[list[tuple[int, int]], Extent]:
    """Offset and length of each item value from ``at`` (the Basic Offset Table first), and where they end.

    Where the chain of items breaks, the list is empty and the end is the next delimiter.
    """
    fragments: list[tuple[int, int]] = []
    while at + 8 <= end and budget.spend():
        group, element, length = encoding.head.unpack_from(view, at)
        if group == 0xFFFE and element == 0xE0DD:
            return fragments, Extent(at, at + 8, closed=True)
        if group != 0xFFFE or element != 0xE000 or length == UNDEFINED or len(fragments) >= MAX_FRAGMENTS:
            found = find(view, encoding.tag_bytes(SEQUENCE_END), at, end)
            if found < 0 or found + 8 > end:
                break
            return [], Extent(found, found + 8, closed=True)
        fragments.append((at + 8, min(length, end - at - 8)))
        at += 8 + length
    return fragments, Extent(end, end, closed=False)


def trial(view: memoryview, at: int, end: int, encoding: Encoding) -> int:
    """How well the first few elements at ``at`` follow ``encoding``: 0 not at all, 2 per element at best."""
    score, before = 0, -1
    for _ in range(TRIAL_ELEMENTS):
        header = read_header(view, at, end, encoding)
        if header is None:
            break
        tag, vr, value, length = header
        if tag <= before or tag >> 16 == 0xFFFE or tag == length == 0:
            break
        if length == UNDEFINED:
            return score + 2
        if value + length > end:
            break
        if encoding.explicit:
            score += 2 if vr in KNOWN_VRS else 1
        else:
            score += 2
        before, at = tag, value + length
    return score
