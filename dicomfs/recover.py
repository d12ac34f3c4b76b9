"""Recovering: the catalog rebuilt from packs and journal, the spool's index rebuilt from the spool.

Packs and journal are the truth: the same tree, names and inode numbers come back.  What cannot be read is
listed and left out; everything else is recovered.  Nothing on a tier is changed.
"""

from __future__ import annotations

import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from dicomfs.dicom.attributes import Attributes, attributes
from dicomfs.dicom.part10 import scan
from dicomfs.errors import (
    DicomfsError,
    FormatError,
    KeyDestroyed,
    NotFoundError,
    TierError,
)
from dicomfs.format.journal import (
    CountersReserved,
    InstancesForgotten,
    JournalEntry,
    NodesMade,
    ObjectsTainted,
    PinsChanged,
    VersionDecision,
    VersionsDecided,
)
from dicomfs.format.snapshot import SnapshotReader
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord, PartRow, SpooledRecord
from dicomfs.index.writer import CatalogWriter
from dicomfs.journal import Journal, apply_decision
from dicomfs.model import (
    ConflictClass,
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
from dicomfs.progress import Progress
from dicomfs.recovered_nodes import RecoveredNodes
from dicomfs.recovered_parts import Facts, FoundPart
from dicomfs.recovered_stand_ins import StandIns
from dicomfs.series_names import SeriesNames
from dicomfs.spool import Spool, SpooledFile
from dicomfs.tier_set import TierSet
from dicomfs.tiers.base import Tier

_DECISIONS_AT_ONCE = 1000
"""More would keep the catalog's one writer busy for long."""
_ROWS_AT_ONCE, _SERIES_AT_ONCE = 500, 100
"""Likewise, of instances that are committed."""


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
    snapshot: str = ""
    """The snapshot that was started from; empty where there was none that could be used."""
    from_snapshot: int = 0
    """Header packs that need not be read, because it had what they say."""
    remarks: list[str] = field(default_factory=list)
    """Snapshots that were passed over, and what one had that the tier lacked."""


@dataclass(slots=True)
class _Found:
    """What packs and journal say."""

    sizes: dict[ObjectKey, int] = field(default_factory=dict)
    tiers: dict[ObjectKey, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """The tiers that have an object, each with the time 0: nothing is verified yet."""
    nodes: RecoveredNodes = field(default_factory=RecoveredNodes)
    parts: dict[int, list[FoundPart]] = field(default_factory=lambda: defaultdict(list))
    versions: list[VersionDecision] = field(default_factory=list)
    pinned: set[int] = field(default_factory=set)
    """Series."""
    references: dict[ObjectKey, set[ObjectKey]] = field(default_factory=lambda: defaultdict(set))
    stand_ins: StandIns = field(default_factory=StandIns)
    forgotten: dict[int, set[int]] = field(default_factory=dict)
    """Positions by series."""
    tainted: set[ObjectKey] = field(default_factory=set)
    """Header packs with rows of what was forgotten."""
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


def recover_catalog(
    catalog: Catalog,
    tiers: TierSet,
    main: str,
    reading: Callable[[Lookup], Tier],
    journal: Journal,
    spool: Spool,
    progress: Progress,
    snapshot: SnapshotReader | None = None,
) -> RecoverReport:
    """Fill an empty catalog from the tiers of an archive and its spool.

    ``reading`` makes what reads objects, from what says where they are; ``snapshot``, where there is one, is
    asked before.  The catalog is the same with and without.  The other tiers than ``main`` may
    fail: then their copies stay unknown until they are attached again.

    Raises:
        TierError, UsageError: the main tier cannot be listed.
        CatalogError: the catalog cannot be written.
    """
    report, found = RecoverReport(), _Found()
    _list_tiers(tiers, main, found, report)
    facts = Facts(PackSource(reading(found.object)), found.sizes, snapshot)
    _read_tiers(facts, journal, found, report, progress)
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
    for numbers in _batches(found):
        # Read before: a writer is not to be kept.
        tables = {number: _tables(number, found, facts, report) for number in numbers}
        with catalog.write() as writer:
            for number in numbers:
                writer.add_series(nodes.series[number])
                for part, rows in tables[number]:
                    free = max(part.number, writer.next_part(number))
                    writer.commit_part(number, free, part.key, part.index, rows)
                    writer.set_needs(number, free, part.needed)
                writer.raise_position(number, free_positions[number])
    with catalog.write() as writer:
        _add_objects(writer, found)
        for number in found.pinned & nodes.series.keys():
            writer.set_pinned(number, pinned=True)
    report.spooled = rebuild_spool(catalog, spool, found.versions)
    discard_forgotten(catalog, spool)
    report.instances += report.spooled
    for number in sorted(nodes.series):
        known = catalog.rows(number)
        report.problems += _part_twins(catalog, known)
        if number not in found.forgotten and not known:
            report.notes.append(
                f"series {number}: the journal names it, and no header pack or spooled file holds any of it"
            )
    progress.done()
    return report


def _batches(found: _Found) -> Iterator[list[int]]:
    """Series by number, some at a time: each transaction is synced."""
    batch: list[int] = []
    rows = 0
    for number in sorted(found.nodes.series):
        batch.append(number)
        rows += sum(len(part.positions) for part in found.parts.get(number, ()))
        if rows >= _ROWS_AT_ONCE or len(batch) >= _SERIES_AT_ONCE:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


def _tables(
    series: int, found: _Found, facts: Facts, report: RecoverReport
) -> list[tuple[FoundPart, list[PartRow]]]:
    """The parts of a series that are to be committed, with their rows."""
    tables = []
    for part in _disjoint(found, series, report):
        try:
            tables.append((part, part_rows(facts.table(part.key, part.index))))
        except (TierError, FormatError) as problem:
            report.problems.append(str(problem))
            continue
        report.instances += len(part.positions)
    report.series += 1
    return tables


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
    # What was destroyed, or nobody refers to, the next purge takes off.
    writer.note_tainted([key for key in found.tainted if key in found.sizes or key in stand_ins.by_key])
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
    facts: Facts, journal: Journal, found: _Found, report: RecoverReport, progress: Progress
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
            _read_headers(facts, key, found)
        except KeyDestroyed:
            pass  # on purpose, and not deleted yet: gc does it
        except DicomfsError as problem:
            report.problems.append(str(problem))
        progress.advance(found.sizes[key])
    named = (part.needed for parts in found.parts.values() for part in parts)
    found.stand_ins.find(facts.stand_in, found.sizes, set().union(*named))
    report.from_snapshot = facts.from_snapshot
    report.problems += found.stand_ins.problems


def _take_decision(entry: JournalEntry, found: _Found) -> None:
    if isinstance(entry, NodesMade):
        found.nodes.add(entry.patients, entry.studies, entry.series)
    elif isinstance(entry, CountersReserved):
        for level in Level:
            found.nodes.reserve(level, getattr(entry, level.name.lower()))
    elif isinstance(entry, VersionsDecided):
        found.versions += entry.decisions
    elif isinstance(entry, ObjectsTainted):
        found.tainted.update(entry.keys)
    elif isinstance(entry, PinsChanged):
        found.pinned = (found.pinned | set(entry.pinned)) - set(entry.unpinned)
    else:
        found.decided.append(entry)
        if isinstance(entry, InstancesForgotten):
            for instance in entry.instances:
                found.forgotten.setdefault(instance.series, set()).add(instance.position)


def _read_headers(facts: Facts, key: ObjectKey, found: _Found) -> None:
    for index, part in enumerate(facts.parts(key, found.forgotten)):
        found.nodes.add([part.patient], [part.study], [part.series])
        for name, reserved in part.high_water.items():
            found.nodes.reserve(Level[name.upper()], reserved)
        series = part.series.number
        forgotten = found.forgotten.get(series, set())
        known = [one for one in part.entries if one.position not in forgotten]
        if len(known) < len(part.entries):
            found.tainted.add(key)
        if known:
            positions = array.array("I", [entry.position for entry in known])
            found.parts[series].append(FoundPart(part.part, key, index, positions, part.needed))


def _spooled_series(spool: Spool) -> dict[int, Callable[[], Attributes]]:
    """For each series with spooled files, how to learn the attributes of one of them."""
    return {file.id.series: partial(_attributes, file) for file in spool.files()}


def _attributes(file: SpooledFile) -> Attributes:
    with spooled_bytes(file.path) as data:
        return attributes(scan(data))


def _disjoint(found: _Found, series: int, report: RecoverReport) -> list[FoundPart]:
    """The parts of a series, without those that repeat what another holds.

    A packer that died between placing and committing leaves a part that its successor packs again; parts that
    were packed again together may still be there.  All are sealed and exact, so the larger one is taken, but
    first those that miss nothing.
    """
    chosen: list[FoundPart] = []
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
    """Remove raw bytes of instances that were forgotten or withdrawn, as a crash leaves them."""
    gone = [file for file in spool.files() if catalog.is_forgotten(file.id)]
    if gone:
        with catalog.write_spool() as writer:
            writer.remove([file.id for file in gone])
    spool.release([(file.id, file.sha256) for file in gone])


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


def _part_twins(catalog: Catalog, of_series: Iterable[InstanceRow]) -> list[str]:
    """Where the decision between versions is lost, show the latest: never two under one name."""
    by_name: dict[str, list[InstanceRow]] = defaultdict(list)
    for row in of_series:
        by_name[row.name].append(row)
    problems = []
    for rows in by_name.values():
        shown = sorted((row.id for row in rows if row.version == 0), key=lambda one: one.position)
        free = 1 + max(row.version for row in rows)
        for version, instance in enumerate(shown[:-1], free):
            problems.append(
                f"instance {instance.series}/{instance.position}: the decision between it and a later version"
                " is lost; the later one is shown"
            )
            with catalog.write() as writer:
                writer.set_version(instance, version, ConflictClass.NONE)
    return problems


def _row(catalog: Catalog, instance: InstanceId) -> InstanceRow | None:
    try:
        return catalog.row(instance)
    except NotFoundError:
        return None
