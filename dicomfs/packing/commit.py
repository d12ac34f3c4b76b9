"""What the catalog is told when a part is committed, by the packer or by recovery; and how intents end."""

from __future__ import annotations

from collections.abc import Iterable

from dicomfs.format.header import SeriesPart
from dicomfs.format.snapshot import PartFacts
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import PartRow
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import Tier

MOVED = "moved"
"""Owner of an intent on an object that another stands in for: it is to be deleted."""


def end_intents(catalog: Catalog, tier: Tier, keys: Iterable[ObjectKey]) -> None:
    """Delete what was never committed, or is not to be on the tier any more, and end the intents on it.

    Raises:
        TierError: an object cannot be deleted; its intent stays.
    """
    for key in keys:
        record = catalog.find_object(key)
        if record is None or tier.name not in record.tiers:
            tier.delete(key)
        with catalog.write() as writer:
            writer.remove_intent(key)


def part_rows(part: SeriesPart | PartFacts) -> list[PartRow]:
    """The catalog's rows of a series part, in the order of its entries."""
    return [
        PartRow(
            entry.position,
            entry.instance_number,
            entry.name_level,
            entry.sop_instance_uid,
            entry.size,
            entry.mtime_ns,
            entry.sha256,
            entry.order,
        )
        for entry in part.entries
    ]
