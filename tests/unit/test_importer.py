"""Importing: what is taken, what is not and why, and what becomes of sources that misbehave."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomfs import importer
from dicomfs import sources as sources_
from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.errors import NotTakenError
from dicomfs.incoming.service import FOLDER_MODE
from tests import samples
from tests.archives import contents, digests, read_whole, rows, set_minimum_free, tree, write_sources

SERIES = samples.ct_series(4, 16, 16)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "archive") as created:
        yield created


def reasons(refused: list[NotTakenError]) -> dict[str, str]:
    return {Path(one.path).name: one.reason for one in refused}


def test_importing_twice_changes_nothing(archive: Archive, tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "in", SERIES)
    first = archive.import_paths([sources])
    before = tree(archive)
    again = archive.import_paths([sources])
    assert (first.taken, first.already, first.bytes_taken) == (4, 0, sum(map(len, SERIES)))
    assert (again.taken, again.already, again.bytes_taken) == (0, 4, 0)
    archive.pack()
    assert archive.import_paths([sources]).already == 4
    assert tree(archive) == before
    assert archive.catalog.counts().spool_instances == 0


def test_one_instance_under_two_names_is_taken_once(archive: Archive, tmp_path: Path) -> None:
    write_sources(tmp_path / "in", {"a": SERIES[0], "b": SERIES[0]})
    write_sources(tmp_path / "in" / "deep", {"c": SERIES[0]})
    report = archive.import_paths([tmp_path / "in", tmp_path / "in" / "a"])
    assert (report.taken, report.already, report.conflicts) == (1, 3, 0)
    assert contents(archive) == digests(SERIES[:1])


def test_bytes_size_and_time_of_every_oddity_come_back_spooled_and_packed(
    archive: Archive, tmp_path: Path
) -> None:
    # The oddities share one UID, so most of them conflict: all are kept.
    odd = samples.odd_files()
    sources = write_sources(tmp_path / "in", {name.replace("/", " "): data for name, data in odd.items()})
    report = archive.import_paths([sources])
    assert (report.taken + report.already, report.not_taken) == (len(odd), [])
    times = {(path.stat().st_size, path.stat().st_mtime_ns) for path in sources.iterdir()}
    assert contents(archive) == digests(odd)
    assert {(size, time) for size, time, _ in tree(archive).values()} <= times
    before = tree(archive)
    assert archive.pack().failed == []
    assert archive.catalog.counts().spool_instances == 0
    assert contents(archive) == digests(odd)
    assert tree(archive) == before


def test_what_is_no_instance_is_listed_with_its_reason(archive: Archive, tmp_path: Path) -> None:
    junk = samples.junk()
    report = archive.import_paths([write_sources(tmp_path / "in", junk)])
    assert report.taken == 0
    found = reasons(report.not_taken)
    assert found.keys() == junk.keys()
    assert found["empty"] == "is empty"
    assert all("no SOP Instance UID" in reason for name, reason in found.items() if name != "empty")
    assert list(archive.spool.files()) == []


def test_special_files_are_refused_and_never_waited_for(archive: Archive, tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "in", SERIES[:1])
    os.mkfifo(sources / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(sources / "socket"))
        # In a process of its own: a defect here would hang.
        code = f"""
from pathlib import Path
from dicomfs.archive import Archive
with Archive.open(Path({os.fspath(archive.paths.root)!r})) as archive:
    report = archive.import_paths([Path({os.fspath(sources)!r}), Path({os.fspath(sources / "fifo")!r})])
    refused = sorted(f"{{Path(one.path).name}}: {{one.reason}}" for one in report.not_taken)
    print(report.taken, *refused, sep=";")
