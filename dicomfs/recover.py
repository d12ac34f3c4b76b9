"""Recovering: the catalog rebuilt from packs and journal, the spool's index rebuilt from the spool.

Packs and journal are the truth: the same tree, names and inode numbers come back.  What cannot be read is
listed and left out; everything else is recovered.  Nothing on a tier is changed.
"""

from __future__ import annotations

import array
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dicomfs.dicom.attributes import Attributes, attributes
from dicomfs.dicom.part10 import scan
from dicomfs.errors import (
    DicomfsError,
    FormatError,
    KeyDestroyed,
    NotFoundError,
    TierError,
    TierFull,
    UsageError,
)
from dicomfs.format.header import InstanceEntry
from dicomfs.format.journal import (
    CountersReserved,
    InstancesForgotten,
    JournalEntry,
    NodesMade,
    PinsChanged,
    VersionDecision,
    VersionsDecided,
    decode_journal,
)
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord, SpooledRecord
from dicomfs.index.writer import CatalogWriter
from dicomfs.journal import PREFIX as JOURNAL_PREFIX
from dicomfs.journal import Journal, apply_decision
from dicomfs.model import (
    ConflictClass,
    HeaderPiece,
    InstanceId,
    InstanceRow,
    Level,
    ObjectKey,
    PackKind,
    is_header_pack,
)
from dicomfs.nearest import Lookup
from dicomfs.packing.commit import MOVED, part_rows
from dicomfs.packing.spooled import spooled_bytes
from dicomfs.packs import PackSource
from dicomfs.paths import create_private
from dicomfs.progress import Progress
from dicomfs.recovered_nodes import RecoveredNodes
from dicomfs.recovered_stand_ins import StandIns
from dicomfs.series_names import SeriesNames
from dicomfs.spool import Spool, SpooledFile
from dicomfs.tier_set import TierSet
from dicomfs.tiers.base import ByteRange, Tier

_COPY_STEP = 8 << 20
_DECISIONS_AT_ONCE = 1000
"""More would keep the catalog's one writer busy for long."""


@dataclass(slots=True)
class RecoverReport:
    """What was recovered and what is missing."""

    objects: int = 0
    series: int = 0
    instances: int = 0
    spooled: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Series that the journal names and nothing holds: lost with their header packs, or never arrived."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What choosing among the parts of a series takes; its table is read again when it is committed."""

    number: int
    key: ObjectKey
    index: int
    positions: array.array[int]
    """4 bytes an instance, where the table takes some hundred: all parts are held at once."""
    needed: frozenset[ObjectKey]


