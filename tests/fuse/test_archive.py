"""A real archive behind a real mount: imports, packs, conflicts and damage while it is mounted."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import UsageError
from dicomfs.mount import MountOptions, serve
from tests import samples
from tests.conftest import real_files
from tests.fuse.conftest import Serve, run

pytestmark = pytest.mark.real_mount

REAL_SERIES = ("series/mr_uih_dti", "series/pt_idc_ge_singles")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        yield created


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A CT series of twelve, one enhanced file, and real series where there are some."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for number, data in enumerate(samples.ct_series(12)):
        (folder / f"ct{number}").write_bytes(data)
    (folder / "enhanced").write_bytes(samples.enhanced_mr())
    for number, path in enumerate(real_files(*REAL_SERIES)):
        shutil.copyfile(path, folder / f"real{number}")
    return folder


def digests(folder: Path) -> dict[str, tuple[int, int]]:
    """SHA-256 -> size and mtime of every file below a folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            found[hashlib.sha256(path.read_bytes()).hexdigest()] = (status.st_size, status.st_mtime_ns)
    return found


def read_or_errno(path: Path) -> str | int | None:
    """SHA-256 of a file, or why it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as problem:
        return problem.errno


def test_every_accepted_file_comes_back_spooled_and_packed_and_after_a_new_mount(
    archive: Archive, sources: Path, serve_archive: Serve
) -> None:
    archive.import_paths([sources])
    expected = digests(sources)
    served = serve_archive(archive.paths.root)
    assert digests(served.mountpoint / "patients") == expected
    archive.pack("fast")
    assert digests(served.mountpoint / "patients") == expected
    fresh = serve_archive(archive.paths.root)
    assert digests(fresh.mountpoint / "patients") == expected


def test_what_is_imported_while_mounted_is_visible_when_the_import_returns(
    archive: Archive, sources: Path, serve_archive: Serve
) -> None:
    patients = serve_archive(archive.paths.root).mountpoint / "patients"
    assert list(patients.iterdir()) == []
    archive.import_paths([sources / "enhanced"])
    assert len(digests(patients)) == 1
    archive.import_paths([sources])
    assert digests(patients) == digests(sources)


def test_two_versions_of_an_instance_are_both_there_once_imported(
    archive: Archive, tmp_path: Path, serve_archive: Serve
) -> None:
    (first,) = samples.ct_series(1)
    later = first.replace(b"Head routine", b"Head Routine")
    mountpoint = serve_archive(archive.paths.root).mountpoint
    for number, data in enumerate((first, later)):
        (tmp_path / f"{number}.dcm").write_bytes(data)
        archive.import_paths([tmp_path / f"{number}.dcm"])
        run("find", mountpoint, "-ls")
    both = {hashlib.sha256(data).hexdigest() for data in (first, later)}
    shown, kept = digests(mountpoint / "patients"), digests(mountpoint / "versions")
    assert len(shown) == len(kept) == 1
    assert shown.keys() | kept.keys() == both
    (version,) = (path for path in (mountpoint / "versions").rglob("*") if path.is_file())
    assert version.name == "1.dcm"


def test_a_file_held_open_while_it_is_packed_keeps_its_bytes(
    archive: Archive, sources: Path, serve_archive: Serve
) -> None:
    archive.import_paths([sources / "enhanced"])
    patients = serve_archive(archive.paths.root).mountpoint / "patients"
    (file,) = [path for path in patients.rglob("*") if path.is_file()]
    with file.open("rb", buffering=0) as opened:
        start = opened.read(10)
        archive.pack("fast")
        assert start + opened.read() == (sources / "enhanced").read_bytes()


def test_folders_and_files_list_what_find_and_the_catalog_count(
    archive: Archive, sources: Path, serve_archive: Serve
) -> None:
    archive.import_paths([sources])
    mountpoint = serve_archive(archive.paths.root).mountpoint
    found = run("find", mountpoint / "patients", "-type", "f").splitlines()
    assert len(found) == archive.catalog.counts().instances
    space = os.statvfs(mountpoint)
    assert space.f_files - space.f_ffree == len(found)
    assert space.f_ffree > 0, "incoming takes new files"


def test_dcmtk_reads_every_file_and_the_extended_attributes_agree(
    archive: Archive, sources: Path, serve_archive: Serve
) -> None:
    archive.import_paths([sources])
    archive.pack("fast")
    patients = serve_archive(archive.paths.root).mountpoint / "patients"
    for path in patients.rglob("*.dcm"):
        shown = run("dcmdump", "--search", "Modality", "--search", "SOPInstanceUID", "--print-short", path)
        assert os.getxattr(path, "user.dicom.Modality").decode() in shown
        assert os.getxattr(path, "user.dicom.SOPInstanceUID").decode() in shown


def test_an_extended_attribute_gives_the_digest_of_the_file(
    archive: Archive, sources: Path, serve_archive: Serve
) -> None:
    archive.import_paths([sources])
    patients = serve_archive(archive.paths.root).mountpoint / "patients"
    for path in patients.rglob("*.dcm"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert os.getxattr(path, "user.dicomfs.sha256").decode() == digest
        assert os.getxattr(path, "user.dicomfs.tier") == b"spool"
    archive.pack("fast")
    assert os.getxattr(path, "user.dicomfs.residency") == b"local"


def test_a_damaged_pack_is_an_io_error_and_never_other_bytes(
    archive: Archive, sources: Path, serve_archive: Serve
) -> None:
    archive.import_paths([sources])
    archive.pack("fast")
    expected = digests(sources)
    for pack in sorted((archive.paths.root / "local" / "pixel").rglob("*")):
        if pack.is_file():
            pack.chmod(0o600)
            data = bytearray(pack.read_bytes())
            middle = len(data) // 3
            data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
            pack.write_bytes(data)
    served = serve_archive(archive.paths.root)
    results = [read_or_errno(path) for path in (served.mountpoint / "patients").rglob("*.dcm")]
    assert errno.EIO in results
    assert set(results) <= {errno.EIO, *expected}
    assert len(list(served.mountpoint.iterdir())) == 4


def test_an_archive_that_is_not_there_and_a_bad_mount_point_are_usage_errors(
    archive: Archive, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UsageError, match="cannot mount"):
            serve(archive.paths.root, place, MountOptions(), lambda: None)
    with pytest.raises(UsageError):
        serve(tmp_path / "no-archive", tmp_path, MountOptions(), lambda: None)