"""
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
    assert ran.stderr == ""
    refused = ["fifo: is no regular file"] * 2 + ["socket: is no regular file"]
    assert ran.stdout.strip().split(";") == ["1", *refused]


def test_a_fifo_that_takes_the_place_of_a_file_is_not_waited_for(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = write_sources(tmp_path / "in", SERIES[:1])
    walk = sources_.walk

    def replace(*arguments: Any) -> Iterator[Any]:
        for found in walk(*arguments):
            found[0].unlink()
            os.mkfifo(found[0])
            yield found

    monkeypatch.setattr(importer, "walk", replace)
    report = archive.import_paths([sources])
    assert reasons(report.not_taken) == {"0000": "is no regular file"}


def test_links_to_files_are_followed_and_links_to_folders_are_listed(
    archive: Archive, tmp_path: Path
) -> None:
    elsewhere = write_sources(tmp_path / "elsewhere", SERIES[:2])
    sources = write_sources(tmp_path / "in", SERIES[2:3])
    (sources / "file").symlink_to(elsewhere / "0000")
    (sources / "folder").symlink_to(elsewhere)
    (sources / "dangling").symlink_to("nowhere")
    (sources / "loop").symlink_to("loop")
    (sources / "self").symlink_to(".")
    report = archive.import_paths([sources])
    assert report.taken == 2
    assert reasons(report.not_taken).keys() == {"folder", "self", "dangling", "loop"}
    # A link that is named is what the caller wants.
    assert archive.import_paths([sources / "folder"]).taken == 1


def test_a_source_that_is_not_there_is_listed(archive: Archive, tmp_path: Path) -> None:
    write_sources(tmp_path / "in", SERIES[:1])
    report = archive.import_paths([tmp_path / "missing", tmp_path / "in", tmp_path / ("n" * 300)])
    assert report.taken == 1
    assert [one.reason for one in report.not_taken] == [
        "cannot be read: No such file or directory",
        "cannot be read: File name too long",
    ]


def test_a_file_that_vanishes_under_the_walk_is_listed(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = write_sources(tmp_path / "in", SERIES)
    walk = sources_.walk

    def vanish(*arguments: Any) -> Iterator[Any]:
        for found in walk(*arguments):
            if found[0].name == "0001":
                found[0].unlink()
            yield found

    monkeypatch.setattr(importer, "walk", vanish)
    report = archive.import_paths([sources])
    assert report.taken == 3
    assert reasons(report.not_taken) == {"0001": "cannot be read: No such file or directory"}


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written over"])
def test_a_file_that_changes_while_it_is_copied_is_not_taken(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    sources = write_sources(tmp_path / "in", SERIES[:2])
    copy = sources_.copy_bytes
    victim = sources / "0001"

    def meddle(descriptor: int, target: Path) -> bytes:
        mine = os.fstat(descriptor).st_ino == victim.stat().st_ino
        if mine and change == "shrinks":
            os.truncate(victim, 1000)
        digest = copy(descriptor, target)
        if mine and change == "grows":
            with victim.open("ab") as file:
                file.write(b"more")
        if mine and change == "is written over":
            victim.write_bytes(SERIES[2])
        return digest

    monkeypatch.setattr(sources_, "copy_bytes", meddle)
    report = archive.import_paths([sources])
    assert report.taken == 1
    assert reasons(report.not_taken) == {"0001": "changed while it was imported"}
    assert contents(archive) == digests(SERIES[:1])
    monkeypatch.undo()
    victim.write_bytes(SERIES[1])
    assert archive.import_paths([sources]).taken == 1


def test_the_scratch_folder_is_gone_after_an_import_and_after_a_failed_one(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = write_sources(tmp_path / "in", [*SERIES, b"junk"])
    archive.import_paths([sources])
    assert [p for p in (archive.paths.spool / "tmp").iterdir() if p.is_dir()] == []

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dicomfs.accept.Acceptor.accept", fail)
    (sources / "new").write_bytes(samples.ct_series(1, seed=9)[0])
    with pytest.raises(KeyboardInterrupt):
        archive.import_paths([sources])
    assert [p for p in (archive.paths.spool / "tmp").iterdir() if p.is_dir()] == []


def test_a_stranger_without_rights_gets_what_may_be_read_and_a_list_of_the_rest(tmp_path: Path) -> None:
    # Permissions do not bind root: this import runs as another user, in a place that user may enter.
    with_rights = Path("/tmp") / f"dicomfs-rights-{os.getpid()}"
    try:
        sources = write_sources(with_rights / "in", SERIES[:2])
        closed = write_sources(sources / "closed", SERIES[2:3])
        unlisted = write_sources(sources / "unlisted", SERIES[3:4])
        code = f"""
