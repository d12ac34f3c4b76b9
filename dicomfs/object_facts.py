"""What the rules ask of objects, as the catalog knows it: which series need each, when it was last read.

Reads in short transactions, so that what changes meanwhile may be seen in part: every move is checked again
when it is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from dicomfs.index.catalog import Catalog
from dicomfs.lifecycle import Facts, SeriesFacts
from dicomfs.model import ObjectKey


def objects_of(catalog: Catalog, series: Iterable[int]) -> set[ObjectKey]:
    """All objects that these series need: their header packs, and what those name."""
    headers = {part.header_key for number in series for part in catalog.parts(number)}
    needed = {catalog.placed(key) for header in headers for key in catalog.references(header)}
    return headers | needed


def gather(catalog: Catalog) -> list[Facts]:
    """The facts of every object of an archive."""
    pinned_series = catalog.pinned_series()
    used = catalog.used()
    serves: dict[ObjectKey, dict[int, SeriesFacts]] = defaultdict(dict)
    needs: dict[ObjectKey, tuple[ObjectKey, ...]] = {}
    pinned: set[ObjectKey] = set()
    for number in catalog.all_series():
        for header, accepted_ns in _headers(catalog, number).items():
            if header not in needs:
                needs[header] = tuple({catalog.placed(key) for key in catalog.references(header)})
            node = catalog.series(number)
            study = catalog.study(node.study)
            for key in (header, *needs[header]):
                known = serves[key].get(number)
                latest = accepted_ns if known is None else max(accepted_ns, known.accepted_ns)
                serves[key][number] = SeriesFacts(node.modality, study.date, latest)
                if number in pinned_series:
                    pinned.add(key)
    return [
        Facts(
            record.key,
            record.size,
            record.tiers,
            tuple(serves[record.key].values()),
            record.profile,
            used.get(record.key, 0),
            record.key in pinned,
            needs.get(record.key, ()),
        )
        for record in catalog.objects()
    ]


def _headers(catalog: Catalog, series: int) -> dict[ObjectKey, int]:
    """The header packs of a series, each with the time at which its last part was committed."""
    found: dict[ObjectKey, int] = {}
    for part in catalog.parts(series):
        found[part.header_key] = max(part.committed_ns, found.get(part.header_key, 0))
    return found
