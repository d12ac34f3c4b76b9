"""Journal objects, read from `docs/format.md` alone; for `independent_reader`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.independent_codecs import Refused, Unsupported
from tests.independent_objects import (
    HEAD,
    JOURNAL,
    KINDS,
    TABLE_LIMIT,
    Section,
    check_head,
    fields,
    known,
    payload,
    section_at,
    structure,
)


@dataclass(frozen=True)
class Node:
    """A patient, study or series: number, that of its parent (0 for patients), folder, other fields."""

    level: str
    number: int
    parent: int
    folder: str
    rest: tuple[Any, ...]


@dataclass(frozen=True)
class Decision:
    """An instance yields to another one."""

    series: int
    position: int
    to_series: int
    to_position: int
    version: int
    conflict: int


@dataclass(frozen=True)
class JournalObject:
    """A decoded journal object: what its entries say, by tag."""

    sequence: int
    time_ns: int
    writer: str
    nodes: list[Node]
    counters: dict[str, int]
    decisions: list[Decision]
    pins: list[tuple[list[int], list[int]]]
    """Series pinned, and no longer pinned."""
    forgotten: set[tuple[int, int]]
    holds: list[tuple[bool, int, int, int]]
    """Set or released, level, number, position."""
    tainted: set[tuple[int, str]]
    """Kind and digest of packs."""


def patient_node(value: Any) -> Node:
    number, issuer, patient_id, name, folder = fields(value, 5)
    return Node("patient", number, 0, folder, (issuer, patient_id, name))


def study_node(value: Any) -> Node:
    number, patient, uid, date, text, folder = fields(value, 6)
    return Node("study", number, patient, folder, (uid, date, text))


def series_node(value: Any) -> Node:
    number, study, uid, modality, series_number, text, folder = fields(value, 7)
    return Node("series", number, study, folder, (uid, modality, series_number, text))


def read_journal(data: bytes, sequence: int) -> JournalObject:
    """Decode a journal object that lies under the key of this sequence number."""
    sections: list[Section] = []
    while not sections or sections[-1].end < len(data):
        sections.append(section_at(data, sections[-1].end if sections else 0))
    needed = [section for section in sections if known(section, KINDS["journal"])]
    if [section.kind for section in needed] != [HEAD, JOURNAL] or needed[-1] is not sections[-1]:
        raise Refused("a journal object of other sections")
    check_head(structure(payload(data, needed[0], TABLE_LIMIT)), KINDS["journal"])
    number, time_ns, writer, entries = fields(structure(payload(data, needed[1], TABLE_LIMIT)), 4)
    if number != sequence.to_bytes(8, "little"):
        raise Refused(f"a journal object of another number lies under {sequence}")
    found = JournalObject(sequence, time_ns, writer, [], {}, [], [], set(), [], set())
    for tag, *rest in entries:
        _take_entry(found, tag, rest)
    return found


def _take_entry(found: JournalObject, tag: int, rest: list[Any]) -> None:
    if tag == 1:
        for level, values in zip((patient_node, study_node, series_node), fields(rest, 3), strict=True):
            found.nodes.extend(map(level, values))
    elif tag == 2:
        found.counters.update(zip(("patient", "study", "series"), fields(rest, 3), strict=True))
    elif tag == 3:
        found.decisions.extend(Decision(*fields(one, 6)) for one in fields(rest, 1)[0])
    elif tag == 10:
        pinned, unpinned = fields(rest, 2)
        found.pins.append((list(pinned), list(unpinned)))
    elif tag == 11:
        series, _reason = fields(rest, 2)
        found.forgotten.update((number, one) for number, places in series for one in places)
    elif tag == 12:
        found.holds.extend((True, *fields(one, 3)) for one in fields(rest, 2)[0])
    elif tag == 13:
        found.holds.extend((False, *fields(one, 3)) for one in fields(rest, 2)[0])
    elif tag == 14:
        found.tainted.update((kind, digest.hex()) for kind, digest in fields(rest, 1)[0])
    else:
        raise Unsupported(f"entry tag {tag}")
