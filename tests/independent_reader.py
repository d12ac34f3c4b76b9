"""A reader of archives, written from `docs/format.md` alone: the proof that the page is complete.

Owns its own view of what a tier holds, from series parts and journal to the bytes of each file, and imports
nothing of the product.  Objects are in `independent_objects`, band payloads in `independent_codecs`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from tests.independent_codecs import Refused, Unsupported, decode_band, unzstd
from tests.independent_codestreams import make
from tests.independent_columns import integers
from tests.independent_header_packs import part_of, plain_bytes_of, uids_of
from tests.independent_headers import shared_text
from tests.independent_journal import (
    Node,
    patient_node,
    read_journal,
    series_node,
    study_node,
)
from tests.independent_objects import (
    CHUNK_LIMIT,
    KINDS,
    Pack,
    Segment,
    cut,
    digest,
    fields,
    open_pack,
)

PREFIXES = {number: name for name, number in KINDS.items()}
Value = TypeVar("Value")


@dataclass(frozen=True)
class Piece:
    """A run of a file: its kind and numbers; ``key``: kind, digest, index digest of its pack."""

    kind: str
    key: tuple[int, bytes, bytes] | None
    numbers: tuple[int, ...]
    digest: bytes = b""
    """Of codestreams."""

    @property
    def recipe(self) -> int:
        """Bytes of the recipe of a codestream."""
        return self.numbers[-2] if self.kind in "CT" else 0


@dataclass(frozen=True)
class Instance:
    """One file of the archive: how it is shown, and what it is made of."""

    patient: Node
    study: Node
    series: Node
    position: int
    name: str
    uid: str
    size: int
    mtime_ns: int
    sha256: bytes
    order: int
    note: str
    pieces: tuple[Piece, ...]
    pack: str
    block: int
    block_offset: int


# Series parts ----------------------------------------------------------------------------------------------


def file_name(number: int | None, uid: str, level: int) -> str:
    """Name of a file in its series folder."""
    if level not in {0, 1, 2}:
        raise Refused(f"name level {level}")
    hexadecimal = hashlib.sha256(uid.encode()).hexdigest()
    if number is None or not 0 <= number < 10**15:
        return f"x-{hexadecimal[: 8 * max(level, 1)]}.dcm"
    return f"{number:06d}-{hexadecimal[: 8 * level]}.dcm" if level else f"{number:06d}.dcm"


def instances_of(
    part: Any, pack: str, nodes: dict[tuple[str, int], Node], plain: Callable[[int], bytes]
) -> Iterator[Instance]:
    """Instances of a series part; ``nodes`` are those said before, ``plain`` gives the bytes of a block."""
    found_nodes = [
        make(value) for make, value in zip((patient_node, study_node, series_node), part, strict=False)
    ]
    patient, study, series = (nodes.setdefault((node.level, node.number), node) for node in found_nodes)
    rows, runs = part[5:7]
    position, level, has, number, uid, body, mtime, digests, order, notes, note = part[7:18]
    keys, shapes, shape, header, frames, stream = part[18:24]
    uid_of = uids_of(uid, part[25] if len(part) > 25 else None, rows, plain)
    numbered = integers(has, rows)
    numbers = iter(integers(number, sum(numbered)))
    shown = [next(numbers) if there else None for there in numbered]
    shapes_of_rows = [bytes(shapes[one]).decode("ascii") for one in integers(shape, rows)]
    coded = part[24] if len(part) > 24 else None
    pieces = _pieces(shapes_of_rows, keys, (header, frames, stream), coded)
    place = _places(runs)
    columns = zip(*(integers(one, rows) for one in (position, level, body, mtime, order, note)), strict=True)
    for k, (at, form, bulk, time_ns, rank, why) in enumerate(columns):
        found = tuple(next(pieces) for _ in shapes_of_rows[k])
        head = sum(one.numbers[0] for one in found if one.kind == "H")
        block, offset = place(head + sum(one.recipe for one in found))
        named = uid_of(k, block, offset)
        yield Instance(
            patient=patient,
            study=study,
            series=series,
            position=at,
            name=file_name(shown[k], named, form),
            uid=named,
            size=bulk + head,
            mtime_ns=time_ns,
            sha256=digests[32 * k : 32 * k + 32],
            order=rank,
            note=notes[why],
            pieces=found,
            pack=pack,
            block=block,
            block_offset=offset,
        )


def _places(runs: Any) -> Callable[[int], tuple[int, int]]:
    """Give block and offset of the header bytes of row after row, told how many each has."""
    left: list[list[int]] = [fields(run, 3) for run in reversed(runs)]

    def place(length: int) -> tuple[int, int]:
        while left and not left[-1][2]:
            left.pop()
        if not left:
            raise Refused("runs end before the rows")
        block, offset, rows = left[-1]
        left[-1] = [block, offset + length, rows - 1]
        return block, offset

    return place


def _pieces(shapes: Sequence[str], keys: Any, columns: Any, coded: Any) -> Iterator[Piece]:
    order = "".join(shapes)
    header, frames, stream = columns
    rows = {
        "H": iter([(one,) for one in integers(header, order.count("H"))]),
        "F": zip(*(integers(one, order.count("F")) for one in fields(frames, 5)), strict=True),
        "S": zip(*(integers(one, order.count("S")) for one in fields(stream, 4)), strict=True),
    }
    counts = {kind: order.count(kind) for kind in "CT"}
    digests: dict[str, Iterator[bytes]] = {}
    if coded is not None:
        of_frames, of_streams, data = fields(coded, 3)
        rows["C"] = zip(*(integers(one, counts["C"]) for one in fields(of_frames, 6)), strict=True)
        rows["T"] = zip(*(integers(one, counts["T"]) for one in fields(of_streams, 7)), strict=True)
        cuts = [data[at : at + 8] for at in range(0, len(data), 8)]
        digests = {"C": iter(cuts[: counts["C"]]), "T": iter(cuts[counts["C"] :])}
    elif any(counts.values()):
        raise Refused("codestreams without columns")
    for kind in order:
        numbers: tuple[int, ...] = next(rows[kind])
        if kind == "H":
            yield Piece(kind, None, numbers)
        else:
            pack, name, index = fields(keys[numbers[0]], 3)
            check = next(digests[kind]) if kind in "CT" else b""
            yield Piece(kind, (pack, name, index), numbers[1:], check)


# A tier ----------------------------------------------------------------------------------------------------


class TierReader:
    """What a folder tier holds.  ``journal`` and ``instances`` are read at once, bytes when asked for."""

    def __init__(self, tier: Path) -> None:
        self._tier = tier
        self._packs: _Recent[Pack] = _Recent(8)
        self._segments: _Recent[list[bytes]] = _Recent(32)
        self._blocks: _Recent[bytes] = _Recent(32)
        self.scanned: set[str] = set()
        self._stand_ins = self._find_stand_ins()
        self.journal = [
            read_journal(path.read_bytes(), int(path.name, 16))
            for path in sorted((tier / "journal").glob("[0-9a-f]*"))
        ]
        self.instances = list(self._instances())
        self._versions = self._decide()

    def path_of(self, instance: Instance) -> str:
        """Where the instance is shown."""
        folders = "/".join(node.folder for node in (instance.patient, instance.study, instance.series))
        version = self._versions.get((instance.series.number, instance.position), 0)
        if version:
            return f"versions/{folders}/{instance.name}/{version}.dcm"
        return f"patients/{folders}/{instance.name}"

    def read(self, instance: Instance) -> bytes:
        """All bytes of a file; raises Refused where a digest, the size or the SHA-256 does not match."""
        header = self._header(instance)
        recipes = header[sum(piece.numbers[0] for piece in instance.pieces if piece.kind == "H") :]
        out = []
        for piece in instance.pieces:
            if piece.kind == "H":
                (length,) = piece.numbers
                out.append(header[:length])
                header = header[length:]
            elif piece.kind == "F":
                out += self._frames(self._pack_of(piece), *piece.numbers)
            elif piece.kind in "CT":
                out.append(self._codestream(piece, recipes[: piece.recipe]))
                recipes = recipes[piece.recipe :]
            else:
                out.append(self._range(self._pack_of(piece), *piece.numbers))
        data = b"".join(out)
        if len(data) != instance.size or hashlib.sha256(data).digest() != instance.sha256:
            raise Refused(f"{instance.series.number}/{instance.position}: not the accepted bytes")
        return data

    def pack(self, key: str) -> Pack:
        """Open a pack; raises Refused when its name is not that of its bytes."""
        return self._packs.get(key, lambda: self._open(key))

    def _pack_of(self, piece: Piece) -> str:
        """Key of the pack that a piece lies in, which must be the pack that was meant."""
        assert piece.key is not None
        kind, name, index = piece.key
        if (kind, name) in self._stand_ins:
            _, other, key = self._stand_ins[kind, name]
            if other != index:
                raise Refused(f"{key} stands for another pack")
            return key
        key = f"{PREFIXES[kind]}/{name.hex()[:2]}/{name.hex()}"
        if self.pack(key).index_digest not in (b"", index):
            raise Refused(f"{key} is another pack")
        return key

    def _find_stand_ins(self) -> dict[tuple[int, bytes], tuple[int, bytes, str]]:
        """Kind and digest of a pack -> length of its stand-in's list, digest of its index, the stand-in."""
        found: dict[tuple[int, bytes], tuple[int, bytes, str]] = {}
        for path in sorted(path for kind in ("pixel", "burned") for path in (self._tier / kind).glob("??/*")):
            key = str(path.relative_to(self._tier))
            try:
                listed = self.pack(key).tables.stands_for
            except (Refused, Unsupported):
                continue  # what needs it is refused when it is read
            for kind, name, index in listed:
                if (kind, name) not in found or found[kind, name][0] < len(listed):
                    found[kind, name] = len(listed), index, key
        return found

    def _open(self, key: str) -> Pack:
        path = self._tier / key
        if not path.is_file():
            raise Refused(f"{key} is missing")
        data = path.read_bytes()
        pack = open_pack(data, KINDS[key.split("/", maxsplit=1)[0]])
        if pack.scanned:
            self.scanned.add(key)
        elif hashlib.sha256(data).hexdigest() != path.name:
            raise Refused(f"{key} is damaged")
        return pack

    def _instances(self) -> Iterator[Instance]:
        """Instances of all parts but those that repeat positions of one that counts."""
        nodes: dict[tuple[str, int], Node] = {}
        for document in self.journal:
            for node in document.nodes:
                nodes.setdefault((node.level, node.number), node)
        forgotten: set[tuple[int, int]] = set().union(*(document.forgotten for document in self.journal))
        parts: list[tuple[tuple[int, bool, int, int, str], list[Instance]]] = []
        for path in sorted((self._tier / "header").glob("??/*")):
            key = str(path.relative_to(self._tier))
            pack = self.pack(key)
            for place, number in pack.tables.parts:
                part = part_of(pack, place, number)
                found = [
                    one
                    for one in instances_of(part, key, nodes, partial(self._plain, pack, key))
                    if (part[2][0], one.position) not in forgotten
                ]
                parts.append(((part[2][0], self._misses(found), -len(found), part[3], key), found))
        taken: set[tuple[int, int]] = set()
        for (series, *_), found in sorted(parts, key=lambda one: one[0]):
            places = {(series, one.position) for one in found}
            if not places & taken:
                taken |= places
                yield from found

    def _misses(self, instances: Iterable[Instance]) -> bool:
        """Whether a pack that these need is not on the tier, nor one that stands in for it."""
        keys = {piece.key for one in instances for piece in one.pieces if piece.key is not None}
        return any(
            (kind, name) not in self._stand_ins
            and not (self._tier / PREFIXES[kind] / name.hex()[:2] / name.hex()).is_file()
            for kind, name, _ in keys
        )

    def _decide(self) -> dict[tuple[int, int], int]:
        """Version number of each instance that is not shown under ``patients/``."""
        there = {(one.series.number, one.position) for one in self.instances}
        decisions = [one for document in self.journal for one in document.decisions]
        last = {(one.series, one.position): one for one in decisions}
        versions = {}
        for instance, decision in last.items():
            winner, passed = (decision.to_series, decision.to_position), {instance}
            while winner not in there and winner in last and winner not in passed:
                passed.add(winner)
                winner = (last[winner].to_series, last[winner].to_position)
            if instance in there and winner in there and winner not in passed:
                versions[instance] = decision.version
        self._part_twins(versions)
        return versions

    def _part_twins(self, versions: dict[tuple[int, int], int]) -> None:
        """Show the last one where two have one name and no decision."""
        by_name: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for one in self.instances:
            by_name.setdefault((one.series.number, one.name), []).append((one.series.number, one.position))
        for named in by_name.values():
            free = 1 + max(versions.get(one, 0) for one in named)
            undecided = sorted(one for one in named if one not in versions)
            versions.update((one, free + k) for k, one in enumerate(undecided[:-1]))

    def _plain(self, pack: Pack, key: str, block: int) -> bytes:
        return self._blocks.get(f"{key} {block}", lambda: plain_bytes_of(pack, block, texts=self._text))

    def _text(self, name: bytes, index: bytes) -> bytes:
        """A shared text."""
        key = f"text/{name.hex()[:2]}/{name.hex()}"
        pack = self.pack(key)
        if pack.index_digest not in (b"", index):
            raise Refused(f"{key} is another pack")
        return shared_text(self._range(key, 0, 0, pack.tables.streams[0]))

    def _header(self, instance: Instance) -> bytes:
        length = sum(piece.numbers[0] if piece.kind == "H" else piece.recipe for piece in instance.pieces)
        pack = self.pack(instance.pack)
        plain = self._plain(pack, instance.pack, instance.block)
        return cut(plain, instance.block_offset, length)

    def _codestream(self, piece: Piece, recipe: bytes) -> bytes:
        key = self._pack_of(piece)
        if piece.kind == "C":
            stack, frame, method, _, length = piece.numbers
            (source,) = self._frames(key, stack, frame, 1, 0)
            found = make(method, source, self.pack(key).tables.stacks[stack][0], recipe)
        else:
            stream, offset, stored, method, _, length = piece.numbers
            found = make(method, self._range(key, stream, offset, stored), None, recipe)
        if len(found) != length or digest(found) != piece.digest:
            raise Refused("digest of a codestream")
        return found

    def _frames(self, key: str, stack: int, first: int, count: int, step: int) -> list[bytes]:
        pack = self.pack(key)
        out = []
        for frame in range(first, first + step * count, step) if step else [first] * count:
            for segment in pack.tables.segments.get(stack, []):
                if segment.first <= frame < segment.first + segment.frames:
                    break
            else:
                raise Refused(f"frame {frame} of stack {stack} is lost")
            name = f"{key} {stack} {segment.first}"
            out.append(self._segments.get(name, _decoder(pack, segment))[frame - segment.first])
        return out

    def _range(self, key: str, stream: int, offset: int, length: int) -> bytes:
        pack = self.pack(key)
        out, end = [], offset + length
        for chunk in pack.tables.chunks.get(stream, []):
            if chunk.offset >= end or chunk.offset + chunk.plain <= offset:
                continue
            plain = cut(pack.data, chunk.place, chunk.stored)
            if chunk.stored != chunk.plain:
                if chunk.plain > CHUNK_LIMIT:
                    raise Refused("a chunk is too long")
                plain = unzstd(plain, chunk.plain)
            if digest(plain) != chunk.digest:
                raise Refused("digest of a chunk")
            out.append(plain[max(offset - chunk.offset, 0) : end - chunk.offset])
        return b"".join(out)


class _Recent(Generic[Value]):
    """The values asked for last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, name: str, make: Callable[[], Value]) -> Value:
        """Return a value, made when it is not there."""
        if name not in self._values:
            self._values[name] = make()
        self._values.move_to_end(name)
        while len(self._values) > self._most:
            self._values.popitem(last=False)
        return self._values[name]


def _decoder(pack: Pack, segment: Segment) -> Callable[[], list[bytes]]:
    """Decode all frames of a segment, when asked to."""
    return lambda: _decode(pack, segment)


def _decode(pack: Pack, segment: Segment) -> list[bytes]:
    layout, _ = pack.tables.stacks[segment.stack]
    bands, at = [], segment.place
    for rows, length in zip(segment.band_rows, segment.band_lengths, strict=True):
        bands.append(decode_band(cut(pack.data, at, length), layout, rows, segment.frames, segment.codec))
        at += length
    frames = [list(rows) for rows in zip(*bands, strict=True)]
    if b"".join(digest(rows) for frame in frames for rows in frame) != segment.digests:
        raise Refused("digest of a band")
    whole = [b"".join(frame) for frame in frames]
    if any(len(frame) != layout.frame_bytes for frame in whole):
        raise Refused("a frame of another length")
    return whole
