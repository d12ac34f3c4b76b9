"""Blocks of columns, read from `docs/format.md` alone; see `independent_reader`.

Carries templates out one execution at a time: slow, and as the text says it.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.independent_codecs import Refused, Unsupported, unzstd

DICTIONARIES = Path(__file__).parents[1] / "dicomfs" / "format" / "dictionaries"
DICTIONARY_DIGESTS = {1: "13bb010f278463765a295d06598662a5"}
STREAM_LIMIT, PLAIN_LIMIT, ROW_LIMIT, TEXT_LIMIT = 16 << 20, 32 << 20, 4096, 1 << 20
TEMPLATES, OPERATIONS, DEPTH, ELEMENTS, STEPS = 1 << 16, 1 << 20, 64, 1 << 20, 1 << 22
LITERAL, COLUMN, LIST, OPEN, CLOSE = range(5)
LENGTHS = {0: (0, "little"), 1: (2, "little"), 2: (4, "little"), 3: (2, "big"), 4: (4, "big")}


Texts = Callable[[bytes, bytes], bytes]
"""Gives a shared text, told the SHA-256 of its pack and the digest of that pack's plain index."""


def no_texts(_name: bytes, _index: bytes) -> bytes:
    """For packs that are read alone."""
    raise Refused("a shared text is missing")


class Stream:
    """Bytes that are used up from the start."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count < 0 or count > len(self.data) - self.at:
            raise Refused("a stream of a block ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, limit: int = (1 << 64) - 1) -> int:
        """The next LEB128 number."""
        value = 0
        for k in range(10):
            byte = self.take(1)[0]
            value |= (byte & 127) << 7 * k
            if byte < 128:
                if value > limit:
                    raise Refused("a number of a block")
                return value
        raise Refused("an endless number")

    def signed(self) -> int:
        """The next signed number."""
        value = self.number()
        return value // 2 if value % 2 == 0 else -(value // 2) - 1

    @property
    def empty(self) -> bool:
        """Whether all is used."""
        return self.at == len(self.data)


def wrapped(value: int) -> int:
    """A number modulo 2^64, as signed."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


@dataclass
class Template:
    """Operations as (what, argument …), and how deep it is."""

    depth: int
    operations: list[tuple[int, ...]] = field(default_factory=list)
    literals: list[bytes] = field(default_factory=list)
    columns: int = 0


def streams_of(payload: bytes, texts: Texts = no_texts) -> list[Stream]:
    """Program, text, numbers and raw."""
    rest = Stream(payload)
    heads = [_stream_head(rest, STREAM_LIMIT) for _ in range(4)]
    found = [
        Stream(plain_stream(method, rest.take(stored), plain, texts(*text) if text else b""))
        for method, plain, stored, text in heads
    ]
    if not rest.empty:
        raise Refused("bytes behind the streams")
    return found


def _stream_head(rest: Stream, limit: int) -> tuple[int, int, int, tuple[bytes, bytes] | None]:
    method, plain = rest.take(1)[0], rest.number(limit)
    stored = rest.number() if method else plain
    return method, plain, stored, (rest.take(32), rest.take(8)) if method == 3 else None


def shared_text(stream: bytes) -> bytes:
    """The text in the stream of a text pack."""
    rest = Stream(stream)
    method, plain, stored, text = _stream_head(rest, TEXT_LIMIT)
    if text is not None:
        raise Refused("a text needs a text")
    found = plain_stream(method, rest.take(stored), plain)
    if not rest.empty:
        raise Refused("bytes behind a text")
    return found


def pieces_of(text: bytes) -> list[bytes]:
    """The pieces of a text."""
    found, start = [], 0
    for end in range(len(text) + 1):
        window = int.from_bytes(text[max(0, end - 8) : end], "little")
        cut = end >= 8 and window * 0x9E3779B97F4A7C15 % (1 << 64) >> 58 == 1 and end - start >= 32
        if cut or end - start == 1024:
            found.append(text[start:end])
            start = end
    return found


