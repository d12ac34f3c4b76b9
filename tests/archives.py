"""Real archives for tests: sources on disk, what an archive shows, what comes back from it.

Owns the comparison of two archives: by names, numbers, versions and bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import DicomfsError
from dicomfs.index.catalog import Catalog
from dicomfs.index.inodes import instance_ino
from dicomfs.model import InstanceId, InstanceRow
from dicomfs.packing import repack
from dicomfs.reconstruct import file_sha256

Shown = tuple[str, str, str, str, int]
"""Folders of patient, study and series, file name, version."""


def write_sources(folder: Path, files: Mapping[str, bytes] | Iterable[bytes]) -> Path:
    """Write files below a new folder, with modification times that follow from their order."""
    named = files if isinstance(files, Mapping) else {f"{n:04d}": data for n, data in enumerate(files)}
    folder.mkdir(parents=True)
    for order, (name, data) in enumerate(named.items()):
        path = folder / name
        path.write_bytes(data)
        os.utime(path, ns=(10**18 + order, 10**18 + order * 1001))
    return folder


def rows(archive: Archive) -> list[tuple[Shown, InstanceRow]]:
    """Every instance of an archive under what it is shown as."""
    found = []
    catalog = archive.catalog
    for patient in catalog.patients():
        for study in catalog.studies(patient.number):
            for series in catalog.series_of(study.number):
                for row in catalog.rows(series.number):
                    shown = (patient.folder, study.folder, series.folder, row.name, row.version)
                    found.append((shown, row))
    return found


def tree(archive: Archive) -> dict[Shown, tuple[int, int, bytes]]:
    """What is shown -> size, mtime and start of the digest.  Fails when two share a place."""
    listed = rows(archive)
    shown = {place: (row.size, row.mtime_ns, row.sha256_start) for place, row in listed}
    assert len(shown) == len(listed), "two instances are shown under one name"
    return shown


def sha(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def versions(archive: Archive) -> dict[str, int]:
    """SHA-256 of every instance -> its version."""
    return {sha(read_whole(archive, row.id)): row.version for _, row in rows(archive)}


def numbers(archive: Archive) -> dict[Shown, tuple[InstanceId, int]]:
    """What is shown -> what names its bytes for ever."""
    return {place: (row.id, instance_ino(row.id)) for place, row in rows(archive)}


def node_numbers(archive: Archive) -> set[tuple[str, int]]:
    """Folder and number of every patient, study and series."""
    found = set()
    for patient in archive.catalog.patients():
        found.add((patient.folder, patient.number))
        for study in archive.catalog.studies(patient.number):
            found.add((study.folder, study.number))
            found |= {(one.folder, one.number) for one in archive.catalog.series_of(study.number)}
    return found


def read_whole(archive: Archive, instance: InstanceId) -> bytes:
    """All bytes of an instance."""
    reader = archive.reconstructor.open(instance)
    try:
        return reader.read(0, reader.size)
    finally:
        reader.close()


def contents(archive: Archive) -> set[str]:
    """SHA-256 of every instance, as reading gives it; fails where one does not match its record."""
    found = set()
    for _, row in rows(archive):
        reader = archive.reconstructor.open(row.id)
        try:
            digest = file_sha256(reader)
            assert digest == reader.sha256
        finally:
            reader.close()
        found.add(digest.hex())
    return found


def readable(archive: Archive) -> tuple[set[str], int]:
    """SHA-256 of what reads back, and how many instances raise a declared error instead."""
    good: set[str] = set()
    failed = 0
    for _, row in rows(archive):
        try:
            digest = hashlib.sha256(read_whole(archive, row.id))
        except DicomfsError:
            failed += 1
            continue
        assert digest.digest()[:8] == row.sha256_start, f"{row.id}: other bytes were served"
        good.add(digest.hexdigest())
    return good, failed


def digests(files: Mapping[str, bytes] | Iterable[bytes]) -> set[str]:
    """SHA-256 of these byte strings."""
    values = files.values() if isinstance(files, Mapping) else files
    return {hashlib.sha256(data).hexdigest() for data in values}


def objects(archive: Archive, prefix: str = "") -> list[Path]:
    """Files of the objects on the local tier, sorted."""
    root = archive.paths.local_tier
    found = (p for p in sorted((root / prefix).rglob("*")) if p.is_file())
    return [path for path in found if ".tmp" not in path.parts]


def import_and_pack(archive: Archive, folder: Path, files: list[bytes]) -> int:
    """Take files and pack them at once; how many parts were packed again with them."""
    archive.import_paths([write_sources(folder, files)])
    report = archive.pack()
    assert report.failed == []
    return report.together


def let_everything_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small samples hardly gain from anything: code them anew all the same."""
    monkeypatch.setattr(repack, "LEAST_GAIN", -1e9)
    monkeypatch.setattr(repack, "_LEAST_HALVINGS", -1e9)


