"""What the rules ask of objects, as the catalog knows it: which series need each, when it was last read.

Reads in short transactions, so that what changes meanwhile may be seen in part: every move is checked again
when it is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from dicomfs.index.catalog import Catalog
from dicomfs.index.records import Family
from dicomfs.lifecycle import Facts, SeriesFacts
from dicomfs.model import ObjectKey


def objects_of(catalog: Catalog, series: Iterable[int]) -> set[ObjectKey]:
    """All objects that these series need: their header packs, and what their instances are read from."""
    return {key for number in series for keys in catalog.needs(number).values() for key in keys}


def gather(catalog: Catalog) -> list[Facts]:
    """The facts of every object of an archive."""
    pinned_series, used = catalog.pinned_series(), catalog.used()
    serves: dict[ObjectKey, dict[int, SeriesFacts]] = defaultdict(dict)
    needs: dict[ObjectKey, set[ObjectKey]] = defaultdict(set)
    pinned: set[ObjectKey] = set()
    for number in catalog.all_series():
        node = catalog.series(number)
        study = catalog.study(node.study)
        for part, keys in catalog.needs(number).items():
            needs[part.header_key].update(keys[1:])
            for key in keys:
                known = serves[key].get(number)
                latest = part.committed_ns if known is None else max(part.committed_ns, known.accepted_ns)
                serves[key][number] = SeriesFacts(node.modality, study.date, latest)
            if number in pinned_series:
                pinned.update(keys)
    families = {family.members[0].key: family for family in catalog.families()}
    records = {key: family.held() for key, family in families.items()}
    nowhere: frozenset[str] = frozenset()
    return [
        Facts(
            record.key,
            record.size,
            record.tiers,
            tuple(serves[record.key].values()) if record.key in serves else (),
            record.profile,
            used.get(record.key, 0),
            record.key in pinned,
            {
                key: frozenset(records[key].tiers) if key in records else nowhere
                for key in needs.get(record.key, ())
            },
            _on_tiers(families[record.key]),
        )
        for record in records.values()
    ]


def _on_tiers(family: Family) -> dict[str, tuple[int, str]]:
    if len(family.members) == 1:
        return {}
    held = {name: family.on(name) for name in family.tiers}
    return {name: (one.size, one.profile) for name, one in held.items() if one is not None}
