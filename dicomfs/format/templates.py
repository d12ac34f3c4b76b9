"""Templates of a block of columns: what the headers of a block have in common, with holes for the rest.

Owns the operations of a template, their bounded reading and the assembly of headers from templates and
columns.  Knows nothing of DICOM: what an element is, matters only to the one who makes the templates.

Templates form a tree.  Those of the rows come first; each list introduces its own, in the order in which
lists stand.  Thus the number of executions of each template is known before anything is assembled.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np

from dicomfs.errors import DamagedError
from dicomfs.format.tokens import Streams, read_column
from dicomfs.format.varints import Numbers
from dicomfs.format.vectors import Int64s

LITERAL, COLUMN, LIST, OPEN, CLOSE = range(5)
MAX_TEMPLATES = 1 << 16
MAX_OPERATIONS = 1 << 20
"""Operations of all templates of a block together."""
MAX_STEPS = 1 << 22
"""Operations carried out for all rows of a block together."""
MAX_DEPTH = 64
MAX_MULTIPLE = 256
LENGTHS: tuple[struct.Struct | None, ...] = (
    None,
    struct.Struct("<H"),
    struct.Struct("<L"),
    struct.Struct(">H"),
    struct.Struct(">L"),
)
"""How the length in front of a bracket is written, by its code."""


@dataclass(frozen=True, slots=True)
class Open:
    """An opening bracket: what stands up to its end is padded, and preceded by its length."""

    length: int
    """Index in `LENGTHS`."""
    pad: int
    """Byte to pad with."""
    multiple: int
    """Padded to a multiple of this many bytes; 1: not padded."""


@dataclass(frozen=True, slots=True)
class List:
    """A hole for any number of executions of the templates that it introduces."""

    first: int
    """The first of its templates."""
    count: int


Operation = bytes | Open | List | None | int
"""Literal bytes, brackets (None closes), a list, or a column (its number within the template)."""


@dataclass(slots=True)
class Template:
    """Operations in order."""

    operations: list[Operation] = field(default_factory=list)
    columns: int = 0
    """Columns it has; the first hole of each is numbered in order of appearance."""


@dataclass(frozen=True, slots=True)
class TemplateSet:
    """All templates of a block; the first ``roots`` are those of its rows."""

    templates: list[Template]
    roots: int


def read_templates(program: Numbers, text: Numbers, artefact: str) -> TemplateSet:
    """Read the templates of a block; DamagedError."""
    roots = program.unsigned(MAX_TEMPLATES)
    known, budget = roots, MAX_OPERATIONS
    templates: list[Template] = []
    depth = [1] * roots
    while len(templates) < known:
        size = program.unsigned(MAX_OPERATIONS)
        budget -= size
        if budget < 0:
            raise DamagedError(artefact, "too many operations in a header block")
        template = Template()
        inside = depth[len(templates)]
        level = 0
        for _ in range(size):
            operation = _operation(program, text, template, known, artefact)
            template.operations.append(operation)
            if isinstance(operation, List):
                known += operation.count
                depth += [inside + level + 1] * operation.count
            level += isinstance(operation, Open) - (operation is None)
            if level < 0 or inside + level > MAX_DEPTH or known > MAX_TEMPLATES:
                raise DamagedError(artefact, "impossible nesting in a header block")
        if level:
            raise DamagedError(artefact, "open bracket in a header block")
        templates.append(template)
    return TemplateSet(templates, roots)


def _operation(program: Numbers, text: Numbers, template: Template, known: int, artefact: str) -> Operation:
    code = program.unsigned()
    kind, argument = code & 7, code >> 3
    if kind == LITERAL:
        return text.take(argument)
    if kind == COLUMN:
        if argument == 0:
            template.columns += 1
            return template.columns - 1
        if argument > template.columns:
            raise DamagedError(artefact, "unknown column in a header block")
        return argument - 1
    if kind == LIST and argument <= MAX_TEMPLATES:
        return List(known, argument)
    if kind == OPEN and argument < len(LENGTHS):
        return Open(argument, program.unsigned(255), program.unsigned(MAX_MULTIPLE - 1) + 1)
    if kind == CLOSE and not argument:
        return None
    raise DamagedError(artefact, "unknown operation in a header block")


class Assembler:
    """Puts the rows of a block together: reads all columns of all templates, then fills the holes."""

    def __init__(self, found: TemplateSet, streams: Streams) -> None:
        self._set, self._streams = found, streams
        self._columns: list[list[list[bytes]]] = []
        self._lists: dict[int, tuple[Int64s, Int64s]] = {}
        """First template of a list -> elements in each execution, and their templates."""

    def rows(self, count: int) -> list[bytes]:
        """The plain bytes of ``count`` rows; DamagedError."""
        roots = self._executions(self._set.roots, count)
        self._read(np.bincount(roots, minlength=self._set.roots).tolist())
        made: dict[int, Iterator[bytes]] = {}
        for number in range(len(self._set.templates) - 1, -1, -1):
            made[number] = iter(self._fill(number, made))
        return [next(made[number]) for number in roots.tolist()]

    def _executions(self, templates: int, count: int) -> Int64s:
        """Which template each of ``count`` executions is of."""
        self._streams.spend(count)
        if count and not templates:
            raise DamagedError(self._streams.artefact, "a list without templates")
        if templates <= 1:
            return np.zeros(count, dtype=np.int64)
        which = self._streams.vectors.take(count)
        if count and (int(which.min()) < 0 or int(which.max()) >= templates):
            raise DamagedError(self._streams.artefact, "unknown template in a header block")
        return which

    def _read(self, runs: list[int]) -> None:
        """Read what fills the holes, template by template; ``runs`` grows with the lists."""
        self._runs = runs
        steps, bytes_left = MAX_STEPS, self._streams.plain
        for number, template in enumerate(self._set.templates):
            executions = runs[number]
            steps -= executions * len(template.operations)
            bytes_left -= executions * sum(len(one) for one in template.operations if isinstance(one, bytes))
            if steps < 0 or bytes_left < 0:
                raise DamagedError(self._streams.artefact, "a header block is longer than it says")
            seen = 0
            columns: list[list[bytes]] = []
            for operation in template.operations:
                if isinstance(operation, List):
                    self._read_list(operation, executions, runs)
                elif isinstance(operation, int) and operation == seen:
                    columns.append(read_column(self._streams, executions))
                    seen += 1
            self._columns.append(columns)

    def _read_list(self, what: List, executions: int, runs: list[int]) -> None:
        sizes = self._streams.vectors.take(executions)
        if executions and (int(sizes.min()) < 0 or int(sizes.max()) > self._streams.tokens):
            raise DamagedError(self._streams.artefact, "impossible length of a list")
        which = self._executions(what.count, int(sizes.sum()))
        self._lists[what.first] = (sizes, which)
        runs += np.bincount(which, minlength=what.count).tolist()

    def _fill(self, number: int, made: dict[int, Iterator[bytes]]) -> list[bytes]:
        """All executions of a template."""
        executions = self._runs[number]
        levels: list[tuple[Open, list[object]]] = []
        parts: list[object] = []
        size = 0
        for operation in self._set.templates[number].operations:
            if isinstance(operation, bytes):
                parts.append(repeat(operation, executions))
                size += executions * len(operation)
            elif operation is None:
                bracket, outer = levels.pop()
                inside = _joined(parts, executions)
                outer.append(self._close(bracket, inside))
                parts = outer
            elif isinstance(operation, Open):
                levels.append((operation, parts))
                parts = []
            else:
                filling = (
                    self._list(operation, made)
                    if isinstance(operation, List)
                    else self._columns[number][operation]
                )
                parts.append(filling)
                size += sum(map(len, filling))
            self._bound(size)
        self._columns[number] = []
        return _joined(parts, executions)

    def _list(self, what: List, made: dict[int, Iterator[bytes]]) -> list[bytes]:
        sizes, which = self._lists.pop(what.first)
        each = [next(made[what.first + number]) for number in which.tolist()]
        ends = np.cumsum(sizes)
        starts = ends - sizes
        return [b"".join(each[a:b]) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]

    def _close(self, bracket: Open, contents: list[bytes]) -> list[bytes]:
        if bracket.multiple > 1:
            self._bound(sum(-len(one) % bracket.multiple for one in contents))
            pad = bytes([bracket.pad])
            contents = [one + pad * (-len(one) % bracket.multiple) for one in contents]
        form = LENGTHS[bracket.length]
        if form is None:
            return contents
        pack: Callable[[int], bytes] = form.pack
        try:
            return [pack(len(one)) + one for one in contents]
        except struct.error as error:
            raise DamagedError(self._streams.artefact, "a length does not fit its field") from error

    def _bound(self, size: int) -> None:
        if size > self._streams.plain:
            raise DamagedError(self._streams.artefact, "a header block is longer than it says")


def _joined(parts: list[object], executions: int) -> list[bytes]:
    if not parts:
        return [b""] * executions
    if len(parts) == 1 and isinstance(parts[0], list):
        return parts[0]
    return list(map(b"".join, zip(*parts, strict=True)))