def overwrite(path: Path, data: bytes) -> None:
    """Change an object's bytes, as a failing disk does."""
    path.chmod(0o600)
    path.write_bytes(data)


def flip(path: Path, offset: int, mask: int = 0x10) -> None:
    """Flip a bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    times = path.stat()
    overwrite(path, bytes(data))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def set_minimum_free(root: Path, count: int) -> None:
    """Let an archive fill its disk up to this many bytes."""
    (root / "dicomfs.toml").write_text(f"[archive]\nminimum_free_bytes = {count}\n", encoding="utf-8")


@contextlib.contextmanager
def small_disk(mountpoint: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of this size in memory; needs root."""
    mountpoint.mkdir()
    options = f"size={mebibytes}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "dicomfs-test", mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        # A process that ends may still hold a file for a moment.
        end = time.monotonic() + 30
        while subprocess.run(["umount", mountpoint], capture_output=True).returncode:
            assert time.monotonic() < end, f"{mountpoint} is in use: {_users(mountpoint)}"
            time.sleep(0.05)


def _users(disk: Path) -> list[str]:
    """What processes have of a file system: open files, mappings, their folder."""
    found = []
    for one in (*Path("/proc").glob("[0-9]*/fd/*"), *Path("/proc").glob("[0-9]*/cwd")):
        with contextlib.suppress(OSError):
            if one.readlink().is_relative_to(disk):
                found.append(f"{one} -> {one.readlink()}")
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            found += [f"{maps}: {line}" for line in maps.read_text().splitlines() if str(disk) in line]
    return found


def fill(disk: Path, leave: int) -> Path:
    """Write a file that leaves this many bytes free."""
    free = os.statvfs(disk)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        left = free.f_bavail * free.f_frsize - leave
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 20)))
    return ballast


def index_contents(catalog: Catalog) -> dict[str, object]:
    """What the catalog of an archive says, without times and without which header packs are local."""
    found: dict[str, object] = {
        "counts": catalog.counts(),
        "holds": {(hold.subject, hold.reason) for hold in catalog.holds()},
        "pins": catalog.pinned_series(),
        "intents": {(intent.key, intent.owner) for intent in catalog.intents()},
        "uses": catalog.recount_uses(),
        "objects": [
            (one.key, one.size, sorted(one.tiers), one.profile, catalog.placed(one.key))
            for one in catalog.objects()
        ],
    }
    for patient in catalog.patients():
        found[f"patient {patient.number}"] = patient
        for study in catalog.studies(patient.number):
            found[f"study {study.number}"] = study
            for series in catalog.series_of(study.number):
                found[f"series {series.number}"] = [
                    series,
                    catalog.rows(series.number),
                    catalog.slice_order(series.number),
                    catalog.next_position(series.number),
                    catalog.next_part(series.number),
                    [
                        (
                            part.part,
                            part.header_key,
                            part.part_index,
                            needed,
                            catalog.places_in(part.header_key),
                        )
                        for part, needed in catalog.needs(series.number).items()
                    ],
                    [catalog.is_forgotten(InstanceId(series.number, position)) for position in range(20)],
                ]
    for record in catalog.objects():
        found[record.key] = [catalog.references(record.key), sorted(catalog.names_of(record.key))]
    return found
