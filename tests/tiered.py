"""Archives of several tiers for tests: a folder in the house, in plain bytes or encrypted."""

from __future__ import annotations

import atexit
import functools
import random
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dicomfs import config
from dicomfs.archive import Archive
from dicomfs.progress import NullProgress
from dicomfs.tiering import TieringReport
from tests import samples
from tests.archives import write_sources

LABORATORY, EXTERNAL = "laboratory", "external"
FILES = [
    *samples.ct_series(4, 48, 48),
    samples.structured_report(),
    samples.encapsulated([random.Random(1).randbytes(3000)]),
    *samples.ct_series(3, 48, 48, 1, patient="Other^Patient"),
]


def two_tiers(
    root: Path, *, plain: bool = True, retry_seconds: int = 1, packing: config.Profile | None = None
) -> Archive:
    """An archive in ``root``/archive with a laboratory tier in ``root``/laboratory."""
    (root / LABORATORY).mkdir()
    tier = config.TierSettings(
        url=(root / LABORATORY).as_uri(), plaintext=plain, retry_seconds=retry_seconds, packing=packing
    )
    key = None if plain else root / "key"
    Archive.create(root / "archive", {LABORATORY: tier.url}, key).close()
    keys = config.KeySettings() if plain else config.KeySettings(file=str(key))
    settings = config.template({LABORATORY: tier}, keys)
    (root / "archive" / config.FILE_NAME).write_text(settings, encoding="utf-8")
    return Archive.open(root / "archive")


@functools.cache
def _template() -> Path:
    """An archive with the files, packed, for tests to copy."""
    folder = Path(tempfile.mkdtemp(prefix="dicomfs-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with Archive.create(folder / "archive") as archive:
        archive.import_paths([write_sources(folder / "in", FILES)])
        archive.pack()
    return folder / "archive"


def three_tiers(root: Path, settings: str = "", tiers: Mapping[str, str] | None = None) -> Archive:
    """A packed archive with two more tiers, folders in plain bytes; ``tiers`` gives a tier more settings.

    All of them are copies of one archive, so only one is for a test.
    """
    shutil.copytree(_template(), root / "archive")
    write_settings(root, settings, tiers)
    archive = Archive.open(root / "archive")
    for name in archive.tiers.remote:
        archive.claim(name)
    return archive


def write_settings(root: Path, settings: str = "", tiers: Mapping[str, str] | None = None) -> None:
    """The settings of such an archive."""
    sections = [settings]
    for name in ("local", LABORATORY, EXTERNAL):
        folder = root / "archive" / name if name == "local" else root / name
        plain = "" if name == "local" else "plaintext = true\n"
        sections.append(f"[tiers.{name}]\nurl = '{folder.as_uri()}'\n{plain}{(tiers or {}).get(name, '')}")
    (root / "archive" / config.FILE_NAME).write_text("\n".join(sections), encoding="utf-8")


def packed(root: Path, *, plain: bool = True, packing: config.Profile | None = None) -> Archive:
    """The same with two patients, packed."""
    archive = two_tiers(root, plain=plain, packing=packing)
    archive.import_paths([write_sources(root / "in", FILES)])
    archive.pack()
    return archive


@functools.cache
def on_both_tiers(*, plain: bool, packing: config.Profile | None = None) -> Path:
    """A packed archive of two tiers that both have everything, closed, for tests to copy."""
    folder = Path(tempfile.mkdtemp(prefix="dicomfs-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with packed(folder, plain=plain, packing=packing) as archive:
        copy_all(archive)
    return folder


def copied(root: Path, *, plain: bool = True, packing: config.Profile | None = None) -> Archive:
    """The archive of `packed` with everything on both tiers; all of them are copies of one archive."""
    return copy_of(on_both_tiers(plain=plain, packing=packing), root)


def copy_all(archive: Archive, to: str = LABORATORY) -> TieringReport:
    """Copy everything to a tier; fails where anything does."""
    tiering = archive.tiering()
    report = tiering.copy(to, tiering.objects(), NullProgress())
    assert (report.failed, report.stopped) == ([], False)
    return report


def evict_all(archive: Archive, tier: str = "local") -> TieringReport:
    """Evict everything from a tier that another one has."""
    tiering = archive.tiering()
    return tiering.evict(tier, tiering.objects(), NullProgress())


def copy_of(root: Path, to: Path) -> Archive:
    """An archive of `two_tiers` that nobody has open, copied with its tiers and opened."""
    shutil.copytree(root, to, symlinks=True, dirs_exist_ok=True)
    settings = to / "archive" / config.FILE_NAME
    settings.write_text(settings.read_text(encoding="utf-8").replace(str(root), str(to)), encoding="utf-8")
    return Archive.open(to / "archive")
