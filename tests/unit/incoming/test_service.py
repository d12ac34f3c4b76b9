"""What closing a file sets off: acceptance, and what is left for later."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomfs import marks
from dicomfs.archive import Archive
from dicomfs.errors import CatalogFull
from dicomfs.group_acceptance import GroupAcceptance
from dicomfs.incoming import quiet
from tests import samples
from tests.archives import rows, sha, versions
from tests.clients import ROOT, Client


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "STEP_SECONDS", 0.01)
    monkeypatch.setattr(quiet, "RETRY_SECONDS", 0.05)


def test_a_whole_file_is_accepted_when_it_is_closed(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    for number, data in enumerate(slices):
        client.put(f"{number}.dcm", data)
        assert sha(data) in versions(archive)
        assert client.get(f"{number}.dcm") == data
    assert archive.catalog.counts().spool_instances == 3


def test_the_modification_time_at_closing_is_the_instances(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    handle = client.create("a.dcm")
    client.files.write(handle, 0, slices[0])
    os.utime(client.beneath("a.dcm"), ns=(1, 1_234_567_890_123_456_789))
    client.shut(handle)
    ((_, row),) = rows(archive)
    assert row.mtime_ns == 1_234_567_890_123_456_789


def test_what_is_removed_or_emptied_before_it_is_closed_is_no_instance(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    handle = client.create("a.dcm")
    client.files.write(handle, 0, slices[0])
    client.files.truncate(client.number("a.dcm"), handle, 0)
    client.shut(handle)
    with client.opened("b.dcm", os.O_WRONLY | os.O_CREAT) as handle:
        client.files.write(handle, 0, slices[1])
        client.incoming.names.unlink(client.top, b"b.dcm")
    assert versions(archive) == {}


def test_after_acceptance_unlinking_removes_the_name_only(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    client.put("a.dcm", slices[0])
    client.incoming.names.unlink(client.top, b"a.dcm")
    assert versions(archive) == {sha(slices[0]): 0}


def test_the_same_bytes_under_two_names_are_one_instance(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    client.put("a.dcm", slices[0])
    client.put("b.dcm", slices[0])
    assert versions(archive) == {sha(slices[0]): 0}
    marked = {marks.accepted_as(client.beneath(name)) for name in ("a.dcm", "b.dcm")}
    assert marked == {row.id for _, row in rows(archive)}


def test_other_bytes_under_a_known_uid_are_kept_as_a_version(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    client.put("a.dcm", slices[0])
    later = slices[0].replace(b"Head routine", b"Head Routine")
    with client.opened("a.dcm", os.O_WRONLY | os.O_TRUNC) as handle:
        client.files.write(handle, 0, later)
    assert versions(archive) == {sha(slices[0]): 1, sha(later): 0}
    assert client.get("a.dcm") == later


def test_writing_takes_the_mark_away_before_the_first_byte_changes(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    client.put("a.dcm", slices[0])
    with client.opened("a.dcm", os.O_WRONLY) as handle:
        assert marks.accepted_as(client.beneath("a.dcm")) is not None
        client.files.write(handle, 0, b"x")
        assert marks.accepted_as(client.beneath("a.dcm")) is None
        client.files.write(handle, 0, slices[0][:1])


def test_an_accepted_file_may_be_written_and_cut_while_the_archive_keeps_what_it_accepted(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    client.put("a.dcm", slices[0])
    ((_, row),) = rows(archive)
    reader = archive.reconstructor.open(row.id)
    with client.opened("a.dcm", os.O_RDWR) as handle:
        client.files.write(handle, 300, b"scribble")
        client.files.truncate(client.number("a.dcm"), handle, 1000)
        assert reader.read(0, reader.size) == slices[0]
        archive.pack("fast")
        assert reader.read(0, reader.size) == slices[0]
    reader.close()
    assert sha(slices[0]) in versions(archive)


def test_a_file_without_pixels_is_whole_and_yields_to_one_that_has_them(
    archive: Archive, client: Client
) -> None:
    (data,) = samples.ct_series(1)
    head = data[: data.rindex(b"\xe0\x7f\x10\x00")]
    client.put("head.dcm", head)
    client.incoming.names.unlink(client.top, b"head.dcm")
    assert versions(archive) == {sha(head): 0}
    client.put("all.dcm", data)
    assert versions(archive) == {sha(head): 1, sha(data): 0}
    client.put("head.dcm", head)
    assert versions(archive) == {sha(head): 1, sha(data): 0}


def test_what_is_quiet_is_taken_as_it_is(archive: Archive, client: Client, slices: list[bytes]) -> None:
    headless = slices[1][132:]
    client.put("cut.dcm", slices[0][:-100])
    client.put("headless", headless)
    client.put("notes.txt", b"no instance")
    client.incoming.start()
    until(lambda: set(versions(archive)) == {sha(slices[0][:-100]), sha(headless)})
    assert client.get("notes.txt") == b"no instance"


def test_what_an_earlier_mount_left_is_taken_by_the_next(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    below = client.archive.paths.incoming / "folder" / "below"
    below.mkdir(parents=True)
    (below / "left.dcm").write_bytes(slices[0])
    (below / "link").symlink_to("left.dcm")
    (below / "empty").write_bytes(b"")
    client.incoming.start()
    until(lambda: versions(archive) == {sha(slices[0]): 0})


def test_a_file_that_is_open_for_writing_is_not_quiet(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    headless = slices[0][132:]
    client.put("a", headless)
    handle = client.files.open(client.number("a"), os.O_WRONLY)
    client.incoming.start()
    time.sleep(0.2)
    assert versions(archive) == {}
    client.shut(handle)
    until(lambda: set(versions(archive)) == {sha(headless)})


def test_what_was_removed_before_it_was_quiet_is_no_instance(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    client.put("a", slices[0][132:])
    client.put("b", slices[1][132:])
    client.incoming.names.unlink(client.top, b"a")
    client.incoming.start()
    until(lambda: bool(versions(archive)))
    assert set(versions(archive)) == {sha(slices[1][132:])}


def test_bytes_stored_through_a_mapping_after_closing_are_looked_at_later(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    handle = client.create("a.dcm")
    client.files.write(handle, 0, slices[0][:-2])
    client.incoming.flush(handle)
    client.files.write(handle, len(slices[0]) - 2, slices[0][-2:])  # the kernel writes back after FLUSH
    client.incoming.release(handle)
    client.incoming.start()
    until(lambda: set(versions(archive)) == {sha(slices[0])})


def test_without_space_closing_says_so_and_the_file_is_taken_once_there_is_some(
    archive: Archive, client: Client, slices: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.incoming._intake, "_reserve_bytes", 1 << 62)
    handle = client.create("a.dcm")
    client.files.write(handle, 0, slices[0])
    with pytest.raises(OSError) as caught:
        client.incoming.flush(handle)
    assert caught.value.errno == errno.ENOSPC
    client.incoming.release(handle)
    assert client.get("a.dcm") == slices[0]
    client.incoming.start()
    time.sleep(0.1)
    assert versions(archive) == {}
    monkeypatch.setattr(client.incoming._intake, "_reserve_bytes", 0)
    until(lambda: set(versions(archive)) == {sha(slices[0])})


def test_an_index_without_space_fails_everybody_who_waits(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    def full(candidates: object) -> list[object]:
        raise CatalogFull("full")

    together = GroupAcceptance(full)  # type: ignore[arg-type]
    with ThreadPoolExecutor(3) as pool:
        for waiting in [pool.submit(together.accept, None) for _ in range(3)]:  # type: ignore[arg-type]
            with pytest.raises(CatalogFull):
                waiting.result()


def test_files_closed_at_the_same_time_are_all_accepted(archive: Archive, client: Client) -> None:
    files = [data for seed in range(4) for data in samples.ct_series(8, 16, 16, seed)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: client.put(f"{job[0]}.dcm", job[1]), enumerate(files)))
    assert set(versions(archive)) == {sha(data) for data in files}
    assert list((archive.paths.spool / "tmp").glob("*/*.part")) == []


def test_every_handle_of_a_file_writes_into_it(archive: Archive, client: Client, slices: list[bytes]) -> None:
    one = client.create("a.dcm")
    other, _ = client.files.create(client.top, b"a.dcm", 0o644, os.O_WRONLY, ROOT)
    client.files.write(one, 0, slices[0][:1000])
    client.files.write(other, 1000, slices[0][1000:])
    client.shut(other)
    client.shut(one)
    assert set(versions(archive)) == {sha(slices[0])}
    with pytest.raises(FileExistsError):
        client.files.create(client.top, b"a.dcm", 0o644, os.O_WRONLY | os.O_EXCL, ROOT)


def test_a_fifo_is_never_opened_beneath(client: Client) -> None:
    os.mkfifo(client.beneath("fifo"))
    with pytest.raises(OSError) as caught:
        client.files.open(client.number("fifo"), os.O_RDONLY)
    assert caught.value.errno == errno.ENXIO


def test_the_folder_belongs_to_the_owner_of_the_mount_unless_it_is_there(
    archive: Archive, client: Client, tmp_path: Path
) -> None:
    assert archive.paths.incoming.stat().st_mode & 0o777 == 0o770
    archive.paths.incoming.chmod(0o755)
    Client(archive).close()
    assert archive.paths.incoming.stat().st_mode & 0o777 == 0o755
