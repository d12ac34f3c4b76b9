"""Templates made of many headers: what they share becomes literal, what differs a hole.

Owns the alignment of elements across headers, nested sequences included, and the choice between them and
whole headers as templates.  How values are split, says `header_values`; how all is written, `header_blocks`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from dicomfs.format.header_parse import Node
from dicomfs.format.header_values import Column, split_values
from dicomfs.format.templates import Open


@dataclass(slots=True)
class Draft:
    """A template in the making, with what fills its holes in all its executions."""

    executions: int
    parts: list[bytes | Open | Column | DraftList | None] = field(default_factory=list)

    def add(self, part: bytes | Open | Column | DraftList | None) -> None:
        """Append an operation; literals that meet become one."""
        if isinstance(part, bytes):
            if not part:
                return
            if self.parts and isinstance(self.parts[-1], bytes):
                self.parts[-1] += part
                return
        self.parts.append(part)


@dataclass(slots=True)
class DraftList:
    """A hole for a list: how many elements each execution has, the template of each, the templates."""

    sizes: list[int]
    which: list[int]
    drafts: list[Draft]


def aligned(headers: Sequence[Node]) -> DraftList:
    """One template for all headers, whose elements are aligned."""
    draft = Draft(len(headers))
    _add(draft, headers)
    return DraftList([], [0] * len(headers), [draft])


def by_shape(headers: Sequence[Node], least: int) -> DraftList:
    """A template for each sequence of elements that ``least`` headers have, and for each other header."""
    return _by_shape([header.children() or [] for header in headers], least)


def _by_shape(runs: Sequence[list[Node]], least: int = 1) -> DraftList:
    """Templates for runs of nodes, one for each sequence of keys; rare sequences are not shared."""
    shapes = [tuple(_keys(run)) for run in runs]
    often = Counter(shapes)
    groups: dict[Hashable, list[list[Node]]] = {}
    numbers: dict[Hashable, int] = {}
    which = []
    for run, shape in zip(runs, shapes, strict=True):
        key: Hashable = shape if often[shape] >= least else b"".join(node.raw for node in run)
        groups.setdefault(key, []).append(run)
        which.append(numbers.setdefault(key, len(numbers)))
    drafts = []
    for group in groups.values():
        draft = Draft(len(group))
        for nodes in zip(*group, strict=True):
            _add(draft, nodes)
        drafts.append(draft)
    return DraftList([1 if run else 0 for run in runs], which, drafts)


def _add(draft: Draft, nodes: Sequence[Node]) -> None:
    """Append what stands at one place, once in each execution; the nodes have the same key."""
    first = nodes[0].raw
    if all(node.raw == first for node in nodes):
        draft.add(first)
        return
    draft.add(nodes[0].prefix)
    if nodes[0].length:
        draft.add(Open(nodes[0].length, 0, 1))
    children = [node.children() for node in nodes]
    if all(each is not None for each in children):
        _align(draft, [each or [] for each in children])
    else:
        for part in split_values([node.content for node in nodes], nodes[0].unit):
            draft.add(part)
    if nodes[0].length:
        draft.add(None)
    draft.add(nodes[0].suffix)


def _align(draft: Draft, rows: Sequence[list[Node]]) -> None:
    """Append runs of nodes, one for each execution: those that all have at their place, lists between."""
    keys = [_keys(row) for row in rows]
    if len(rows[0]) > len(rows) and _alike(rows):
        # More items than headers: items are the rows of a template of their own.
        flat = [[node] for row in rows for node in row]
        inner = _by_shape(flat)
        draft.add(DraftList([len(row) for row in rows], inner.which, inner.drafts))
        return
    if all(each == keys[0] for each in keys):
        for nodes in zip(*rows, strict=True):
            _add(draft, nodes)
        return
    common = set(keys[0]).intersection(*keys[1:])
    order = [key for key in keys[0] if key in common]
    if any([key for key in each if key in common] != order for each in keys[1:]):
        common, order = set(), []
    places = [_gaps(row, each, common) for row, each in zip(rows, keys, strict=True)]
    for at in range(len(order) + 1):
        _gap(draft, [place[2 * at] for place in places])
        if at < len(order):
            _add(draft, [place[2 * at + 1][0] for place in places])


def _gap(draft: Draft, runs: Sequence[list[Node]]) -> None:
    if not any(runs):
        return
    inner = _by_shape([run for run in runs if run])
    draft.add(DraftList([1 if run else 0 for run in runs], inner.which, inner.drafts))


def _gaps(row: list[Node], keys: Sequence[Hashable], common: set[Hashable]) -> list[list[Node]]:
    """Alternately the nodes between common ones, and one common one."""
    found: list[list[Node]] = [[]]
    for node, key in zip(row, keys, strict=True):
        if key in common:
            found += [[node], []]
        else:
            found[-1].append(node)
    return found


def _alike(rows: Sequence[list[Node]]) -> bool:
    """Whether all nodes of all rows mean the same, as items of a sequence do."""
    key = rows[0][0].key
    return all(node.key == key for row in rows for node in row)


def _keys(row: Sequence[Node]) -> list[Hashable]:
    """Keys of nodes, those that occur again with their number."""
    keys = [node.key for node in row]
    if len(set(keys)) == len(keys):
        return keys
    seen: dict[Hashable, int] = {}
    for at, key in enumerate(keys):
        number = seen.get(key, 0)
        seen[key] = number + 1
        if number:
            keys[at] = (key, number)
    return keys


def walk(found: DraftList) -> Iterator[Draft]:
    """All templates in the order of their numbers: those of a list follow all that were known before it."""
    waiting = list(found.drafts)
    at = 0
    while at < len(waiting):
        yield waiting[at]
        for part in waiting[at].parts:
            if isinstance(part, DraftList):
                waiting += part.drafts
        at += 1
