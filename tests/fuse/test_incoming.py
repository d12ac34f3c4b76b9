"""``incoming/`` behind a real mount: POSIX, acceptance, packing while it is used, ends of every kind."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from tests import samples
from tests.archives import sha, write_sources
from tests.conftest import real_files
from tests.fuse.conftest import Serve, Served, run
from tests.fuse.test_archive import digests

pytestmark = pytest.mark.real_mount

FALLOC_FL_KEEP_SIZE = 1
NOBODY = 65534


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        (tmp_path / "archive" / "dicomfs.toml").write_text("[archive]\nminimum_free_bytes = 0\n")
        yield created


@pytest.fixture
def served(archive: Archive, serve_archive: Serve) -> Served:
    return serve_archive(archive.paths.root, "allow_other,folder_mode=555")


@pytest.fixture
def incoming(served: Served) -> Path:
    return served.mountpoint / "incoming"


def until(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def errno_of(call: Callable[[], object]) -> int | None:
    """Why a call fails."""
    try:
        call()
    except OSError as problem:
        return problem.errno
    return None


def test_files_are_made_written_anywhere_renamed_linked_and_removed(incoming: Path) -> None:
    path = incoming / "file"
    with path.open("xb") as file:
        file.write(b"0123456789")
        file.seek(100)
        file.write(b"end")
    assert path.read_bytes() == b"0123456789" + bytes(90) + b"end"
    with path.open("ab") as file:
        file.write(b"more")
    os.truncate(path, 4)
    assert path.read_bytes() == b"0123"
    assert errno_of(lambda: path.open("xb")) == errno.EEXIST
    (incoming / "folder").mkdir()
    path.rename(incoming / "folder" / "other")
    os.link(incoming / "folder" / "other", incoming / "linked")
    assert (incoming / "linked").stat().st_nlink == 2
    (incoming / "symbolic").symlink_to("folder/other")
    assert (incoming / "symbolic").read_bytes() == b"0123"
    (incoming / "new").write_bytes(b"new")
    (incoming / "new").replace(incoming / "linked")
    assert (incoming / "folder" / "other").stat().st_nlink == 1
    assert errno_of((incoming / "folder").rmdir) == errno.ENOTEMPTY
    (incoming / "folder" / "other").unlink()
    (incoming / "folder").rmdir()
    assert sorted(path.name for path in incoming.iterdir()) == ["linked", "symbolic"]


def test_attributes_and_extended_attributes_are_kept(archive: Archive, incoming: Path) -> None:
    path = incoming / "file"
    path.write_bytes(b"x" * 1000)
    path.chmod(0o6751)
    os.utime(path, ns=(123_456_789_012_345_678, 987_654_321_098_765_432))
    os.setxattr(path, "user.note", b"value")
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o6751
    assert (status.st_atime_ns, status.st_mtime_ns) == (123_456_789_012_345_678, 987_654_321_098_765_432)
    assert status.st_blocks == 2
    assert os.listxattr(path) == ["user.note"]
    assert errno_of(lambda: os.setxattr(path, "user.dicomfs.stub", b"forged")) == errno.EPERM
    beneath = archive.paths.incoming / "file"
    assert (beneath.stat().st_mtime_ns, beneath.stat().st_mode) == (status.st_mtime_ns, status.st_mode)
    os.removexattr(path, "user.note")
    assert os.listxattr(path) == []


def test_what_others_make_is_theirs_and_rights_hold(incoming: Path) -> None:
    incoming.chmod(0o777)
    (incoming / "secret").write_bytes(b"secret")
    (incoming / "secret").chmod(0o600)
    program = (
        "os.setgid(65534); os.setuid(65534); os.umask(0o027); os.mkdir('theirs'); open('theirs/f', 'w')"
        "\ntry: open('secret')\nexcept PermissionError: os.mkdir('refused')"
    )
    run("python3", "-c", f"import os; os.chdir({str(incoming)!r})\n{program}")
    made = (incoming / "theirs").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (NOBODY, NOBODY, 0o750)
    assert stat.S_IMODE((incoming / "theirs" / "f").stat().st_mode) == 0o640
    assert (incoming / "refused").is_dir()


def test_an_unlinked_file_is_used_until_it_is_closed(incoming: Path) -> None:
    with (incoming / "file").open("w+b", buffering=0) as file:
        file.write(b"here")
        (incoming / "file").unlink()
        assert os.fstat(file.fileno()).st_nlink == 0
        file.write(b" still")
        assert os.pread(file.fileno(), 100, 0) == b"here still"
    assert list(incoming.iterdir()) == []


def test_a_folder_removed_while_it_is_the_working_folder_is_empty_and_gone(incoming: Path) -> None:
    (incoming / "folder").mkdir()
    program = f"import os; os.chdir({str(incoming / 'folder')!r}); os.rmdir('../folder');"
    program += "print(os.listdir('.'), os.stat('.').st_nlink == 0 or 'linked')"
    assert run("python3", "-c", program).split() == ["[]", "True"]


def test_mappings_locks_syncs_and_what_the_kernel_answers_alone(incoming: Path) -> None:
    with (incoming / "file").open("w+b", buffering=0) as file:
        file.write(bytes(10_000))
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[5000:5004] = b"here"
            mapped.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
        assert os.pread(file.fileno(), 4, 5000) == b"here"
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.fallocate(file.fileno(), FALLOC_FL_KEEP_SIZE, 0, 100) == -1
        assert ctypes.get_errno() == errno.EOPNOTSUPP
        os.posix_fallocate(file.fileno(), 0, 20_000)  # glibc writes where it must
        assert os.fstat(file.fileno()).st_size == 20_000
        with (incoming / "copy").open("w+b") as copy:
            assert os.copy_file_range(file.fileno(), copy.fileno(), 20_000, 0) == 20_000
    temporary = os.O_TMPFILE | os.O_RDWR
    assert errno_of(lambda: os.open(incoming, temporary)) == errno.EOPNOTSUPP
    folder = os.open(incoming, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def test_special_files_work_without_us(incoming: Path) -> None:
    os.mkfifo(incoming / "fifo")
    writer = threading.Thread(target=lambda: (incoming / "fifo").write_bytes(b"through"))
    writer.start()
    assert (incoming / "fifo").read_bytes() == b"through"
    writer.join()


def test_names_at_their_limit(incoming: Path) -> None:
    (incoming / ("x" * 255)).write_bytes(b"")
    assert errno_of(lambda: (incoming / ("x" * 256)).write_bytes(b"")) == errno.ENAMETOOLONG
    assert errno_of((incoming / ("x" * 256)).mkdir) == errno.ENAMETOOLONG
    assert errno_of(lambda: os.open(os.fsencode(incoming) + b"/\xff\xfe", os.O_CREAT)) is None


def test_nothing_goes_from_one_half_into_the_other(archive: Archive, served: Served, incoming: Path) -> None:
    (incoming / "a.dcm").write_bytes(samples.ct_series(1)[0])
    (shown,) = (path for path in (served.mountpoint / "patients").rglob("*.dcm"))
    assert errno_of(lambda: shown.rename(incoming / "moved")) == errno.EXDEV
    assert errno_of(lambda: os.link(shown, incoming / "linked")) == errno.EXDEV
    assert errno_of(lambda: (incoming / "a.dcm").rename(shown.parent / "b.dcm")) == errno.EXDEV
    assert errno_of(lambda: shown.open("r+b")) == errno.EROFS
    assert errno_of((served.mountpoint / "new").mkdir) == errno.EROFS
    assert errno_of(incoming.rmdir) == errno.EROFS
    run("mv", shown, incoming / "copied", check=False)
    assert (incoming / "copied").read_bytes() == shown.read_bytes()


def test_many_files_are_listed_once_each_with_few_descriptors(archive: Archive, served: Served) -> None:
    for number in range(3000):
        (archive.paths.incoming / f"file{number}").write_bytes(b"")
    listed = run("find", served.mountpoint / "incoming", "-type", "f", "-printf", "%f %s\n").splitlines()
    assert len(listed) == len(set(listed)) == 3000
    assert len(list(Path(f"/proc/{served.process.pid}/fd").iterdir())) < 100


def test_what_is_closed_is_an_instance_at_once_under_both_trees(served: Served, incoming: Path) -> None:
    for number, data in enumerate(samples.ct_series(5)):
        (incoming / f".{number}.part").write_bytes(data)
        (incoming / f".{number}.part").rename(incoming / f"{number}.dcm")
        shown = {path.read_bytes() for path in (served.mountpoint / "patients").rglob("*.dcm")}
        assert data in shown
        assert (incoming / f"{number}.dcm").read_bytes() == data
        assert len(shown) == number + 1


def test_packing_while_files_are_read_and_written_loses_nothing(
    archive: Archive, served: Served, incoming: Path
) -> None:
    files = samples.ct_series(6)
    for number, data in enumerate(files):
        (incoming / f"{number}.dcm").write_bytes(data)
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            for number, data in enumerate(files[:3]):
                with (incoming / f"{number}.dcm").open("rb", buffering=0) as file:
                    start = file.read(100)
                    time.sleep(0.001)
                    if start + file.read() != data:
                        wrong.append(f"{number} read wrong")

    def write() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            mark = b"%08d" % count
            with (incoming / "5.dcm").open("r+b") as file:
                file.write(mark)
            if (incoming / "5.dcm").read_bytes() != mark + files[5][8:]:
                wrong.append(f"write {count} lost")

    threads = [threading.Thread(target=work) for work in (read, write)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        archive.pack("fast")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert {hashlib.sha256(data).hexdigest() for data in files[:5]} <= digests(
        served.mountpoint / "patients"
    ).keys()


def test_after_packing_every_file_is_as_it_was_written(archive: Archive, incoming: Path) -> None:
    sources = real_files("series/mr_uih_dti") or []
    files = {f"{number}.dcm": path.read_bytes() for number, path in enumerate(sources)}
    files |= {f"s{number}.dcm": data for number, data in enumerate(samples.ct_series(3))}
    for name, data in files.items():
        (incoming / name).write_bytes(data)
    before = {path.name: path.stat() for path in incoming.iterdir()}
    archive.pack("fast")
    assert sum(path.stat().st_blocks for path in archive.paths.incoming.iterdir()) == 0
    time.sleep(1.1)  # the kernel asks again
    for path in incoming.iterdir():
        now = path.stat()
        kept = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_mode", "st_blocks", "st_nlink")
        assert [getattr(now, name) for name in kept] == [getattr(before[path.name], name) for name in kept]
        assert path.read_bytes() == files[path.name]


def test_tar_with_sparse_files_archives_the_bytes_of_stubs(
    archive: Archive, incoming: Path, tmp_path: Path
) -> None:
    (incoming / "a.dcm").write_bytes(samples.ct_series(1)[0])
    archive.pack("fast")
    run("tar", "-C", incoming, "-cSf", tmp_path / "a.tar", "a.dcm")
    run("tar", "-C", tmp_path, "-xf", tmp_path / "a.tar")
    assert (tmp_path / "a.dcm").read_bytes() == samples.ct_series(1)[0]


def test_programs_work_in_it(incoming: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    run("git", "init", "-q", tmp_path / "source")
    (tmp_path / "source" / "file").write_bytes(b"content")
    run("git", "-C", tmp_path / "source", "add", "file")
    run("git", "-C", tmp_path / "source", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "one")
    run("git", "clone", "-q", tmp_path / "source", incoming / "clone")
    assert run("git", "-C", incoming / "clone", "status", "--short") == ""
    run("cp", "-a", incoming / "clone", incoming / "copy")
    run("diff", "-r", incoming / "clone", incoming / "copy")
    run("rm", "-r", incoming / "copy")
    with sqlite3.connect(incoming / "base.db") as base:
        assert base.execute("pragma journal_mode=wal").fetchone() == ("wal",)
        base.execute("create table t (a)")
        base.executemany("insert into t values (?)", [(number,) for number in range(1000)])
        base.commit()
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    assert run("rsync", "-a", "--itemize-changes", f"{incoming}/clone/", incoming / "synced")
    assert run("rsync", "-a", "--itemize-changes", f"{incoming}/clone/", incoming / "synced") == ""


def test_programs_bring_series_and_move_them_before_and_after_packing(
    archive: Archive, served: Served, incoming: Path, tmp_path: Path
) -> None:
    files = {f"{number}.dcm": data for number, data in enumerate(samples.ct_series(4, 16, 16))}
    source = write_sources(tmp_path / "source", files)
    run("tar", "-C", source, "-cf", tmp_path / "series.tar", ".")
    for folder in ("unpacked", "archived"):
        (incoming / folder).mkdir()
    run("tar", "-C", incoming / "unpacked", "-xf", tmp_path / "series.tar")
    run("cp", "-a", source, incoming / "copied")
    run("cp", "-a", source, tmp_path / "moving")
    run("mv", tmp_path / "moving", incoming / "moved")
    places = ["unpacked", "copied", "moved"]

    def whole(folder: Path) -> bool:
        times = {path.name: path.stat().st_mtime_ns for path in source.iterdir()}
        return {path.name: path.read_bytes() for path in folder.iterdir()} == files and {
            path.name: path.stat().st_mtime_ns // 10**9 for path in folder.iterdir()
        } == {name: time // 10**9 for name, time in times.items()}

    wanted = {sha(data) for data in files.values()}
    for packed in (False, True):
        if packed:
            assert archive.pack("fast").failed == []
            assert not any(path.stat().st_blocks for path in archive.paths.incoming.rglob("*.dcm"))
            time.sleep(1.1)  # the kernel asks again
        assert set(digests(served.mountpoint / "patients")) == wanted
        run("mv", *(incoming / place for place in places), incoming / "archived")
        run("cp", "-a", incoming / "archived", incoming / "again")
        run("tar", "-C", incoming, "-cf", tmp_path / "out.tar", "again")
        run("tar", "-C", tmp_path, "-xf", tmp_path / "out.tar")
        for place in places:
            assert whole(incoming / "archived" / place)
            assert whole(tmp_path / "again" / place)
            run("mv", incoming / "archived" / place, incoming)
        run("rm", "-r", incoming / "again", tmp_path / "again")
    assert set(digests(served.mountpoint / "patients")) == wanted
    assert not (served.mountpoint / "versions").exists() or not digests(served.mountpoint / "versions")


def test_a_stub_restored_beneath_the_mount_is_an_error_until_it_is_written_anew(
    archive: Archive, incoming: Path, tmp_path: Path
) -> None:
    (data,) = samples.ct_series(1)
    (incoming / "a.dcm").write_bytes(data)
    archive.pack("fast")
    beneath = archive.paths.incoming / "a.dcm"
    run("cp", beneath, tmp_path / "backup")
    assert (incoming / "a.dcm").read_bytes() == data
    (incoming / "a.dcm").unlink()
    run("cp", tmp_path / "backup", beneath)
    time.sleep(1.1)  # the kernel asks again
    assert errno_of((incoming / "a.dcm").read_bytes) == errno.EIO
    assert errno_of(lambda: (incoming / "a.dcm").open("r+b")) == errno.EIO
    (incoming / "a.dcm").write_bytes(data)
    assert (incoming / "a.dcm").read_bytes() == data
    with (incoming / "hole").open("wb") as file:
        file.truncate(5000)
    assert (incoming / "hole").read_bytes() == bytes(5000)


def test_an_upload_is_shown_while_it_lasts_and_its_parts_are_no_versions(
    served: Served, incoming: Path
) -> None:
    (data,) = samples.ct_series(1)
    patients = served.mountpoint / "patients"
    (incoming / ".part").write_bytes(data[:-500])
    assert set(digests(patients)) == {sha(data[:-500])}
    with (incoming / ".part").open("ab") as file:
        file.write(data[-500:-100])
    assert set(digests(patients)) == {sha(data[:-100])}
    (incoming / "whole").write_bytes(data)
    (incoming / "whole").rename(incoming / ".part")
    assert set(digests(patients)) == {sha(data)}
    assert [path for path in (served.mountpoint / "versions").rglob("*") if path.is_file()] == []


def test_what_was_acknowledged_survives_a_kill(archive: Archive, serve_archive: Serve) -> None:
    served = serve_archive(archive.paths.root)
    incoming = served.mountpoint / "incoming"
    files = samples.ct_series(4)
    for number, data in enumerate(files[:3]):
        (incoming / f"{number}.dcm").write_bytes(data)
    descriptor = os.open(incoming / "open.dcm", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, files[3][:1000])
    served.process.send_signal(signal.SIGKILL)
    served.process.wait()
    assert errno_of(incoming.stat) == errno.ENOTCONN
    assert errno_of(lambda: os.close(descriptor)) == errno.ENOTCONN
    fresh = serve_archive(archive.paths.root).mountpoint
    assert [(fresh / "incoming" / f"{number}.dcm").read_bytes() for number in range(3)] == files[:3]
    assert (fresh / "incoming" / "open.dcm").read_bytes() == files[3][:1000]
    expected = {hashlib.sha256(data).hexdigest() for data in files[:3]}
    assert set(digests(fresh / "patients")) == expected


def test_a_full_archive_refuses_at_close_and_reads_go_on(archive: Archive, serve_archive: Serve) -> None:
    (first, second) = samples.ct_series(2)
    (archive.paths.root / "dicomfs.toml").write_text("[archive]\nminimum_free_bytes = 0\n")
    served = serve_archive(archive.paths.root)
    (served.mountpoint / "incoming" / "1.dcm").write_bytes(first)
    served.end()
    (archive.paths.root / "dicomfs.toml").write_text(f"[archive]\nminimum_free_bytes = {1 << 60}\n")
    served = serve_archive(archive.paths.root)
    incoming = served.mountpoint / "incoming"
    descriptor = os.open(incoming / "2.dcm", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, second)
    assert errno_of(lambda: os.close(descriptor)) == errno.ENOSPC
    assert (incoming / "1.dcm").read_bytes() == first
    assert (incoming / "2.dcm").read_bytes() == second
    assert len(digests(served.mountpoint / "patients")) == 1


def test_a_read_only_mount_shows_it_and_refuses_writes(archive: Archive, serve_archive: Serve) -> None:
    (serve_archive(archive.paths.root).mountpoint / "incoming" / "file").write_bytes(b"x")
    incoming = serve_archive(archive.paths.root, "ro").mountpoint / "incoming"
    assert (incoming / "file").read_bytes() == b"x"
    assert errno_of(lambda: (incoming / "new").write_bytes(b"")) == errno.EROFS


def test_quiet_series_are_packed_while_mounted(archive: Archive, serve_archive: Serve) -> None:
    settings = "[pack]\nquiet_seconds = 0\n[archive]\nminimum_free_bytes = 0\n"
    (archive.paths.root / "dicomfs.toml").write_text(settings)
    incoming = serve_archive(archive.paths.root).mountpoint / "incoming"
    (incoming / "a.dcm").write_bytes(samples.ct_series(1)[0])
    until(lambda: archive.catalog.counts().spool_instances == 0)
    until(lambda: (archive.paths.incoming / "a.dcm").stat().st_blocks == 0)
    assert (incoming / "a.dcm").read_bytes() == samples.ct_series(1)[0]


def test_unmounting_is_refused_while_a_file_is_open_and_keeps_what_was_closed(
    archive: Archive, serve_archive: Serve
) -> None:
    served = serve_archive(archive.paths.root)
    path = served.mountpoint / "incoming" / "a.dcm"
    path.write_bytes(samples.ct_series(1)[0])
    with path.open("rb"):
        refused = subprocess.run(["umount", served.mountpoint], check=False, capture_output=True)
        assert refused.returncode != 0
    run("umount", served.mountpoint)
    served.process.wait(30)
    assert served.process.returncode == 0
    assert archive.catalog.counts().instances == 1