import json
from pathlib import Path
from dicomfs.archive import Archive
root = Path({os.fspath(with_rights)!r})
with Archive.create(root / "archive") as archive:
    report = archive.import_paths([root / "in", root / "in" / "closed" / "0000"])
    print(json.dumps([report.taken, [[Path(one.path).name, one.reason] for one in report.not_taken]]))
"""
        for path in [with_rights, *with_rights.rglob("*")]:
            os.chown(path, 65534, 65534)
        (sources / "0001").chmod(0)
        closed.chmod(0)
        unlisted.chmod(0o300)
        ran = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"},
            cwd="/",
        )
        assert ran.stderr == ""
        taken, refused = json.loads(ran.stdout)
    finally:
        shutil.rmtree(with_rights)
    assert taken == 1
    assert sorted(name for name, _ in refused) == ["0000", "0001", "closed", "unlisted"]
    assert {reason for _, reason in refused} == {"cannot be read: Permission denied"}


def test_names_that_are_no_text_are_taken_and_reported_escaped(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in" / os.fsdecode(b"caf\xe9\x1b[31m")
    bad = os.fsdecode(b"bad\xfe")
    write_sources(folder, {os.fsdecode(b"good\xff"): SERIES[0], bad: b"junk"})
    root = os.fspath(archive.paths.root)
    assert main(["-a", root, "import", os.fspath(tmp_path / "in")]) == ExitCode.PART_FAILED
    shown = capsys.readouterr()
    assert "taken 1 " in shown.out
    assert "caf\\udce9\\x1b[31m/bad\\udcfe: has no SOP Instance UID" in shown.err
    assert main(["-a", root, "import", os.fspath(tmp_path / "in"), "--json"]) == ExitCode.PART_FAILED
    document = json.loads(capsys.readouterr().out)
    assert document["already"] == 1
    assert document["not_taken"][0]["path"] == os.fspath(folder / bad)


def test_very_long_names_and_deep_folders_are_taken(archive: Archive, tmp_path: Path) -> None:
    deep = tmp_path / "in"
    for _ in range(12):
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    (deep / ("f" * 255)).write_bytes(SERIES[0])
    (deep / ("j" * 255)).write_bytes(b"junk")
    report = archive.import_paths([tmp_path / "in"], keep_others=True)
    assert (report.taken, report.kept, report.not_taken) == (1, 1, [])


def test_the_archive_itself_is_not_walked(archive: Archive, tmp_path: Path) -> None:
    write_sources(tmp_path / "in", SERIES)
    (tmp_path / "note.txt").write_bytes(b"kept")
    report = archive.import_paths([tmp_path], keep_others=True)
    assert (report.taken, report.already, report.kept) == (4, 0, 1)
    assert reasons(report.not_taken) == {"archive": "is the archive itself"}


def test_other_files_are_kept_with_bytes_names_and_times(archive: Archive, tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "in", {"a.dcm": SERIES[0], "notes.txt": b"notes", "empty": b""})
    write_sources(sources / "deep", {"picture.png": b"\x89PNG"})
    report = archive.import_paths([sources, sources / "notes.txt"], keep_others=True)
    assert (report.taken, report.kept, report.not_taken) == (1, 4, [])
    kept = archive.paths.kept_others
    found = {path.relative_to(kept).as_posix(): path for path in kept.rglob("*") if path.is_file()}
    assert sorted(found) == ["deep/picture.png", "empty", "notes.txt"]
    for name, path in found.items():
        assert path.read_bytes() == (sources / name).read_bytes()
        assert path.stat().st_mtime_ns == (sources / name).stat().st_mtime_ns


def test_other_files_of_one_name_are_all_kept_and_each_once(archive: Archive, tmp_path: Path) -> None:
    folders = [write_sources(tmp_path / f"in{n}", {"readme": f"text {n}".encode()}) for n in range(3)]
    for _ in range(3):
        report = archive.import_paths(folders, keep_others=True)
        assert (report.kept, report.not_taken) == (3, [])
    kept = archive.paths.kept_others
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {
        "readme": b"text 0",
        "readme.2": b"text 1",
        "readme.3": b"text 2",
    }


def test_another_file_is_kept_where_a_folder_has_its_name_and_below_where_a_file_has(
    archive: Archive, tmp_path: Path
) -> None:
    one = write_sources(tmp_path / "one", {"name": b"a file"})
    two = tmp_path / "two"
    write_sources(two / "name", {"inner": b"below a folder"})
    for order in ([one, two], [two, one]):
        report = archive.import_paths(order, keep_others=True)
        assert (report.kept, report.not_taken) == (2, [])
    kept = archive.paths.kept_others
    assert sorted(p.read_bytes() for p in kept.rglob("*") if p.is_file()) == [b"a file", b"below a folder"]


def test_the_folder_of_kept_files_is_as_a_mount_would_make_it(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_bytes(b"notes")
    archive.import_paths([tmp_path / "in"], keep_others=True)
    assert stat.S_IMODE(archive.paths.incoming.stat().st_mode) == FOLDER_MODE


def test_without_keep_others_nothing_is_kept(archive: Archive, tmp_path: Path) -> None:
    archive.import_paths([write_sources(tmp_path / "in", {"notes": b"notes"})])
    assert not archive.paths.kept_others.exists()


def test_a_disk_below_the_minimum_refuses_and_says_which_setting_decides(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    Archive.create(root).close()
    set_minimum_free(root, 1 << 60)
    sources = write_sources(tmp_path / "in", SERIES)
    with Archive.open(root) as archive:
        report = archive.import_paths([sources])
        assert report.taken == 0
        assert len(report.not_taken) == 4
        assert all("archive.minimum_free_bytes" in str(one) for one in report.not_taken)
    set_minimum_free(root, 0)
    with Archive.open(root) as archive:
        assert archive.import_paths([sources]).taken == 4


def test_an_import_packs_in_between_when_the_spool_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "archive"
    Archive.create(root).close()
    (root / "dicomfs.toml").write_text("[pack]\nspool_bytes = 1\n", encoding="utf-8")
    monkeypatch.setattr(importer, "_BATCH_FILES", 2)
    sources = write_sources(tmp_path / "in", SERIES)
    with Archive.open(root) as archive:
        assert archive.import_paths([sources]).taken == 4
        assert archive.catalog.counts().spool_instances == 0
        assert contents(archive) == digests(SERIES)
        (series,) = {row.id.series for _, row in rows(archive)}
        assert len(archive.catalog.parts(series)) == 2


def test_an_instance_whose_identity_lies_behind_the_first_mebibyte_is_taken(
    archive: Archive, tmp_path: Path
) -> None:
    head = samples.identity("Late^Patient")
    early = [a for a in head if a[0] < 0x00080018]
    late = [a for a in head if a[0] >= 0x00080018]
    padding = samples.LITTLE.element(0x00080017, "UN", bytes(2 << 20))
    data = samples.part10(samples.write(early) + padding + samples.write(late))
    report = archive.import_paths([write_sources(tmp_path / "in", [data])])
    assert (report.taken, report.not_taken) == (1, [])
    ((_, row),) = rows(archive)
    assert read_whole(archive, row.id) == data
    assert row.sop_instance_uid == samples.uid("Late^Patient", "s", 1)


def test_sources_are_left_as_they_are(archive: Archive, tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "in", [*SERIES, b"junk"])
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sources.iterdir()}
    archive.import_paths([sources], keep_others=True)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sources.iterdir()} == before
