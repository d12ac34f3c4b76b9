"""Header bytes as a tree of elements, for finding what stands at one place in many headers.

Owns a tolerant reading of preamble, meta group, data elements, sequences, group lengths and the one private
structure that is worth it (Siemens CSA).  A hint for compression only: bytes that follow none of these are
taken as they are, and what is read wrongly costs density, never a byte.  How files split is the scanner's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UNITS = {b"US": 2, b"SS": 2, b"OW": 2, b"UL": 4, b"SL": 4, b"FL": 4, b"OF": 4, b"OL": 4, b"FD": 8, b"OD": 8}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
_NONE, _SHORT, _WORD, _BIG_SHORT, _BIG_WORD = range(5)
"""Codes of how a length is written, as in `templates`."""
_MAX_DEPTH = 16
_CSA_START = b"SV10\4\3\2\1"
_CSA_TAG = struct.Struct("<64si4siii")
_CSA_ITEM = struct.Struct("<iiii")
_MAX_CSA_TAGS, _MAX_CSA_ITEMS = 4096, 65536


@dataclass(slots=True)
class Node:
    """Bytes [start, end) of a header: something in front, perhaps a length, a body, something behind."""

    key: Hashable
    """The same for nodes that mean the same in different headers, and begin and end with the same bytes."""
    data: bytes
    start: int
    body: int
    body_end: int
    end: int
    length: int = _NONE
    """Code of the length that stands before the body."""
    unit: int = 1
    """Bytes of the numbers of which a binary body consists."""
    split: Callable[[Node], list[Node]] | None = None
    """Finds the children of the body."""
    _children: list[Node] | None = field(default=None, repr=False)

    @property
    def raw(self) -> bytes:
        """All its bytes."""
        return self.data[self.start : self.end]

    @property
    def content(self) -> bytes:
        """The bytes of its body."""
        return self.data[self.body : self.body_end]

    @property
    def prefix(self) -> bytes:
        """What stands before length and body."""
        return self.data[self.start : self.body - (0, 2, 4, 2, 4)[self.length]]

    @property
    def suffix(self) -> bytes:
        """What stands behind the body."""
        return self.data[self.body_end : self.end]

    def children(self) -> list[Node] | None:
        """What the body consists of, without gaps; None where it is one value."""
        if self._children is None and self.split is not None:
            self._children = self.split(self)
        return self._children or None


@dataclass(frozen=True, slots=True)
class _Encoding:
    explicit: bool
    order: str

    @property
    def short(self) -> int:
        return _SHORT if self.order == "<" else _BIG_SHORT

    @property
    def word(self) -> int:
        return _WORD if self.order == "<" else _BIG_WORD


_META = _Encoding(explicit=True, order="<")
_ENCODINGS = (_META, _Encoding(explicit=False, order="<"), _Encoding(explicit=True, order=">"))


def parse_header(data: bytes) -> Node:
    """The header as one node; its children are the elements of the first level."""
    return Node("header", data, 0, 0, len(data), len(data), split=_file)


def _file(node: Node) -> list[Node]:
    data = node.data
    at = 132 if data[128:132] == b"DICM" else 0
    found = [Node("preamble", data, 0, 0, at, at)] if at else []
    meta, at = _elements(data, at, len(data), _META, 0, lambda tag: tag >> 16 == 2)
    body, at = _elements(data, at, len(data), _encoding(data, at), 0, lambda tag: tag >> 16 != 2)
    found += _grouped(meta, _META) + _grouped(body, _encoding(data, meta[-1].end if meta else at))
    return _closed(data, found, at, len(data))


def _closed(data: bytes, found: list[Node], at: int, end: int) -> list[Node]:
    """The nodes, and one for the bytes behind them."""
    return [*found, Node("rest", data, at, at, end, end)] if at < end else found


def _encoding(data: bytes, at: int) -> _Encoding:
    for encoding in _ENCODINGS:
        if at + 8 > len(data):
            break
        (group,) = struct.unpack_from(encoding.order + "H", data, at)
        letters = data[at + 4 : at + 6]
        if 2 < group < 0x7FE1 and encoding.explicit == (letters.isalpha() and letters.isupper()):
            return encoding
    return _META


def _elements(
    data: bytes, at: int, end: int, encoding: _Encoding, depth: int, wanted: Callable[[int], bool]
) -> tuple[list[Node], int]:
    """Elements from ``at`` as far as they go, and where they end."""
    found: list[Node] = []
    while at + 8 <= end:
        node = _element(data, at, end, encoding, depth, wanted)
        if node is None:
            break
        found.append(node)
        at = node.end
    return found, at


def _element(
    data: bytes, at: int, end: int, encoding: _Encoding, depth: int, wanted: Callable[[int], bool]
) -> Node | None:
    tag, vr, body, length, code = _head(data, at, end, encoding)
    if tag >> 16 == 0xFFFE or not wanted(tag):
        return None
    if tag in _PIXELS and depth == 0 and body + length > end - 2:
        # The value of native pixels is no header: what follows here stood behind it.
        return Node("pixels", data, at, at, body, body)
    if length == _UNDEFINED:
        items = _items(data, body, end, encoding, depth)
        if items is None:
            return None
        last = items[-1].end
        split = _known(items[:-1]) if len(items) > 1 else None
        return Node((data[at:body], data[last - 8 : last]), data, at, body, last - 8, last, split=split)
    if body + length > end:
        return None
    key = (data[at : at + 6 if encoding.explicit else at + 4], body - at, code)
    node = Node(key, data, at, body, body + length, body + length, code, _UNITS.get(vr, 1))
    if vr in {b"SQ", b"UN", b""} and data.startswith(_item_start(encoding), body):
        node.split = lambda node: _defined_items(node, encoding, depth)
        node.key = (key, "items")
    elif data.startswith(_CSA_START, body) and length > _CSA_TAG.size:
        node.split = _csa
        node.key = (key, "csa")
    return node


def _head(data: bytes, at: int, end: int, encoding: _Encoding) -> tuple[int, bytes, int, int, int]:
    """Tag, value representation, offset of the value, length and the code of how that is written."""
    group, element, length = struct.unpack_from(encoding.order + "HHL", data, at)
    tag = group << 16 | element
    if encoding.explicit:
        vr = data[at + 4 : at + 6]
        if vr in _LONG and at + 12 <= end:
            (length,) = struct.unpack_from(encoding.order + "L", data, at + 8)
            return tag, vr, at + 12, length, encoding.word
        if vr.isalpha() and vr.isupper():
            (length,) = struct.unpack_from(encoding.order + "H", data, at + 6)
            return tag, vr, at + 8, length, encoding.short
    return tag, b"", at + 8, length, encoding.word


def _item_start(encoding: _Encoding) -> bytes:
    return b"\xfe\xff\0\xe0" if encoding.order == "<" else b"\xff\xfe\xe0\0"


def _items(data: bytes, at: int, end: int, encoding: _Encoding, depth: int) -> list[Node] | None:
    """Items from ``at`` and the delimiter behind them; None where there is no such chain."""
    found: list[Node] = []
    while at + 8 <= end and depth < _MAX_DEPTH:
        group, element, length = struct.unpack_from(encoding.order + "HHL", data, at)
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            return [*found, Node("end", data, at, at, at + 8, at + 8)]
        node = _item(data, at, end, encoding, depth, tag, length)
        if node is None:
            return None
        found.append(node)
        at = node.end
    return None


def _item(
    data: bytes, at: int, end: int, encoding: _Encoding, depth: int, tag: int, length: int
) -> Node | None:
    body = at + 8
    if tag != _ITEM or depth >= _MAX_DEPTH:
        return None
    if length != _UNDEFINED:
        if body + length > end:
            return None
        split = _body(encoding, depth)
        return Node("item", data, at, body, body + length, body + length, encoding.word, split=split)
    children, last = _elements(data, body, end, encoding, depth + 1, _anything)
    if last + 8 > end or data[last : last + 8] != struct.pack(encoding.order + "HHL", 0xFFFE, 0xE00D, 0):
        return None
    if not children:
        return Node("empty item", data, at, at, last + 8, last + 8)
    return Node("open item", data, at, body, last, last + 8, split=_known(_grouped(children, encoding)))


def _anything(_: int) -> bool:
    return True


def _known(children: list[Node]) -> Callable[[Node], list[Node]]:
    return lambda _: children


def _body(encoding: _Encoding, depth: int) -> Callable[[Node], list[Node]]:
    def split(node: Node) -> list[Node]:
        found, at = _elements(node.data, node.body, node.body_end, encoding, depth + 1, _anything)
        return _closed(node.data, _grouped(found, encoding), at, node.body_end)

    return split


def _defined_items(node: Node, encoding: _Encoding, depth: int) -> list[Node]:
    found: list[Node] = []
    at = node.body
    while at + 8 <= node.body_end:
        group, element, length = struct.unpack_from(encoding.order + "HHL", node.data, at)
        item = _item(node.data, at, node.body_end, encoding, depth, group << 16 | element, length)
        if item is None:
            break
        found.append(item)
        at = item.end
    return _closed(node.data, found, at, node.body_end)


def _grouped(found: list[Node], encoding: _Encoding) -> list[Node]:
    """Put what a group length counts under it, so that the length follows from what it counts."""
    grouped: list[Node] = []
    at = 0
    while at < len(found):
        stop = _group_end(found, at, encoding)
        if stop is None:
            grouped.append(found[at])
            at += 1
        else:
            first, children = found[at], found[at + 1 : stop]
            last = children[-1].end
            grouped.append(
                Node(
                    (first.key, "group"),
                    first.data,
                    first.start,
                    first.end,
                    last,
                    last,
                    encoding.word,
                    split=_known(children),
                )
            )
            at = stop
    return grouped


def _group_end(found: list[Node], at: int, encoding: _Encoding) -> int | None:
    first = found[at]
    if first.data[first.start + 2 : first.start + 4] != b"\0\0" or first.body_end - first.body != 4:
        return None
    (length,) = struct.unpack_from(encoding.order + "L", first.data, first.body)
    for stop in range(at + 1, len(found)):
        if found[stop].end - first.end >= length:
            return stop + 1 if found[stop].end - first.end == length else None
    return None


def _csa(node: Node) -> list[Node]:
    """Tags and items of a Siemens CSA header, layout as read by public tools (tag: 84 bytes, item: 16)."""
    found = list(_csa_nodes(node.data, node.body, node.body_end))
    return _closed(node.data, found, found[-1].end if found else node.body, node.body_end)


def _csa_nodes(data: bytes, start: int, end: int) -> Iterator[Node]:
    yield Node("csa", data, start, start, start + 16, start + 16)
    (tags,) = struct.unpack_from("<I", data, start + 8)
    at, budget = start + 16, _MAX_CSA_ITEMS
    for _ in range(min(tags, _MAX_CSA_TAGS)):
        if at + _CSA_TAG.size > end:
            return
        name, _, _, _, items, _ = _CSA_TAG.unpack_from(data, at)
        name = name.partition(b"\0")[0]
        yield Node(name, data, at, at, at + _CSA_TAG.size, at + _CSA_TAG.size)
        at += _CSA_TAG.size
        for item in range(max(0, items)):
            budget -= 1
            if at + _CSA_ITEM.size > end or budget < 0:
                return
            body = at + _CSA_ITEM.size
            length = _CSA_ITEM.unpack_from(data, at)[1]
            last = body + (length + 3) // 4 * 4
            if length < 0 or last > end:
                return
            yield Node((name, item), data, at, at, body, body)
            yield Node((name, item, "value"), data, body, body, last, last)
            at = last
