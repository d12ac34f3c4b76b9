"""What is cut short is shown when it is closed, and goes with its bytes until it is quiet or packed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicomfs import marks
from dicomfs.archive import Archive
from dicomfs.errors import CatalogFull
from dicomfs.incoming.tree import Change
from dicomfs.marks import State
from dicomfs.model import INSTANCE_LEVEL, Subject
from dicomfs.packing.plan import BatchPlan, plan_batch
from tests.archives import sha, versions
from tests.clients import Client


@pytest.fixture
def cut(slices: list[bytes]) -> bytes:
    """A file that ends within its pixels."""
    return slices[0][:-100]


@pytest.fixture
def aborted(client: Client, cut: bytes) -> Client:
    """A client that closed a file, a.dcm, before it was whole."""
    client.put("a.dcm", cut)
    return client


@pytest.mark.parametrize("at", [400, -1, -200])
def test_a_part_is_shown_at_once_and_gives_way_to_the_whole(
    archive: Archive, client: Client, slices: list[bytes], at: int
) -> None:
    client.put("a.dcm", slices[0][:at])
    assert versions(archive) == {sha(slices[0][:at]): 0}
    with client.opened("a.dcm", os.O_WRONLY) as handle:
        client.files.write(handle, len(slices[0][:at]), slices[0][at:])
        assert versions(archive) == {}
    assert versions(archive) == {sha(slices[0]): 0}


def replace(client: Client) -> None:
    client.put("b", b"other")
    client.incoming.names.rename(client.top, b"b", client.top, b"a.dcm", 0)


def empty(client: Client) -> None:
    with client.opened("a.dcm", os.O_WRONLY | os.O_TRUNC):
        pass


CHANGES: dict[str, Callable[[Client], object]] = {
    "unlinked": lambda client: client.incoming.names.unlink(client.top, b"a.dcm"),
    "replaced": replace,
    "emptied": empty,
    "cut": lambda client: client.incoming.change(client.number("a.dcm"), None, 10, Change()),
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_goes_before_it_is_quiet_leaves_no_version_and_no_name(
    archive: Archive, aborted: Client, how: str
) -> None:
    CHANGES[how](aborted)
    assert versions(archive) == {}
    assert archive.catalog.counts().spool_instances == 0
    assert [path for path in archive.paths.spool.iterdir() if path.name != "tmp"] == []
    archive.pack("fast")
    assert versions(archive) == {}
    assert archive.verify(deep=True).problems == []


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("when", ["quiet", "packed"])
def test_what_goes_afterwards_stays_an_instance(
    archive: Archive, aborted: Client, cut: bytes, how: str, when: str
) -> None:
    if when == "quiet":
        aborted.settle()
    else:
        assert archive.pack("fast").failed == []
    CHANGES[how](aborted)
    assert versions(archive) == {sha(cut): 0}


def test_its_name_and_number_go_to_no_other_bytes(archive: Archive, aborted: Client, cut: bytes) -> None:
    first = marks.accepted_as(aborted.beneath("a.dcm"))
    empty(aborted)
    aborted.put("b.dcm", cut)
    again = marks.accepted_as(aborted.beneath("b.dcm"))
    assert first is not None
    assert again is not None
    assert again.position > first.position


def test_a_new_name_or_a_second_one_keeps_it(archive: Archive, aborted: Client, cut: bytes) -> None:
    names = aborted.incoming.names
    names.rename(aborted.top, b"a.dcm", aborted.top, b"b.dcm", 0)
    names.link(aborted.number("b.dcm"), aborted.top, b"c.dcm")
    names.unlink(aborted.top, b"b.dcm")
    assert versions(archive) == {sha(cut): 0}
    names.unlink(aborted.top, b"c.dcm")
    assert versions(archive) == {}


def test_an_import_of_the_same_bytes_makes_it_stay(
    archive: Archive, aborted: Client, cut: bytes, tmp_path: Path
) -> None:
    (tmp_path / "same.dcm").write_bytes(cut)
    assert archive.import_paths([tmp_path / "same.dcm"]).already == 1
    aborted.incoming.names.unlink(aborted.top, b"a.dcm")
    assert versions(archive) == {sha(cut): 0}


def test_one_that_is_held_stays(archive: Archive, aborted: Client, cut: bytes) -> None:
    instance = marks.accepted_as(aborted.beneath("a.dcm"))
    assert instance is not None
    archive.decisions().hold([Subject(INSTANCE_LEVEL, instance.series, instance.position)], "asked for")
    empty(aborted)
    assert versions(archive) == {sha(cut): 0}


def test_the_same_part_under_two_names_stays(archive: Archive, aborted: Client, cut: bytes) -> None:
    aborted.put("b.dcm", cut)
    empty(aborted)
    assert versions(archive) == {sha(cut): 0}


def test_it_takes_the_place_of_nothing_and_gives_its_own_to_anything(
    archive: Archive, client: Client, slices: list[bytes]
) -> None:
    one, two, three = slices[0][:-300], slices[0][:-200], slices[0][:-100]
    client.put("1", one)
    client.put("2", two)
    assert versions(archive) == {sha(one): 1, sha(two): 0}
    client.incoming.names.unlink(client.top, b"2")
    assert versions(archive) == {sha(one): 0}
    client.put("whole", slices[0])
    assert versions(archive) == {sha(one): 1, sha(slices[0]): 0}
    client.put("3", three)
    assert versions(archive) == {sha(one): 1, sha(slices[0]): 0, sha(three): 2}
    client.incoming.names.unlink(client.top, b"1")
    client.incoming.names.unlink(client.top, b"3")
    assert versions(archive) == {sha(slices[0]): 0}


def test_one_that_is_being_packed_is_left_out(
    archive: Archive, aborted: Client, slices: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    aborted.put("b.dcm", slices[1])

    def withdrawn_first(*given: Any) -> BatchPlan:
        empty(aborted)
        return plan_batch(*given)

    monkeypatch.setattr("dicomfs.packer.plan_batch", withdrawn_first)
    report = archive.pack("fast")
    assert report.failed == []
    assert versions(archive) == {sha(slices[1]): 0}
    assert archive.verify(deep=True).problems == []


def test_one_that_was_packed_before_the_commit_is_left_out_of_it(
    archive: Archive, aborted: Client, slices: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    aborted.put("b.dcm", slices[1])
    put = archive.tier.put

    def withdrawn_first(*given: Any) -> None:
        empty(aborted)
        put(*given)

    monkeypatch.setattr(archive.tier, "put", withdrawn_first)
    assert archive.pack("fast").failed == []
    assert versions(archive) == {sha(slices[1]): 0}
    assert archive.verify(deep=True).problems == []


def test_where_nothing_can_be_withdrawn_the_client_may_write_all_the_same(
    archive: Archive, aborted: Client, cut: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(instance: object) -> bool:
        raise CatalogFull("full")

    monkeypatch.setattr(aborted.incoming._intake, "withdraw", full)
    empty(aborted)
    assert aborted.get("a.dcm") == b""
    assert versions(archive) == {sha(cut): 0}


def test_another_mount_goes_on_with_it(archive: Archive, aborted: Client, cut: bytes) -> None:
    aborted.die()
    later = Client(archive)
    mark = marks.read_mark(later.beneath("a.dcm"))
    assert mark is not None
    assert mark.state is State.PROVISIONAL
    later.settle()
    mark = marks.read_mark(later.beneath("a.dcm"))
    assert mark is not None
    assert mark.state is State.ACCEPTED
    empty(later)
    assert versions(archive) == {sha(cut): 0}
    later.close()


def test_raw_bytes_that_a_power_cut_brought_back_are_removed(
    archive: Archive, aborted: Client, cut: bytes
) -> None:
    (raw,) = archive.paths.spool.glob("0*/*")
    empty(aborted)
    aborted.close()
    archive.close()
    raw.parent.mkdir()
    raw.write_bytes(cut)
    (archive.paths.index / "boot").write_text("another boot", encoding="ascii")
    with Archive.open(archive.paths.root) as again:
        assert versions(again) == {}
        assert not raw.exists()


def test_after_a_reboot_it_stays(archive: Archive, aborted: Client, cut: bytes) -> None:
    """The spool's list is made anew, and nobody knows who asked for what."""
    aborted.close()
    archive.close()
    (archive.paths.index / "boot").write_text("another boot", encoding="ascii")
    with Archive.open(archive.paths.root) as again:
        client = Client(again)
        empty(client)
        assert versions(again) == {sha(cut): 0}
        client.close()
