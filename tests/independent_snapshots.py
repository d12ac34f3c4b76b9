"""Snapshots, read from `docs/format.md` alone; see `independent_reader`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.independent_codecs import Refused
from tests.independent_columns import integers, texts
from tests.independent_objects import HEAD, TABLE_LIMIT, check_head, payload, section_at, structure

SNAPSHOT, JOURNAL_COPIES, HEADER_FACTS, STAND_INS = range(16, 20)
KINDS = {1: "pixel", 2: "burned", 3: "opaque", 4: "header", 5: "text"}


@dataclass
class Snapshot:
    """What one says, in plain values."""

    archive: bytes
    about: tuple[int, str, int, int]
    journal: dict[int, bytes] = field(default_factory=dict)
    headers: dict[str, tuple[int, list[dict[str, Any]]]] = field(default_factory=dict)
    """Key of each header pack: size, and its parts."""
    stand_ins: dict[str, tuple[int, str, list[str]]] = field(default_factory=dict)


def read_snapshot(data: bytes) -> Snapshot:
    """Return what a whole snapshot says; raises Refused."""
    found, offset = None, 0
    while offset < len(data):
        section = section_at(data, offset)
        plain = structure(payload(data, section, TABLE_LIMIT))
        if offset == 0:
            if section.kind != HEAD:
                raise Refused("no object")
            archive = check_head(plain, 17)
        elif found is None:
            if section.kind != SNAPSHOT:
                raise Refused("does not say what it is")
            found = Snapshot(archive, (plain[0], plain[1], int.from_bytes(plain[2], "little"), plain[3]))
        elif section.kind in (JOURNAL_COPIES, HEADER_FACTS, STAND_INS):
            _add(found, section.kind, plain)
        elif not section.optional:
            raise Refused(f"section kind {section.kind}")
        offset = section.end
    if found is None:
        raise Refused("cut short")
    return found


def _add(found: Snapshot, kind: int, plain: list[Any]) -> None:
    if kind == JOURNAL_COPIES:
        found.journal |= {int.from_bytes(number, "little"): copy for number, copy in plain}
    elif kind == HEADER_FACTS:
        for digest, size, parts in plain:
            found.headers[_key(4, digest)] = size, [_part(part) for part in parts]
    else:
        for key, size, profile, stands_for in plain:
            found.stand_ins[_key(*key)] = size, profile, [_key(*one) for one in stands_for]


def _key(kind: int, digest: bytes) -> str:
    return f"{KINDS[kind]}/{digest.hex()[:2]}/{digest.hex()}"


def _part(part: list[Any]) -> dict[str, Any]:
    patient, study, series, number, high_water, needed, rows, *columns = part
    position, level, has_number, numbers, uid, size, mtime, order, digests = columns
    flags = integers(has_number, rows)
    given = iter(integers(numbers, sum(flags)))
    return {
        "patient": patient,
        "study": study,
        "series": series,
        "part": number,
        "high water": high_water,
        "needed": {_key(*one) for one in needed},
        "rows": list(
            zip(
                integers(position, rows),
                integers(level, rows),
                [next(given) if flag else None for flag in flags],
                texts(uid, rows),
                integers(size, rows),
                integers(mtime, rows),
                integers(order, rows),
                [digests[32 * row : 32 * row + 32] for row in range(rows)],
                strict=True,
            )
        ),
    }
