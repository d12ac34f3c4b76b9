"""Reading the mount table, claims of serving processes, and what must never be unmounted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dicomfs import mounts
from dicomfs.errors import UsageError
from tests.archives import small_disk

TABLE = """\
22 27 0:20 / /proc rw,nosuid - proc proc rw
90 27 0:51 / /mnt/a\\040b ro,nosuid shared:3 - fuse.dicomfs /srv/arch\\303\\244v rw,user_id=0
91 27 0:52 / /mnt/other rw - fuse.sshfs host:/ rw
92 27 0:53 / /mnt/covered rw - fuse.dicomfs /srv/x rw
93 27 0:54 / /mnt/covered rw - tmpfs tmpfs rw
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return path


def test_escapes_of_the_mount_table_are_resolved(table: Path) -> None:
    found = mounts.find(Path("/mnt/a b"), table)
    assert found == mounts.Mount("/mnt/a b", "fuse.dicomfs", "/srv/archäv", 51)


@pytest.mark.parametrize("place", ["/mnt/other", "/mnt/covered", "/proc", "/mnt/nothing"])
def test_what_is_not_a_mount_of_ours_is_refused(place: str, table: Path) -> None:
    with pytest.raises(UsageError, match=place):
        mounts.find(Path(place), table)
    with pytest.raises(UsageError):
        mounts.unmount(Path("/proc"))


def test_a_mount_point_is_resolved_to_where_the_kernel_mounts(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "to").symlink_to(tmp_path / "link")
    (tmp_path / "round").symlink_to("round")
    assert mounts.resolved(tmp_path / "link" / "mnt") == str(tmp_path / "real" / "mnt")
    assert mounts.resolved(tmp_path / "to") == mounts.resolved(tmp_path / "link") == str(tmp_path / "real")
    assert mounts.resolved(tmp_path / "round") == str(tmp_path / "round")


@pytest.mark.parametrize("name", ["a b", "ä日 x", "line\u2028\x85\x0cbreak", "100%41", "b\\,c\n", "\udcff x"])
def test_names_of_any_bytes_are_found_in_the_mount_table(name: str, tmp_path: Path) -> None:
    table, source = tmp_path / "mountinfo", mounts.source_name(Path("/srv") / name)
    fields = [os.fsencode(f"/mnt/{name}"), source.encode("ascii")]
    for plain, escaped in ((b"\\", rb"\134"), (b" ", rb"\040"), (b"\n", rb"\012")):
        fields = [field.replace(plain, escaped) for field in fields]
    table.write_bytes(b"90 27 0:51 / %s ro - fuse.dicomfs %s rw\n" % tuple(fields))
    expected = mounts.Mount(f"/mnt/{name}", "fuse.dicomfs", f"/srv/{name}", 51)
    assert mounts.mount_table(table) == [expected]


def test_a_claim_lives_as_long_as_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from dicomfs import mounts\n"
        "with mounts.claimed(Path(sys.argv[1]), Path('/mnt/x')): print(flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    with process, process.stdout:
        process.stdout.readline()
        claim = mounts.claim_of(tmp_path, "/mnt/x")
        assert claim is not None
        assert claim.name == f"mount-{process.pid}.lock"
        assert not mounts.ended(claim)
        assert mounts.claim_of(tmp_path, "/mnt/y") is None
        process.kill()
        process.wait()
        assert mounts.ended(claim)
    assert mounts.claim_of(tmp_path, "/mnt/x") is None


def test_where_the_disk_takes_nothing_a_claim_lies_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with small_disk(tmp_path / "disk", 24) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with mounts.claimed(disk, Path("/mnt/x")):
            claim = mounts.claim_of(disk, "/mnt/x")
            assert claim is not None
            assert claim.parent == tmp_path / "dicomfs"
        assert mounts.ended(claim)


def test_a_claim_sweeps_what_dead_processes_left(tmp_path: Path) -> None:
    (tmp_path / "mount-1.lock").write_text("/mnt/old")
    for number in range(13):
        (tmp_path / f"mount-{number}.log").touch()
    with mounts.claimed(tmp_path, Path("/mnt/x")):
        assert [path.name for path in tmp_path.glob("*.lock")] == [f"mount-{os.getpid()}.lock"]
        assert len(list(tmp_path.glob("*.log"))) == 10
    assert not list(tmp_path.glob("*.lock"))


def test_a_second_mount_at_the_same_place_is_refused(table: Path) -> None:
    with pytest.raises(UsageError, match="mounted there already"):
        mounts.refuse_mounted(Path("/mnt/a b"), table)
    mounts.refuse_mounted(Path("/mnt/covered"), table)
    mounts.refuse_mounted(Path("/mnt/free"), table)