def plain_stream(method: int, stored: bytes, plain: int, text: bytes = b"") -> bytes:
    """A stream decompressed."""
    if method == 0:
        return stored
    if method == 1:
        return unzstd(stored, plain)
    if method == 2:
        return unlzma(stored, plain)
    if method == 3:
        return unzstd(stored, plain, shipped(1) + text)
    if method < 16:
        raise Refused("method of a stream")
    return unzstd(stored, plain, shipped(method - 16))


def shipped(number: int) -> bytes:
    """A shipped dictionary."""
    if number not in DICTIONARY_DIGESTS:
        raise Unsupported(f"dictionary {number}")
    dictionary = (DICTIONARIES / f"{number}.zdict").read_bytes()
    if not hashlib.sha256(dictionary).hexdigest().startswith(DICTIONARY_DIGESTS[number]):
        raise Refused("another dictionary")
    return dictionary


def unlzma(stored: bytes, plain: int) -> bytes:
    """LZMA with its properties in front."""
    if not stored or stored[0] >= 225:
        raise Refused("LZMA properties")
    properties = {"lc": stored[0] % 9, "lp": stored[0] // 9 % 5, "pb": stored[0] // 45}
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(4096, plain), **properties}]
    try:
        machine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        found = machine.decompress(stored[1:], plain + 1)
    except lzma.LZMAError as error:
        raise Refused("LZMA") from error
    if len(found) != plain or not machine.eof or machine.unused_data:
        raise Refused("length of LZMA")
    return found


def templates_of(program: Stream, text: Stream) -> tuple[int, list[Template]]:
    """The root templates' number, and all templates."""
    roots = program.number(TEMPLATES)
    depths = [1] * roots
    found: list[Template] = []
    budget = OPERATIONS
    while len(found) < len(depths):
        template = Template(depths[len(found)])
        size, level = program.number(OPERATIONS), 0
        budget -= size
        if budget < 0:
            raise Refused("too many operations")
        for _ in range(size):
            operation = _operation(program, text, template)
            template.operations.append(operation)
            level += (operation[0] == OPEN) - (operation[0] == CLOSE)
            if operation[0] == LIST:
                template.operations[-1] = (LIST, len(depths), operation[1])
                depths += [template.depth + level + 1] * operation[1]
            if level < 0 or template.depth + level > DEPTH or len(depths) > TEMPLATES:
                raise Refused("nesting")
        if level:
            raise Refused("a bracket stays open")
        found.append(template)
    return roots, found


def _operation(program: Stream, text: Stream, template: Template) -> tuple[int, ...]:
    number = program.number()
    what, argument = number % 8, number // 8
    if what == LITERAL:
        template.literals.append(text.take(argument))
        return LITERAL, len(template.literals) - 1
    if what == COLUMN and argument <= template.columns:
        template.columns += argument == 0
        return COLUMN, (argument or template.columns) - 1, int(argument == 0)
    if what == LIST and argument <= TEMPLATES:
        return LIST, argument
    if what == OPEN and argument in LENGTHS:
        return OPEN, argument, program.number(255), program.number(255) + 1
    if what == CLOSE and argument == 0:
        return (CLOSE,)
    raise Refused("an operation")


