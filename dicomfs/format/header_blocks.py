"""Blocks of columns being made: from header bytes to the stored form of blocks.

Owns which headers share templates and how many go into one block.  Every block is decoded before it is
handed out: where a reading of headers does not bring them back, they are stored as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.header_columns import BlockStreams, assemble, templates_of
from dicomfs.format.header_model import Draft, DraftList, aligned, by_shape, walk
from dicomfs.format.header_parse import parse_header
from dicomfs.format.header_values import Column
from dicomfs.format.shared_texts import SharedText, TextRef
from dicomfs.format.templates import CLOSE, COLUMN, LIST, LITERAL, OPEN, Open
from dicomfs.format.token_forms import StreamsWriter, put_column
from dicomfs.format.varints import put_unsigned
from dicomfs.format.version import MAX_STREAM, MIB

BLOCK_ROWS, BLOCK_BYTES = 256, 16 * MIB
"""A block ends before it has more rows, or more bytes: reading one header decodes all of its block."""
_PLAN_BYTES = 32 * MIB
"""Header bytes that share templates: bounds what is held in memory for them."""
_FEW = 6
"""Headers of one structure that hardly pay for the columns of a template."""
_WRITING = "header block being written"


@dataclass(frozen=True, slots=True)
class Block:
    """A block ready to be written."""

    rows: int
    plain: bytes
    payload: bytes
    base: int | None
    """How many blocks before this one in the same call the block with its templates is; None: its own."""
    text: TextRef | None = None
    """The shared text that it needs."""


ChooseText = Callable[[bytes, Sequence[bytes]], SharedText | None]
"""Gives a shared text for a text stream, of which it holds no other piece, and headers it is of; or None."""


def no_shared_text(text: bytes, headers: Sequence[bytes]) -> None:
    """For packs that are to stand alone."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Templates for some headers, and what fills them: any run of these headers makes a block."""

    found: DraftList

    def block(self, start: int, stop: int, *, templates: bool) -> BlockStreams:
        """The streams of rows ``start`` to ``stop``, with the templates or without."""
        out = StreamsWriter()
        if templates:
            put_unsigned(out.program, len(self.found.drafts))
            for draft in walk(self.found):
                _put_template(out, draft)
        if len(self.found.drafts) > 1:
            out.vectors.put(np.array(self.found.which[start:stop], dtype=np.int64))
        runs = _runs(self.found, start, stop)
        for at, draft in enumerate(walk(self.found)):
            _put_columns(out, draft, runs[at], runs)
        return BlockStreams(bytes(out.program), bytes(out.text), bytes(out.numbers), bytes(out.raw))


def make_blocks(headers: Sequence[bytes], choose: ChooseText = no_shared_text) -> Iterator[Block]:
    """Blocks that hold ``headers``, of at most 4 MiB each, one after the other."""
    for start, stop in _cuts(headers, 1 << 62, _PLAN_BYTES):
        yield from _with_templates(headers[start:stop], choose)


def make_joint_block(series: Sequence[Sequence[bytes]], choose: ChooseText = no_shared_text) -> Block:
    """One block of the headers of several series, of at most `BLOCK_ROWS` and `BLOCK_BYTES` together.

    Each has templates of its own, and what these have in common is compressed together.
    """
    headers = [header for each in series for header in each]
    plain = b"".join(headers)
    drafts: list[Draft] = []
    which: list[int] = []
    for each in series:
        best = _best(each, (0, len(each)))
        found = _apart(each) if best is None else best[1].found
        which += [len(drafts) + number for number in found.which]
        drafts += found.drafts
    plan = _Plan(DraftList([], which, drafts))
    streams = plan.block(0, len(headers), templates=True)
    payload = _checked(streams, None, len(headers), plain)
    if payload is None:
        return _as_they_are(headers)
    return _sharing(Block(len(headers), plain, payload, None), streams, [each[0] for each in series], choose)


