"""Packing together what came bit by bit: small parts of a study become one, and no byte is packed often.

Series that receive late slices get a part for each time they were packed.  Owns which of them are packed
again together, the raw files for it, and what nobody refers to afterwards; the packer does the packing.

What one header pack holds of a study is a *deposit*.  Deposits are of one class when their raw bytes agree
within a factor of eight; eight of a class are packed together, and come out in a higher class.  So a study
has at most seven deposits of each class, and a byte is packed again once a class at most: three times for
slices of 512 KiB, whatever order they come in.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomfs.codec.base import Profile
from dicomfs.errors import MismatchError, TierFull
from dicomfs.format.header import InstanceEntry
from dicomfs.frames import FrameReader
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import PartInfo, SpooledRecord
from dicomfs.index.writer import CatalogWriter
from dicomfs.model import InstanceId, ObjectKey
from dicomfs.packing.commit import MOVED
from dicomfs.packs import PackSource
from dicomfs.paths import create_private
from dicomfs.reconstruct import PackedReader
from dicomfs.spool import Spool
from dicomfs.tiers.base import Tier

DEPOSITS = 8
"""How many of one class are packed together."""
CLASS_BITS = 3
"""Raw bytes of one class agree in the position of their highest bit, divided by this."""
LARGEST_BYTES, LARGEST_ROWS = 1 << 27, 250
"""Deposits beyond these stay as they are: eight of them would be more than a batch."""
_STEP_BYTES = 4 << 20
_CACHE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Together:
    """Parts of one study that are packed again as one deposit."""

    study: int
    parts: tuple[PartInfo, ...]

    @property
    def headers(self) -> set[ObjectKey]:
        """The header packs that the parts are in."""
        return {part.header_key for part in self.parts}

    @property
    def raw_bytes(self) -> int:
        """Bytes of the raw files."""
        return sum(part.logical_bytes for part in self.parts)


def due(catalog: Catalog, studies: Collection[int]) -> Iterator[Together]:
    """What is to be packed together in these studies."""
    for study in sorted(studies):
        deposits: dict[ObjectKey, list[PartInfo]] = defaultdict(list)
        for one in catalog.series_of(study):
            for part in catalog.parts(one.number):
                deposits[part.header_key].append(part)
        classes: dict[int, list[list[PartInfo]]] = defaultdict(list)
        for parts in deposits.values():
            size = sum(part.logical_bytes for part in parts)
            if size <= LARGEST_BYTES and sum(part.rows for part in parts) <= LARGEST_ROWS:
                classes[size.bit_length() // CLASS_BITS].append(parts)
        # The smallest class only: what comes out of it may belong to the next, which is looked at then.
        full = [number for number, members in classes.items() if len(members) >= DEPOSITS]
        if full:
            members = classes[min(full)][:DEPOSITS]
            yield Together(study, tuple(part for parts in members for part in parts))


class StagedFiles(Spool):
    """Raw files in the staging folder, under names of their own: where the packer looks for what it packs."""

    def path(self, instance: InstanceId, sha256: bytes) -> Path:
        return self.folder / f"{instance.series:010x}-{instance.position:06x}-{sha256.hex()[:16]}.raw"

    def release(self, instances: Iterable[tuple[InstanceId, bytes]]) -> None:
        for instance, sha256 in instances:
            self.path(instance, sha256).unlink(missing_ok=True)


class Gathering:
    """Reads the parts that are packed together, and knows what is left over of their packs."""

    def __init__(self, together: Together, catalog: Catalog, tier: Tier) -> None:
        """Raises TierError, FormatError: a header pack cannot be read."""
        self._together, self._catalog, self._tier = together, catalog, tier
        self._source = PackSource(tier, catalog.placed)
        # Header packs may hold parts of other studies, too: those stay.
        self._staying = {key: self._needed_by_others(key) for key in sorted(together.headers)}

    def files(self, staged: StagedFiles) -> list[tuple[int, list[SpooledRecord]]]:
        """Write the raw files, each compared with its digest; (series, records in name order).

        Raises:
            TierError, FormatError, CodecError: one cannot be had.
            TierFull: there is no space for them.
        """
        found: dict[int, list[SpooledRecord]] = defaultdict(list)
        with contextlib.closing(FrameReader(self._source, _CACHE_BYTES)) as frames:
            for part in self._together.parts:
                table = self._source.identified_part(part.header_key, part.part_index)
                rows = self._catalog.places_in(part.header_key).get(part.part_index, [])
                for row in sorted(rows, key=lambda row: table.entries[row].order):
                    record = _record(part.series, table.entries[row])
                    header = self._source.header_bytes(part.header_key, part.part_index, row)
                    reader = PackedReader(table, row, header, frames, self._source)
                    _write(staged.path(record.id, record.sha256), reader)
                    found[part.series].append(record)
        return [(series, _in_name_order(records)) for series, records in sorted(found.items())]

    def profile(self, otherwise: Profile) -> Profile:
        """The profile of most bytes of their packs, so that what was moved to another one stays there."""
        sizes: Counter[str] = Counter()
        for key in {self._catalog.placed(key) for key in self._used()}:
            record = self._catalog.object(key)
            sizes[record.profile] += record.size
        del sizes[""]
        return Profile(sizes.most_common(1)[0][0]) if sizes else otherwise

    def left_over(self, new: Collection[ObjectKey] = ()) -> set[ObjectKey]:
        """Objects that nobody needs once the parts are elsewhere; ``new`` are those needed there."""
        headers = {key for key, needed in self._staying.items() if needed is None}
        kept = set(new).union(*(needed for needed in self._staying.values() if needed is not None))
        gone = {
            key
            for key in self._used() - kept
            if not self._others_need(key) and kept.isdisjoint(self._catalog.names_of(key))
        }
        gone |= self._stand_ins(gone, kept)
        # A pack goes with its twins, and no twin without its pack.
        families = (self._catalog.family(key) for key in gone if self._catalog.placed(key) == key)
        gone |= {one.key for family in families if family is not None for one in family.members}
        return headers | {key for key in gone if self._catalog.placed(key) in gone}

    def commit(
        self,
        writer: CatalogWriter,
        left_over: Collection[ObjectKey],
        condemned: Collection[ObjectKey],
        tiers: Sequence[str],
    ) -> None:
        """In the transaction that commits the new part, before it: take the old ones out, let objects go.

        Intents say of those ``left_over`` that they are to be deleted; the others are ``condemned`` on
        ``tiers`` without grace, to be destroyed.
        """
        for part in self._together.parts:
            writer.remove_part(part.series, part.part)
        for key, needed in self._staying.items():
            if needed is not None:
                writer.set_references(key, sorted(needed))
        for key in left_over:
            writer.remove_object(key)
            writer.add_intent(key, MOVED)
        for key in condemned:
            writer.remove_object(key)
            for tier in tiers:
                writer.condemn(key, tier, 0)

    def _used(self) -> set[ObjectKey]:
        return {key for header in self._together.headers for key in self._catalog.references(header)}

    def _needed_by_others(self, header: ObjectKey) -> set[ObjectKey] | None:
        """What the parts of a header pack need that are not packed again; None where there are none."""
        ours = {part.part_index for part in self._together.parts if part.header_key == header}
        others = [index for index in parts_in_use(self._catalog, self._source, header) if index not in ours]
        if not others:
            return None
        places = self._catalog.places_in(header)
        return set().union(*(self._source.needs(header, index, places[index]) for index in others))

    def _others_need(self, key: ObjectKey) -> bool:
        names = [key, *self._catalog.names_of(key)]
        return not self._together.headers.issuperset(self._catalog.referring(names))

    def _stand_ins(self, gone: Collection[ObjectKey], kept: Collection[ObjectKey]) -> set[ObjectKey]:
        """Packs that are read in place of these and of no others."""
        found = set()
        for stand_in in {self._catalog.placed(key) for key in gone} - set(gone):
            meant = {one.key for one in self._source.packing(stand_in).stands_for} | {stand_in}
            if meant.isdisjoint(kept) and not any(map(self._others_need, meant - set(gone))):
                found.add(stand_in)
        return found


def parts_in_use(catalog: Catalog, source: PackSource, header: ObjectKey) -> list[int]:
    """The indexes of the parts of a header pack that the catalog reads from it.

    Raises:
        TierError, FormatError: it cannot be read.
    """
    return [
        index
        for index, part in enumerate(source.headers(header).parts)
        if any(
            (found.header_key, found.part_index) == (header, index) for found in catalog.parts(part.series)
        )
    ]


def _record(series: int, entry: InstanceEntry) -> SpooledRecord:
    return SpooledRecord(
        InstanceId(series, entry.position),
        entry.sop_instance_uid,
        entry.instance_number,
        entry.name_level,
        entry.size,
        entry.mtime_ns,
        entry.sha256,
    )


def _in_name_order(records: Sequence[SpooledRecord]) -> list[SpooledRecord]:
    return sorted(records, key=lambda r: (r.number is None, r.number or 0, r.id.position))


def _write(path: Path, reader: PackedReader) -> None:
    """Write a whole file; not synced, because the packs that it comes from stay until it is packed again."""
    digest = hashlib.sha256()
    try:
        with create_private(path) as file:
            for offset in range(0, reader.size, _STEP_BYTES):
                data = reader.read(offset, _STEP_BYTES)
                digest.update(data)
                file.write(data)
    except OSError as problem:
        raise TierFull("staging", path.name, f"cannot be written: {problem.strerror}") from problem
    if digest.digest() != reader.sha256:
        raise MismatchError(path.name)