@dataclass(slots=True)
class _Found:
    """What packs and journal say."""

    sizes: dict[ObjectKey, int] = field(default_factory=dict)
    tiers: dict[ObjectKey, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """The tiers that have an object, each with the time 0: nothing is verified yet."""
    nodes: RecoveredNodes = field(default_factory=RecoveredNodes)
    parts: dict[int, list[_Part]] = field(default_factory=lambda: defaultdict(list))
    versions: list[VersionDecision] = field(default_factory=list)
    pinned: set[int] = field(default_factory=set)
    """Series."""
    references: dict[ObjectKey, set[ObjectKey]] = field(default_factory=lambda: defaultdict(set))
    stand_ins: StandIns = field(default_factory=StandIns)
    forgotten: set[InstanceId] = field(default_factory=set)
    decided: list[JournalEntry] = field(default_factory=list)
    """Tombstones and holds, in the order of the journal."""

    def object(self, key: ObjectKey) -> ObjectRecord | None:
        """An object as the catalog would know it."""
        size = self.sizes.get(key)
        return None if size is None else ObjectRecord(key, size, self.tiers[key])

    def next_positions(self) -> dict[int, int]:
        """Per series, a position above all that packs and decisions name; 0 where they name none."""
        free: dict[int, int] = defaultdict(int)
        for series, parts in self.parts.items():
            free[series] = 1 + max((max(part.positions, default=-1) for part in parts), default=-1)
        for decision in self.versions:
            for instance in (decision.instance, decision.yields_to):
                free[instance.series] = max(free[instance.series], instance.position + 1)
        return free


def archive_of(tier: Tier) -> bytes:
    """The identity of the archive that a tier belongs to, 16 bytes, from the first object that says so.

    Raises:
        UsageError: the tier holds no archive.
    """
    source = PackSource(tier)
    problems = []
    for key, _ in tier.list(PackKind.HEADER.prefix):
        try:
            return source.headers(key).archive_id
        except DicomfsError as problem:
            problems.append(str(problem))
    for key, _ in tier.list(JOURNAL_PREFIX):
        try:
            return decode_journal(tier.get(key)).archive_id
        except DicomfsError as problem:
            problems.append(str(problem))
    raise UsageError(
        f"tier {tier.name} holds no archive" + "".join(f"; {problem}" for problem in problems[:3])
    )


def copy_journal(source: Tier, target: Tier) -> list[str]:
    """Copy the journal objects that the target lacks; those that are damaged are returned."""
    problems = []
    there = {key for key, _ in target.list(JOURNAL_PREFIX)}
    for key, _ in source.list(JOURNAL_PREFIX):
        if key in there:
            continue
        try:
            document = source.get(key)
            decode_journal(document)
            target.put(key, document, hashlib.sha256(document).hexdigest())
        except (FormatError, TierError) as problem:
            problems.append(f"not copied: {problem}")
    return problems


def copy_objects(source: Tier, target: Tier, staging: Path, progress: Progress) -> list[str]:
    """Copy every object of an archive; those that are missing or do not match their names are returned."""
    objects = [found for kind in PackKind for found in source.list(kind.prefix)]
    progress.start(sum(status.size for _, status in objects), "copying")
    problems = []
    temporary = staging / "copy.part"
    for key, status in objects:
        try:
            with create_private(temporary) as file:
                for offset in range(0, status.size, _COPY_STEP):
                    file.write(source.get_range(key, ByteRange(offset, _COPY_STEP)))
                file.flush()
                os.fsync(file.fileno())
            target.put(key, temporary, key.rsplit("/", 1)[1])
        except TierFull:
            raise
        except TierError as problem:
            problems.append(f"not copied: {problem}")
        finally:
            temporary.unlink(missing_ok=True)
        progress.advance(status.size)
    progress.done()
    return problems + copy_journal(source, target)


def recover_catalog(
    catalog: Catalog,
    tiers: TierSet,
    main: str,
    reading: Callable[[Lookup], Tier],
    journal: Journal,
    spool: Spool,
    progress: Progress,
) -> RecoverReport:
    """Fill an empty catalog from the tiers of an archive and its spool.

    ``reading`` makes what reads objects, from what says where they are.  The other tiers than ``main`` may
    fail: then their copies stay unknown until they are attached again.

    Raises:
        TierError, UsageError: the main tier cannot be listed.
        CatalogError: the catalog cannot be written.
    """
    report, found = RecoverReport(), _Found()
    _list_tiers(tiers, main, found, report)
    source = PackSource(reading(found.object))
    _read_tiers(source, journal, found, report, progress)
    found.stand_ins.settle(found.tiers, tiers.names)
    nodes = found.nodes
    report.problems += nodes.settle(found.parts, _spooled_series(spool))
    with catalog.write() as writer:
        for level, reserved in nodes.reserved.items():
            writer.raise_counter(level, reserved)
        for patient in nodes.patients.values():
            writer.add_patient(patient)
        for study in nodes.studies.values():
            writer.add_study(study)
        # Before anything of them is found: who commits a forgotten instance is refused.
        for entry in found.decided:
            apply_decision(writer, entry)
    free_positions = found.next_positions()
    for number in sorted(nodes.series):
        with catalog.write() as writer:
            writer.add_series(nodes.series[number])
            for part in _disjoint(found, number, report):
                try:
                    rows = part_rows(source.identified_part(part.key, part.index))
                except (TierError, FormatError) as problem:
                    report.problems.append(str(problem))
                    continue
                free = max(part.number, writer.next_part(number))
                writer.commit_part(number, free, part.key, part.index, rows)
                writer.set_needs(number, free, part.needed)
                report.instances += len(part.positions)
            writer.raise_position(number, free_positions[number])
        report.series += 1
    with catalog.write() as writer:
        _add_objects(writer, found)
        for number in found.pinned & nodes.series.keys():
            writer.set_pinned(number, pinned=True)
    report.spooled = rebuild_spool(catalog, spool, found.versions)
    discard_forgotten(catalog, spool)
    report.instances += report.spooled
    forgotten = {instance.series for instance in found.forgotten}
    for number in sorted(nodes.series):
        report.problems += _part_twins(catalog, number)
        if number not in forgotten and not catalog.rows(number):
            report.notes.append(
                f"series {number}: the journal names it, and no header pack or spooled file holds any of it"
            )
    progress.done()
    return report


def _add_objects(writer: CatalogWriter, found: _Found) -> None:
    stand_ins = found.stand_ins
    for key, size in found.sizes.items():
        if key not in stand_ins.by_key:
            # Of two that hold the same frames, a tier has the older one by accident: gc takes it away.
            for tier in stand_ins.tiers.get(key, found.tiers[key]):
                # Nothing is proven yet: scrub begins with these.
                writer.add_object(key, size, tier, 0, stand_ins.profiles.get(key, ""))
    for twin, pack in stand_ins.twins.items():
        writer.add_twin(twin, pack)
    for key, stand_in in stand_ins.by_key.items():
        writer.stand_in(key, stand_in)
        if key in found.sizes:
            # Who moved it died before it was deleted.
            writer.add_intent(key, MOVED)
    for key, needed in found.references.items():
        writer.set_references(key, sorted(needed), may_be_missing=True)


def _list_tiers(tiers: TierSet, main: str, found: _Found, report: RecoverReport) -> None:
    for name in tiers.names:
        try:
            listed = [item for kind in PackKind for item in tiers[name].list(kind.prefix)]
        except DicomfsError as problem:
            if name == main:
                raise
            report.problems.append(f"tier {name} was not looked at: {problem}")
            continue
        for key, status in listed:
            if found.sizes.setdefault(key, status.size) == status.size:
                found.tiers[key][name] = 0
            else:
                report.problems.append(f"tier {name}: {key}: has another size than elsewhere; left out")
    report.objects += len(found.sizes)


def _read_tiers(
    source: PackSource, journal: Journal, found: _Found, report: RecoverReport, progress: Progress
) -> None:
    report.problems += journal.gaps()
    for key in journal.list():
        try:
            document = journal.read(key)
        except DicomfsError as problem:
            report.problems.append(str(problem))
            continue
        report.objects += 1
        for entry in document.entries:
            _take_decision(entry, found)
    headers = [key for key in sorted(found.sizes) if is_header_pack(key)]
    progress.start(sum(found.sizes[key] for key in headers), "recovering")
    for key in headers:
        try:
            _read_headers(source, key, found)
        except KeyDestroyed:
            pass  # on purpose, and not deleted yet: gc does it
        except DicomfsError as problem:
            report.problems.append(str(problem))
        progress.advance(found.sizes[key])
    named = (part.needed for parts in found.parts.values() for part in parts)
    found.stand_ins.find(source, found.sizes, set().union(*named))
    report.problems += found.stand_ins.problems


def _take_decision(entry: JournalEntry, found: _Found) -> None:
    if isinstance(entry, NodesMade):
        found.nodes.add(entry.patients, entry.studies, entry.series)
    elif isinstance(entry, CountersReserved):
        for level in Level:
            found.nodes.reserve(level, getattr(entry, level.name.lower()))
    elif isinstance(entry, VersionsDecided):
        found.versions += entry.decisions
    elif isinstance(entry, PinsChanged):
        found.pinned = (found.pinned | set(entry.pinned)) - set(entry.unpinned)
    else:
        found.decided.append(entry)
        if isinstance(entry, InstancesForgotten):
            found.forgotten.update(entry.instances)


def _read_headers(source: PackSource, key: ObjectKey, found: _Found) -> None:
    for index in range(len(source.headers(key).parts)):
        part = source.part(key, index)
        found.nodes.add([part.patient], [part.study], [part.series])
        for name, reserved in part.high_water.items():
            found.nodes.reserve(Level[name.upper()], reserved)
        series = part.series.number
        entries = [e for e in part.entries if InstanceId(series, e.position) not in found.forgotten]
        if not entries:
            continue
        positions = array.array("I", [entry.position for entry in entries])
        needed = _needed(entries)
        found.parts[part.series.number].append(_Part(part.part, key, index, positions, needed))


def _spooled_series(spool: Spool) -> dict[int, Callable[[], Attributes]]:
    """For each series with spooled files, how to learn the attributes of one of them."""
    return {file.id.series: partial(_attributes, file) for file in spool.files()}


def _attributes(file: SpooledFile) -> Attributes:
    with spooled_bytes(file.path) as data:
        return attributes(scan(data))


def _disjoint(found: _Found, series: int, report: RecoverReport) -> list[_Part]:
    """The parts of a series, without those that repeat what another holds.

    A packer that died between placing and committing leaves a part that its successor packs again; parts that
    were packed again together may still be there.  All are sealed and exact, so the larger one is taken, but
    first those that miss nothing.
    """
    chosen: list[_Part] = []
    covered: set[int] = set()
    there = found.sizes.keys() | found.stand_ins.by_key.keys()
    for part in sorted(
        found.parts[series], key=lambda p: (not p.needed <= there, -len(p.positions), p.number, p.key)
    ):
        positions = set(part.positions)
        if positions & covered:
            if not positions <= covered:
                report.problems.append(
                    f"{part.key}: part {part.number} of series {series} overlaps another; left out"
                )
            continue
        found.references[part.key] |= part.needed
        for name in sorted(part.needed - there):
            report.problems.append(f"{name}: missing; instances of series {series} cannot be read")
        covered |= positions
        chosen.append(part)
    chosen.sort(key=lambda p: (p.number, p.key))
    return chosen


def _needed(entries: Sequence[InstanceEntry]) -> frozenset[ObjectKey]:
    pieces = (piece for entry in entries for piece in entry.pieces)
    return frozenset(piece.pack for piece in pieces if not isinstance(piece, HeaderPiece))


def rebuild_spool(catalog: Catalog, spool: Spool, decided: Iterable[VersionDecision]) -> int:
    """Bring the spool's index in line with the spool folder, and journaled decisions into effect.

    Returns the number of instances that were added to the index.
    """
    added = 0
    names: dict[int, SeriesNames] = {}
    for file in spool.files():
        series = file.id.series
        if catalog.is_forgotten(file.id) or catalog.is_packed(file.id):
            continue
        if catalog.spooled(file.id) is not None:
            continue
        if series not in names:
            names[series] = SeriesNames(catalog.rows(series))
        described = _attributes(file)
        _, level, number = names[series].take(described.sop_instance_uid, described.instance_number)
        status = file.path.stat()
        record = SpooledRecord(
            file.id,
            described.sop_instance_uid,
            number,
            level,
            status.st_size,
            status.st_mtime_ns,
            file.sha256,
        )
        with catalog.write_spool() as writer:
            writer.add(record)
        added += 1
    _apply_versions(catalog, decided)
    return added


def discard_forgotten(catalog: Catalog, spool: Spool) -> None:
    """Remove raw bytes of instances that were forgotten, as a crash leaves them."""
    spool.release([(file.id, file.sha256) for file in spool.files() if catalog.is_forgotten(file.id)])


def _apply_versions(catalog: Catalog, decided: Iterable[VersionDecision]) -> None:
    """A decision takes effect if the instance that yields exists, and one that it yields to.

    Where the winner is lost but had yielded itself, its own winner counts.
    """
    decisions = list(decided)
    yields_to = {decision.instance: decision.yields_to for decision in decisions}
    due: list[VersionDecision] = []
    for decision in decisions:
        row = _row(catalog, decision.instance)
        winner: InstanceId | None = decision.yields_to
        passed = {decision.instance}
        while winner is not None and (winner in passed or _row(catalog, winner) is None):
            passed.add(winner)
            following = yields_to.get(winner)
            winner = following if following not in passed else None
        if row is not None and winner is not None and row.version != decision.version:
            due.append(decision)
    # Each transaction is synced: one for each decision would take hours where many are made anew.
    for first in range(0, len(due), _DECISIONS_AT_ONCE):
        with catalog.write() as writer:
            for decision in due[first : first + _DECISIONS_AT_ONCE]:
                writer.set_version(decision.instance, decision.version, decision.conflict)


def _part_twins(catalog: Catalog, series: int) -> list[str]:
    """Where the decision between versions is lost, show the latest: never two under one name."""
    by_name: dict[str, list[InstanceRow]] = defaultdict(list)
    for row in catalog.rows(series):
        by_name[row.name].append(row)
    problems = []
    for rows in by_name.values():
        shown = sorted((row.id for row in rows if row.version == 0), key=lambda one: one.position)
        free = 1 + max(row.version for row in rows)
        for version, instance in enumerate(shown[:-1], free):
            problems.append(
                f"instance {series}/{instance.position}: the decision between it and a later version is lost;"
                " the later one is shown"
            )
            with catalog.write() as writer:
                writer.set_version(instance, version, ConflictClass.NONE)
    return problems


def _row(catalog: Catalog, instance: InstanceId) -> InstanceRow | None:
    try:
        return catalog.row(instance)
    except NotFoundError:
        return None