def _cuts(headers: Sequence[bytes], most_rows: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Runs of headers that keep within these bounds."""
    start = size = 0
    for at, header in enumerate(headers):
        if at > start and (at - start >= most_rows or size + len(header) > most_bytes):
            yield start, at
            start, size = at, 0
        size += len(header)
    if start < len(headers):
        yield start, len(headers)


def _sharing(block: Block, streams: BlockStreams, headers: Sequence[bytes], choose: ChooseText) -> Block:
    """The block with its text compressed against a shared one, where there is one and that gains."""
    shared = choose(streams.text, headers)
    if shared is None:
        return block
    payload = streams.pack(shared)
    if len(payload) >= len(block.payload):
        return block
    return replace(block, payload=payload, text=shared.ref)


def _with_templates(headers: Sequence[bytes], choose: ChooseText) -> Iterator[Block]:
    cuts = list(_cuts(headers, BLOCK_ROWS, BLOCK_BYTES))
    best = _best(headers, cuts[0])
    if best is None:
        for start, stop in cuts:
            yield _as_they_are(headers[start:stop])
        return
    payload, plan = best
    first = Block(cuts[0][1], b"".join(headers[slice(*cuts[0])]), payload, None)
    yield _sharing(first, plan.block(*cuts[0], templates=True), headers[:1], choose)
    templates = plan.block(0, 0, templates=True)
    for number, (start, stop) in enumerate(cuts[1:], 1):
        plain = b"".join(headers[start:stop])
        own = _checked(plan.block(start, stop, templates=False), templates, stop - start, plain)
        if own is None:
            yield _as_they_are(headers[start:stop])
        else:
            yield Block(stop - start, plain, own, number)


def _best(headers: Sequence[bytes], cut: tuple[int, int]) -> tuple[bytes, _Plan] | None:
    """The plan for all headers that makes the smallest block of those of a cut, and that block."""
    plain = b"".join(headers[slice(*cut)])
    found = [
        (len(payload), number, payload, plan)
        for number, plan in enumerate(_plans(headers))
        if (payload := _checked(plan.block(*cut, templates=True), None, cut[1], plain)) is not None
    ]
    if not found:
        return None
    _, _, payload, plan = min(found, key=lambda one: one[:2])
    return payload, plan


def _plans(headers: Sequence[bytes]) -> Iterator[_Plan]:
    """Plans worth a trial: where headers differ in structure, sharing little may win."""
    roots = [parse_header(header) for header in headers]
    yield _Plan(aligned(roots))
    shapes = by_shape(roots, 1)
    if len(shapes.drafts) > 1:
        yield _Plan(shapes)
        if len(headers) < _FEW * len(shapes.drafts):
            yield _Plan(by_shape(roots, _FEW))
            yield _Plan(_apart(headers))


def _apart(headers: Sequence[bytes]) -> DraftList:
    """A template for each header."""
    numbers: dict[bytes, int] = {}
    which = [numbers.setdefault(header, len(numbers)) for header in headers]
    drafts = []
    for header in numbers:
        draft = Draft(0)
        draft.add(header)
        drafts.append(draft)
    return DraftList([], which, drafts)


def _as_they_are(headers: Sequence[bytes]) -> Block:
    plain = b"".join(headers)
    payload = _checked(
        _Plan(_apart(headers)).block(0, len(headers), templates=True), None, len(headers), plain
    )
    if payload is None:
        raise FormatError(_WRITING, "header bytes do not come back")
    return Block(len(headers), plain, payload, None)


def _checked(streams: BlockStreams, base: BlockStreams | None, rows: int, plain: bytes) -> bytes | None:
    """The stored form of a block, None where the headers do not come out of it again."""
    if max(map(len, (streams.program, streams.text, streams.numbers, streams.raw))) > MAX_STREAM:
        return None
    try:
        templates = None if base is None else templates_of(base, _WRITING)
        if assemble(streams, templates, rows, len(plain), _WRITING) != plain:
            return None
    except DamagedError:
        return None
    return streams.pack()


def _runs(found: DraftList, start: int, stop: int) -> list[tuple[int, int]]:
    """Executions of each template of a list that elements ``start`` to ``stop`` are."""
    before = np.bincount(found.which[:start], minlength=len(found.drafts))
    inside = np.bincount(found.which[start:stop], minlength=len(found.drafts))
    return [(int(first), int(first + count)) for first, count in zip(before, inside, strict=True)]


def _put_template(out: StreamsWriter, draft: Draft) -> None:
    columns: dict[tuple[bytes, ...], int] = {}
    put_unsigned(out.program, len(draft.parts))
    for part in draft.parts:
        if isinstance(part, bytes):
            put_unsigned(out.program, LITERAL | len(part) << 3)
            out.text += part
        elif isinstance(part, Column):
            known = columns.get(part.values, 0)
            put_unsigned(out.program, COLUMN | known << 3)
            columns.setdefault(part.values, len(columns) + 1)
        elif isinstance(part, DraftList):
            put_unsigned(out.program, LIST | len(part.drafts) << 3)
        elif isinstance(part, Open):
            put_unsigned(out.program, OPEN | part.length << 3)
            put_unsigned(out.program, part.pad)
            put_unsigned(out.program, part.multiple - 1)
        else:
            put_unsigned(out.program, CLOSE)


def _put_columns(out: StreamsWriter, draft: Draft, run: tuple[int, int], runs: list[tuple[int, int]]) -> None:
    """Append what fills the holes of one template; ``runs`` grows with the lists."""
    start, stop = run
    columns: set[tuple[bytes, ...]] = set()
    for part in draft.parts:
        if isinstance(part, DraftList):
            out.vectors.put(np.array(part.sizes[start:stop], dtype=np.int64))
            first, last = sum(part.sizes[:start]), sum(part.sizes[:stop])
            if len(part.drafts) > 1:
                out.vectors.put(np.array(part.which[first:last], dtype=np.int64))
            runs += _runs(part, first, last)
        elif isinstance(part, Column) and part.values not in columns:
            columns.add(part.values)
            put_column(out, part.values[start:stop])
