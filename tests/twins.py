"""Archives whose external tier holds packs in a profile of its own."""

from __future__ import annotations

from pathlib import Path

from dicomfs.archive import Archive
from dicomfs.model import ObjectKey
from tests.archives import contents, digests
from tests.tiered import EXTERNAL, FILES

DENSE = {EXTERNAL: "packing = 'dense'\n"}


def profiles(archive: Archive) -> dict[str, set[str]]:
    """The profiles of the packs of frames that each tier holds."""
    found: dict[str, set[str]] = {}
    for record in archive.catalog.objects():
        if record.key.startswith("pixel/"):
            for tier in record.tiers:
                found.setdefault(tier, set()).add(record.profile)
    return found


def pixels(archive: Archive) -> list[ObjectKey]:
    """The packs of frames by the key that counts."""
    return [record.key for record in archive.catalog.held() if record.key.startswith("pixel/")]


def far(archive: Archive, tier: str = EXTERNAL) -> list[Path]:
    """The files of the packs of frames on a tier that is not local."""
    return sorted(path for path in (archive.paths.root.parent / tier / "pixel").rglob("*") if path.is_file())


def require_sound(archive: Archive) -> None:
    """Everything comes back, and the catalog agrees with the tiers."""
    assert contents(archive) == digests(FILES)
    report = archive.verify(deep=True)
    assert (report.problems, report.notes) == ([], [])
    assert list(archive.paths.recoding.glob("*")) == []


def reopened(archive: Archive) -> Archive:
    """The same without anything in memory."""
    archive.close()
    return Archive.open(archive.paths.root)
