"""What an archive holds and what it takes: the document of `dicomfs status`, without its tiers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dicomfs.format.keys import JOURNAL_PREFIX, SNAPSHOT_PREFIX
from dicomfs.index.catalog import Catalog
from dicomfs.model import PackKind, holds_frames
from dicomfs.tiers.base import Tier


def told_status(catalog: Catalog, local: Tier, index: Path) -> dict[str, object]:
    """Counts, and sizes in bytes; no patient attributes.

    ``stored_bytes`` are packs and journal: neither the index nor its snapshots, which can be made again.
    """
    counts = catalog.counts()
    by_kind = dict.fromkeys(PackKind, 0)
    by_profile: Counter[str] = Counter()
    # A pack and its twins are the same frames: they count once, as the nearest tier holds them.
    for record in catalog.held():
        by_kind[PackKind[record.key.split("/", 1)[0].upper()]] += record.size
        if holds_frames(record.key):
            by_profile[record.profile or "unknown"] += record.size
    journal = sum(status.size for _, status in local.list(JOURNAL_PREFIX))
    return {
        "patients": counts.patients,
        "studies": counts.studies,
        "series": counts.series,
        "instances": counts.instances,
        "logical_bytes": counts.logical_bytes,
        "stored_bytes": sum(by_kind.values()) + journal,
        "pixel_bytes": by_kind[PackKind.PIXEL] + by_kind[PackKind.BURNED],
        "pixel_bytes_by_profile": dict(sorted(by_profile.items())),
        "header_bytes": by_kind[PackKind.HEADER] + by_kind[PackKind.TEXT],
        "opaque_bytes": by_kind[PackKind.OPAQUE],
        "journal_bytes": journal,
        "index_bytes": sum(path.stat().st_blocks * 512 for path in index.rglob("*") if path.is_file()),
        "snapshot_bytes": sum(status.size for _, status in local.list(SNAPSHOT_PREFIX)),
        "spool": {"instances": counts.spool_instances, "bytes": counts.spool_bytes},
    }