class Filling:
    """Reads what fills the holes and puts rows together."""

    def __init__(self, streams: list[Stream], roots: int, templates: list[Template], plain: int) -> None:
        self.program, self.text, self.numbers, self.raw = streams
        self.roots, self.templates, self.plain = roots, templates, plain
        self.vectors: list[list[int]] = []
        self.elements = 0
        self.size = 0
        self.columns: dict[tuple[int, int], Iterator[bytes]] = {}
        self.lists: dict[tuple[int, int], Iterator[list[int]]] = {}

    def rows(self, count: int) -> list[bytes]:
        """All rows."""
        which = self._which(self.roots, count)
        executions = [which.count(number) for number in range(self.roots)]
        steps = 0
        for number, template in enumerate(self.templates):
            steps += executions[number] * len(template.operations)
            if steps > STEPS:
                raise Refused("too many steps")
            for at, operation in enumerate(template.operations):
                if operation[0] == LIST:
                    executions += self._read_list(number, at, operation[2], executions[number])
                elif operation[0] == COLUMN and operation[2]:
                    self.columns[number, operation[1]] = iter(self.column(executions[number]))
        return [self._execute(root) for root in which]

    def _count(self, count: int) -> None:
        self.elements += count
        if self.elements > ELEMENTS:
            raise Refused("too many elements")

    def _which(self, templates: int, count: int) -> list[int]:
        self._count(count)
        if count and not templates:
            raise Refused("a list without templates")
        which = self.vector(count) if templates > 1 else [0] * count
        if any(not 0 <= one < templates for one in which):
            raise Refused("an unknown template")
        return which

    def _read_list(self, number: int, at: int, templates: int, executions: int) -> list[int]:
        sizes = self.vector(executions)
        if any(not 0 <= size <= ELEMENTS for size in sizes):
            raise Refused("length of a list")
        which = self._which(templates, sum(sizes))
        parts, start = [], 0
        for size in sizes:
            parts.append(which[start : start + size])
            start += size
        self.lists[number, at] = iter(parts)
        return [which.count(one) for one in range(templates)]

    def _execute(self, number: int) -> bytes:
        template = self.templates[number]
        values: dict[int, bytes] = {}
        open_brackets: list[tuple[tuple[int, ...], bytes]] = []
        made = b""
        for at, operation in enumerate(template.operations):
            if operation[0] == LITERAL:
                made += template.literals[operation[1]]
            elif operation[0] == COLUMN:
                if operation[1] not in values:
                    values[operation[1]] = next(self.columns[number, operation[1]])
                made += values[operation[1]]
            elif operation[0] == LIST:
                made += b"".join(self._execute(operation[1] + one) for one in next(self.lists[number, at]))
            elif operation[0] == OPEN:
                open_brackets.append((operation, made))
                made = b""
            else:
                (_, length, pad, multiple), before = open_brackets.pop()
                made += bytes([pad]) * (-len(made) % multiple)
                made = before + _length(length, len(made)) + made
            if len(made) > self.plain:
                raise Refused("longer than the block")
        return made

    def column(self, count: int, *, in_table: bool = False) -> list[bytes]:
        """The next column."""
        self._count(count)
        form = self.program.number(6)
        if form == 2 and not in_table:
            size = self.program.number(ELEMENTS)
            elements = self.column(size, in_table=True)
            indices = self.vector(count)
            if any(not 0 <= index < size for index in indices):
                raise Refused("index in a table")
            return [elements[index] for index in indices]
        readers = {0: self._strings, 1: self._fixed, 3: self._binary, 4: self._decimal, 5: self._time}
        if form not in readers and form != 6:
            raise Refused("a table in a table")
        return readers.get(form, self._digits)(count)

    def _strings(self, count: int) -> list[bytes]:
        lengths = self.vector(count)
        if any(length < 0 for length in lengths) or sum(lengths) > self.plain:
            raise Refused("lengths of strings")
        return [self.text.take(length) for length in lengths]

    def _fixed(self, count: int) -> list[bytes]:
        width = self.program.number(self.plain)
        if width * count > self.plain:
            raise Refused("a column longer than the block")
        planes = self.raw.take(width * count)
        return [planes[k::count] for k in range(count)] if width else [b""] * count

    def _binary(self, count: int) -> list[bytes]:
        width, big = divmod(self.program.number(17), 2)
        if not 1 <= width <= 8:
            raise Refused("width of a number")
        mask = (1 << 8 * width) - 1
        order = "big" if big else "little"
        return [(value & mask).to_bytes(width, order) for value in self.vector(count)]  # type: ignore[arg-type]

    def _decimal(self, count: int) -> list[bytes]:
        decimals, flags, width = self.program.number(18), self.program.number(3), self.program.number(64)
        return [_decimal(value, decimals, flags, width) for value in self.vector(count)]

    def _time(self, count: int) -> list[bytes]:
        decimals = self.program.number(18)
        self.program.number(3)
        self.program.number(64)
        found = []
        for value in self.vector(count):
            seconds, part = divmod(value, 10**decimals)
            if value < 0 or seconds >= 360_000:
                raise Refused("a time")
            text = f"{seconds // 3600:02}{seconds // 60 % 60:02}{seconds % 60:02}"
            found.append((text + (f".{part:0{decimals}}" if decimals else "")).encode())
        return found

    def _digits(self, count: int) -> list[bytes]:
        bits, width = self.program.number(4096), self.program.number(64)
        packed = int.from_bytes(self.raw.take((count * bits + 7) // 8), "little")
        return [str(packed >> k * bits & (1 << bits) - 1).zfill(width).encode() for k in range(count)]

    def vector(self, count: int) -> list[int]:
        """The next vector."""
        values = [wrapped(value) for value in self._vector(count)]
        self.vectors.append(values)
        return values

    def _vector(self, count: int) -> list[int]:
        form = self.program.number(5)
        if form == 0:
            return [self.program.signed()] * count
        if form == 1:
            first, step = self.program.signed(), self.program.signed()
            return [first + k * step for k in range(count)]
        if form == 2:
            return self._planes(count)
        if form == 3:
            values = [self.program.signed()]
            if not count:
                raise Refused("differences of nothing")
            for step in self._planes(count - 1):
                values.append(values[-1] + step)
            return values
        back = self.program.number()
        if back >= len(self.vectors) or not count or len(self.vectors[-1 - back]) != count:
            raise Refused("a vector refers to none")
        x = self.vectors[-1 - back]
        if form == 4:
            first, factor, divisor = self.program.signed(), self.program.signed(), self.program.signed()
            if not (0 < abs(factor) <= 1 << 40 and 0 < abs(divisor) <= 1 << 40):
                raise Refused("a factor")
            return [first + wrapped(one - x[0]) // divisor * factor for one in x]
        factor = self.program.signed()
        rests = self._planes(count)
        return [(wrapped(one * factor) >> 16) + rest for one, rest in zip(x, rests, strict=True)]

    def _planes(self, count: int) -> list[int]:
        least, width = self.program.signed(), self.program.number(8)
        planes = self.numbers.take(width * count)
        return [
            least + sum(planes[plane * count + k] << 8 * plane for plane in range(width))
            for k in range(count)
        ]


def _length(code: int, length: int) -> bytes:
    size, order = LENGTHS[code]
    if size and length >> 8 * size:
        raise Refused("a length does not fit")
    return length.to_bytes(size, order) if size else b""  # type: ignore[arg-type]


def _decimal(value: int, decimals: int, flags: int, width: int) -> bytes:
    whole, part = divmod(abs(value), 10**decimals)
    after = f"{part:0{decimals}}" if decimals else ""
    if flags & 1:
        after = after.rstrip("0")
    text = ("-" if value < 0 else "") + str(whole) + ("." + after if after else "")
    return text.rjust(width, "0" if flags & 2 else " ").encode()


def plain_block(payload: bytes, base: bytes | None, rows: int, plain: int, texts: Texts = no_texts) -> bytes:
    """The plain bytes of a block of columns; ``base`` is the payload of the block with its templates."""
    if not 0 < rows <= ROW_LIMIT or plain > PLAIN_LIMIT:
        raise Refused("size of a block")
    streams = streams_of(payload, texts)
    program, text = (streams if base is None else streams_of(base, texts))[:2]
    roots, templates = templates_of(program, text)
    made = b"".join(Filling(streams, roots, templates, plain).rows(rows))
    if len(made) != plain or not all(stream.empty for stream in streams):
        raise Refused("a block does not come out even")
    return made
