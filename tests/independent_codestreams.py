"""Codestreams made again from frames and recipes, from `docs/format.md` alone; see `independent_reader`."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import imagecodecs
import jpeg_ls
import numpy as np

from tests.independent_codecs import Array, Layout, Refused, Unsupported


def make(method: int, source: bytes, layout: Layout | None, recipe: bytes) -> bytes:
    """The bytes of a piece: item headers put into the codestream."""
    count, at = _number(recipe, 0)
    headers = []
    for _ in range(count):
        gap, at = _number(recipe, at)
        headers.append((gap, recipe[at : at + 8]))
        at += 8
    flags, parts = _parts(recipe[at:])
    if layout is None:
        if method != 16:
            raise Unsupported(f"method {method}")
        found = bytes(imagecodecs.jpegxl_decode_jpeg(source, numthreads=1)) + parts[0]
    elif method == 1:
        found = _jpeg_lossless(source, layout, parts)
    elif method == 2:
        found = _jpeg_ls(source, layout, parts)
    elif method == 3:
        found = _rle(source, layout, flags, parts)
    else:
        raise Unsupported(f"method {method}")
    out = []
    for gap, header in headers:
        out += [found[:gap], header]
        found = found[gap:]
    return b"".join([*out, found])


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise Refused("a number is cut off")
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def _parts(recipe: bytes) -> tuple[int, list[bytes]]:
    count, at = _number(recipe, 1)
    lengths = []
    for _ in range(count):
        length, at = _number(recipe, at)
        lengths.append(length)
    if at + sum(lengths) != len(recipe):
        raise Refused("a recipe")
    ends = itertools.accumulate(lengths, initial=at)
    return recipe[0], [recipe[a:b] for a, b in itertools.pairwise(ends)]


# JPEG ------------------------------------------------------------------------------------------------------


@dataclass
class _Headers:
    """What marker segments have said so far."""

    rows: int = 0
    columns: int = 0
    bits: int = 0
    ids: list[int] = field(default_factory=list)
    tables: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)
    restart: int = 0
    scan: bytes = b""

    def read(self, literal: bytes) -> None:
        """Go through the marker segments of a literal."""
        at = 0
        while at < len(literal):
            marker = literal[at + 1]
            at += 2
            if marker in {0xD8, 0xFF}:
                at -= marker == 0xFF
                continue
            if marker == 0xD9:
                return
            length = int.from_bytes(literal[at : at + 2], "big")
            self._take(marker, literal[at + 2 : at + length])
            at += length

    def _take(self, marker: int, body: bytes) -> None:
        if marker in {0xC3, 0xF7}:
            self.bits, self.rows, self.columns, count = struct.unpack_from(">BHHB", body)
            self.ids = [body[6 + 3 * k] for k in range(count)]
        elif marker == 0xC4:
            while body:
                size = 17 + sum(body[1:17])
                self.tables[body[0]] = _codes(body[1:17], body[17:size])
                body = body[size:]
        elif marker == 0xDD:
            self.restart = int.from_bytes(body, "big")
        elif marker == 0xDA:
            self.scan = body


def _codes(counts: bytes, symbols: bytes) -> dict[int, tuple[int, int]]:
    """Symbol -> code, length."""
    found: dict[int, tuple[int, int]] = {}
    code, left = 0, iter(symbols)
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            found.setdefault(next(left), (code, length))
            code += 1
        code <<= 1
    return found


def _samples(source: bytes, layout: Layout) -> Array:
    words = np.frombuffer(source, f"<u{layout.allocated // 8}")
    return words.reshape(layout.rows, layout.columns, layout.samples).astype(np.int64)


def _jpeg_lossless(source: bytes, layout: Layout, parts: list[bytes]) -> bytes:
    cuts, literals = parts[0], parts[1:]
    samples, headers = _samples(source, layout), _Headers()
    headers.read(literals[0])
    out = [literals[0]]
    for cut, literal in zip(cuts, literals[1:], strict=True):
        data = _scan(headers, samples)
        out += [data[: len(data) - cut], literal]
        start = 0
        while cut and not (literal[start] == 255 and literal[start + 1] > 1):
            start += 1
        headers.read(literal[start:])
    return b"".join(out)


def _scan(headers: _Headers, samples: Array) -> bytes:
    count = headers.scan[0]
    chosen = [headers.ids.index(headers.scan[1 + 2 * k]) for k in range(count)]
    tables = [headers.tables[headers.scan[2 + 2 * k] >> 4] for k in range(count)]
    predictor, shift = headers.scan[-3], headers.scan[-1] & 15
    lines = headers.restart // headers.columns or headers.rows
    out = bytearray()
    for number, top in enumerate(range(0, headers.rows, lines)):
        planes = [(samples[top : top + lines, :, one] >> shift).tolist() for one in chosen]
        steps = [_steps(plane, predictor, 1 << (headers.bits - shift - 1)) for plane in planes]
        bits: list[str] = []
        for pixel in zip(*steps, strict=True):
            for step, table in zip(pixel, tables, strict=True):
                size = abs(step).bit_length()
                if size not in table:
                    raise Refused("a difference without a code")
                code, length = table[size]
                bits.append(f"{code:0{length}b}")
                if 0 < size < 16:
                    bits.append(f"{(step if step > 0 else step - 1) & ((1 << size) - 1):0{size}b}")
        joined = "".join(bits)
        joined += "1" * (-len(joined) % 8)
        data = int(joined, 2).to_bytes(len(joined) // 8, "big")
        out += bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b""
        out += data.replace(b"\xff", b"\xff\x00")
    return bytes(out)


def _steps(plane: list[list[int]], predictor: int, middle: int) -> Iterator[int]:
    for y, row in enumerate(plane):
        for x, value in enumerate(row):
            if y == 0:
                guess = row[x - 1] if x else middle
            elif x == 0:
                guess = plane[y - 1][0]
            else:
                a, b, c = row[x - 1], plane[y - 1][x], plane[y - 1][x - 1]
                guesses = (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)
                guess = guesses[predictor - 1]
            step = (value - guess) % 65536
            yield step if step <= 32768 else step - 65536


def _jpeg_ls(source: bytes, layout: Layout, literals: list[bytes]) -> bytes:
    headers, samples = _Headers(), _samples(source, layout)
    out = []
    for literal in literals[:-1]:
        headers.read(literal)
        count, way = headers.scan[0], headers.scan[-2]
        chosen = [headers.ids.index(headers.scan[1 + 2 * k]) for k in range(count)]
        words = samples[:, :, chosen].astype(f"<u{layout.allocated // 8}")
        stream = bytes(
            jpeg_ls.encode_buffer(words.tobytes(), headers.rows, headers.columns, count, headers.bits, 0, way)
        )
        start = stream.index(b"\xff\xda")
        start += 2 + int.from_bytes(stream[start + 2 : start + 4], "big")
        out += [literal, stream[start:-2]]
    return b"".join([*out, literals[-1]])


# RLE -------------------------------------------------------------------------------------------------------


def _rle(source: bytes, layout: Layout, flags: int, parts: list[bytes]) -> bytes:
    size = layout.allocated // 8
    pixels = np.frombuffer(source, np.uint8).reshape(-1, layout.samples, size)
    planes = [pixels[:, k, byte].tobytes() for k in range(layout.samples) for byte in reversed(range(size))]
    segments = [
        _segment(plane, layout.columns, departures) + tail
        for plane, departures, tail in zip(planes, parts[1::2], parts[2::2], strict=True)
    ]
    header = parts[0]
    if flags & 1:
        places = list(itertools.accumulate([64, *map(len, segments[:-1])]))
        header = struct.pack("<16I", len(segments), *places, *[0] * (15 - len(segments)))
    return b"".join([header, *segments])


def _segment(plane: bytes, width: int, departures: bytes) -> bytes:
    usual = _policy(plane, width, departures[0])
    controls: list[int] = []
    taken, at = 0, 1
    while at < len(departures):
        keep, at = _number(departures, at)
        skip, at = _number(departures, at)
        add, at = _number(departures, at)
        controls += usual[taken : taken + keep] + list(departures[at : at + add])
        taken += keep + skip
        at += add
    controls += usual[taken:]
    out, place = bytearray(), 0
    for control in controls:
        length = control + 1 if control < 128 else 257 - control
        out.append(control)
        out += plane[place : place + length] if control < 128 else plane[place : place + 1]
        place += length
    if place != len(plane):
        raise Refused("runs that do not make up the plane")
    return bytes(out)


def _policy(plane: bytes, width: int, policy: int) -> list[int]:
    """Control bytes."""
    rows = [plane] if policy & 4 else [plane[at : at + width] for at in range(0, len(plane), width)]
    found: list[int] = []
    for row in rows:
        stretches = [len(list(same)) for _, same in itertools.groupby(row)]
        stretches = [
            part for one in stretches for part in [128] * (one // 128) + ([one % 128] if one % 128 else [])
        ]
        waiting, before = 0, 0
        for number, length in enumerate(stretches):
            run = length >= 3
            if length == 2:
                between = number + 1 < len(stretches) and stretches[number + 1] == 1
                literal = [True, False, before == 1, before == 1 and between][policy & 3]
                run = not literal
            else:
                before = length
            if run:
                found += _literals(waiting)
                waiting = 0
                found.append(257 - length)
            else:
                waiting += length
        found += _literals(waiting)
    return found


def _literals(length: int) -> list[int]:
    return [127] * (length // 128) + ([length % 128 - 1] if length % 128 else [])
