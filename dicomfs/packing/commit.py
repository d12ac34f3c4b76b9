"""What the catalog is told when a part is committed, by the packer or by recovery."""

from __future__ import annotations

from dicomfs.format.header import SeriesPart
from dicomfs.index.records import PartRow


def part_rows(part: SeriesPart) -> list[PartRow]:
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
