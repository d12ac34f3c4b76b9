"""The catalog against plain dictionaries, in any order of accepting, packing, replacing and reopening."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicomfs.index import Catalog, Change, PartRow, SpooledRecord
from dicomfs.instance_names import instance_name
from dicomfs.model import ConflictClass, InstanceId, InstanceRow, Level
from tests.catalogs import digest, header_key, make_catalog

MEMORY = Path("/dev/shm")  # thousands of commits, and what a disk does is not the question here
SERIES = st.integers(1, 2)
NUMBERS = st.none() | st.integers(0, 4)
UIDS = st.sampled_from(["1.2.3.1", "1.2.3.2", "1.2.3.10", "1.2.30", "odd uid", "1.2.3." + "7" * 40])


@dataclass
class _Instance:
    record: SpooledRecord
    spooled: bool = True
    part: int | None = None
    version: int = 0

    def row(self) -> InstanceRow:
        record = self.record
        return InstanceRow(
            record.id,
            instance_name(record.number, record.sop_instance_uid, record.name_level),
            record.sop_instance_uid,
            record.size,
            record.mtime_ns,
            record.sha256[:8],
            self.version,
            ConflictClass.PIXELS if self.version else ConflictClass.NONE,
            self.part is None,
        )

    def part_row(self) -> PartRow:
        record = self.record
        return PartRow(
            record.id.position,
            record.number,
            record.name_level,
            record.sop_instance_uid,
            record.size,
            record.mtime_ns,
            record.sha256,
            record.number or 0,
        )


class CatalogMachine(RuleBasedStateMachine):
    """Every answer of the catalog is compared with the model after every step."""

    @initialize()
    def create(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.catalog = make_catalog(self.folder / "index")
        self.model: dict[InstanceId, _Instance] = {}
        self.next = {1: 0, 2: 0}
        self.seen = self._state()
        self.mark = self.catalog.last_change()

    @rule(series=SERIES, number=NUMBERS, level=st.integers(0, 2), uid=UIDS, size=st.integers(0, 10**10))
    def accept(self, series: int, number: int | None, level: int, uid: str, size: int) -> None:
        with self.catalog.write_spool() as writer:
            position = writer.next_position(series)
            assert position == self.next[series]
            instance = InstanceId(series, position)
            record = SpooledRecord(
                instance, uid, number, level, size, 10**18 + size, digest(series, position)
            )
            writer.add(record)
        self.next[series] += 1
        self.model[instance] = _Instance(record)

    @rule(series=SERIES, number=NUMBERS, uid=UIDS)
    def import_straight_into_a_part(self, series: int, number: int | None, uid: str) -> None:
        instance = InstanceId(series, self.next[series])
        record = SpooledRecord(instance, uid, number, 0, 5, 7, digest(series, self.next[series]))
        self.model[instance] = _Instance(record, spooled=False)
        self.next[series] += 1
        self._commit(series, [self.model[instance]])

    @rule(series=SERIES, data=st.data())
    def pack(self, series: int, data: st.DataObject) -> None:
        waiting = [one for one in self._of(series) if one.part is None]
        chosen = [one for one in waiting if data.draw(st.booleans())]
        if chosen:
            self._commit(series, data.draw(st.permutations(chosen)))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        packed = [
            one
            for one in self.model.values()
            if one.part is not None and one.spooled and data.draw(st.booleans())
        ]
        with self.catalog.write_spool() as writer:
            writer.remove([one.record.id for one in packed])
        for one in packed:
            one.spooled = False

    @precondition(lambda self: any(one.part is not None for one in self.model.values()))
    @rule(data=st.data(), keep=st.booleans())
    def replace_or_remove_a_part(self, data: st.DataObject, keep: bool) -> None:
        parts = sorted({(key.series, one.part) for key, one in self.model.items() if one.part is not None})
        series, part = data.draw(st.sampled_from(parts))
        members = [one for one in self._of(series) if one.part == part]
        with self.catalog.write() as writer:
            writer.remove_part(series, part)
            if keep:
                number = writer.next_part(series)
                writer.commit_part(series, number, header_key(number), 1, [one.part_row() for one in members])
        for one in members:
            one.part = number if keep else None
            if not keep and not one.spooled:
                del self.model[one.record.id]

    @precondition(lambda self: bool(self.model))
    @rule(data=st.data(), version=st.integers(0, 2))
    def judge(self, data: st.DataObject, version: int) -> None:
        instance = data.draw(st.sampled_from(sorted(self.model)))
        conflict = ConflictClass.PIXELS if version else ConflictClass.NONE
        with self.catalog.write() as writer:
            writer.set_version(instance, version, conflict)
        self.model[instance].version = version

    @rule()
    def reopen(self) -> None:
        self.catalog.close()
        self.catalog = Catalog.open(self.folder / "index")

    @rule()
    def fail_inside_a_block(self) -> None:
        try:
            with self.catalog.write() as writer:
                writer.reserve(Level.SERIES, 5)
                writer.raise_position(1, 500)
                raise KeyError
        except KeyError:
            assert self.catalog.next_number(Level.SERIES) == 3

    @invariant()
    def rows_agree(self) -> None:
        for series in (1, 2):
            expected = [one.row() for one in self._of(series)]
            assert sorted(self.catalog.rows(series), key=_place) == sorted(expected, key=_place)
            names = [(row.name, row.version) for row in self.catalog.rows(series)]
            assert names == sorted(names)
            for row in expected:
                assert self.catalog.row(row.id) == row
                named = self.catalog.row_named(series, row.name, row.version)
                assert named is not None
                assert (named.name, named.version) == (row.name, row.version)
            assert (series in self.catalog.versioned_series()) == any(row.version for row in expected)

    @invariant()
    def uids_and_spool_agree(self) -> None:
        for uid in {one.record.sop_instance_uid for one in self.model.values()}:
            expected = sorted(key for key, one in self.model.items() if one.record.sop_instance_uid == uid)
            assert self.catalog.by_uid(uid) == expected
        for series in (1, 2):
            spooled = sorted(one.record.id for one in self._of(series) if one.spooled)
            assert [record.id for record in self.catalog.spooled_of(series)] == spooled
            assert self.catalog.next_position(series) == self.next[series]

    @invariant()
    def totals_agree(self) -> None:
        counts = self.catalog.counts()
        assert counts == self.catalog.recount()
        assert counts.instances == len(self.model)
        assert counts.logical_bytes == sum(one.record.size for one in self.model.values())

    @invariant()
    def every_visible_change_is_in_the_feed(self) -> None:
        changes = self.catalog.changes_since(self.mark)
        assert changes is not None
        now = self._state()
        for (series, name), ids in self.seen.items():
            # Who shares a name without a version between them breaks the caller's rule, not ours.
            if len(ids) == 1 and len(now.get((series, name), [])) < 2 and now.get((series, name)) != ids:
                assert Change(Level.SERIES, series, name) in changes
        for series, name in now.keys() ^ self.seen.keys():
            assert Change(Level.SERIES, series, None) in changes, name
        self.seen, self.mark = now, self.catalog.last_change()

    def teardown(self) -> None:
        if hasattr(self, "catalog"):
            self.catalog.close()
            shutil.rmtree(self.folder)

    def _of(self, series: int) -> list[_Instance]:
        return [one for key, one in sorted(self.model.items()) if key.series == series]

    def _state(self) -> dict[tuple[int, str], list[InstanceId]]:
        """Which instances each shown name stands for."""
        found: dict[tuple[int, str], list[InstanceId]] = {}
        for key, one in sorted(self.model.items()):
            if not one.version:
                found.setdefault((key.series, one.row().name), []).append(key)
        return found

    def _commit(self, series: int, chosen: list[_Instance]) -> None:
        with self.catalog.write() as writer:
            part = writer.next_part(series)
            writer.commit_part(series, part, header_key(part), 0, [one.part_row() for one in chosen])
        for one in chosen:
            one.part = part


def _place(row: InstanceRow) -> tuple[str, int, InstanceId]:
    return row.name, row.version, row.id


TestCatalog = CatalogMachine.TestCase
TestCatalog.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
