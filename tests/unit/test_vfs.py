"""The tree: names, inode numbers, listings, versions, and what hostile names meet."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dicomfs.errors import NotFoundError
from dicomfs.index import inodes
from dicomfs.index.records import Change
from dicomfs.model import InstanceId, Level, PatientNode, SeriesNode, StudyNode
from dicomfs.vfs import PATIENTS_INODE, ROOT_INODE, STATUS_INODE, VERSIONS_INODE, Tree, instance_of
from dicomfs.vfs_types import Attributes
from tests.mount_fakes import CHANGED_NS, FOLDER, MTIME_NS, SIZE, MemoryArchive, content


@pytest.fixture
def archive() -> MemoryArchive:
    return MemoryArchive(["000001.dcm", "000002.dcm", "000010.dcm"])


@pytest.fixture
def tree(archive: MemoryArchive) -> Tree:
    return Tree(archive.catalog, archive.reconstructor, archive.status)


def walk(tree: Tree, path: str) -> Attributes:
    attributes = tree.attributes(ROOT_INODE)
    for name in path.split("/"):
        attributes = tree.lookup(attributes.inode, name.encode())
    return attributes


def names(tree: Tree, inode: int) -> list[str]:
    return [entry.name.decode() for entry in tree.listing(inode).entries]


def everything(tree: Tree, inode: int = ROOT_INODE, path: str = "") -> dict[str, Attributes]:
    found = {}
    for name, attributes in tree.listing(inode).entries:
        below = f"{path}/{name.decode()}"
        found[below] = attributes
        if attributes.is_folder:
            found |= everything(tree, attributes.inode, below)
    return found


def test_the_top_folder_shows_patients_versions_and_the_control_folder(tree: Tree) -> None:
    assert names(tree, ROOT_INODE) == ["patients", "versions", ".dicomfs"]


def test_a_file_shows_the_size_and_time_of_its_instance(tree: Tree) -> None:
    attributes = walk(tree, f"patients/{FOLDER}/000002.dcm")
    assert attributes == Attributes(inodes.instance_ino(InstanceId(9, 1)), False, SIZE, MTIME_NS)


def test_a_folder_shows_the_time_of_the_last_commit_that_changed_it(
    tree: Tree, archive: MemoryArchive
) -> None:
    before = walk(tree, f"patients/{FOLDER}").mtime_ns
    archive.catalog.add("000011.dcm")
    assert CHANGED_NS < before < walk(tree, f"patients/{FOLDER}").mtime_ns


def test_listings_and_lookups_agree_on_every_name(tree: Tree, archive: MemoryArchive) -> None:
    archive.catalog.supersede("000002.dcm")
    found = everything(tree)
    assert len(found) == 4 + 3 + 3 + 3 + 1 + 1
    for path, attributes in found.items():
        if not attributes.is_volatile:
            assert walk(tree, path[1:]) == attributes == tree.attributes(attributes.inode)
    assert len({attributes.inode for attributes in found.values()}) == len(found)


def test_files_are_listed_in_name_order(tree: Tree) -> None:
    assert names(tree, walk(tree, f"patients/{FOLDER}").inode) == ["000001.dcm", "000002.dcm", "000010.dcm"]


def test_without_versions_the_versions_folder_is_empty(tree: Tree) -> None:
    assert names(tree, VERSIONS_INODE) == []
    with pytest.raises(NotFoundError):
        walk(tree, f"versions/{FOLDER}")


def test_superseded_bytes_keep_their_inode_number_and_move_to_versions(
    tree: Tree, archive: MemoryArchive
) -> None:
    old = walk(tree, f"patients/{FOLDER}/000002.dcm")
    newer = archive.catalog.supersede("000002.dcm")
    newest = archive.catalog.supersede("000002.dcm")
    assert walk(tree, f"patients/{FOLDER}/000002.dcm").inode == inodes.instance_ino(newest)
    assert walk(tree, f"versions/{FOLDER}/000002.dcm/1.dcm") == old
    assert walk(tree, f"versions/{FOLDER}/000002.dcm/2.dcm").inode == inodes.instance_ino(newer)
    assert names(tree, walk(tree, f"versions/{FOLDER}").inode) == ["000002.dcm"]
    assert names(tree, walk(tree, f"versions/{FOLDER}/000002.dcm").inode) == ["1.dcm", "2.dcm"]


def test_folders_without_shown_instances_are_not_listed(tree: Tree, archive: MemoryArchive) -> None:
    catalog = archive.catalog
    catalog.patient_nodes.append(PatientNode(17, "", "P2", "", "P2"))
    catalog.study_nodes.append(StudyNode(18, 7, "1.3", "", "", "empty study"))
    catalog.series_nodes.append(SeriesNode(19, 8, "1.4", "CT", "", "", "empty series"))
    assert len(names(tree, PATIENTS_INODE)) == 1
    assert len([path for path in everything(tree) if path.startswith("/patients/")]) == 6


def test_a_series_of_superseded_instances_only_is_shown_under_versions_only(
    tree: Tree, archive: MemoryArchive
) -> None:
    archive.catalog.instances[:] = [replace(row, version=1) for row in archive.catalog.instances]
    archive.catalog.feed.append(Change(Level.SERIES, 9, None))
    assert names(tree, PATIENTS_INODE) == []
    assert len(names(tree, VERSIONS_INODE)) == 1


@pytest.mark.parametrize("name", [b"", b"\xff\xfe", b"x" * 256, b"..", b"000001.DCM", b"1.dcm", b"000001"])
def test_names_that_are_not_there_are_not_found(tree: Tree, name: bytes) -> None:
    with pytest.raises(NotFoundError):
        tree.lookup(walk(tree, f"patients/{FOLDER}").inode, name)


@pytest.mark.parametrize(
    "inode",
    [
        0,
        2,
        1 << 61,
        (1 << 63) | 5,
        (1 << 62) - 1,
        inodes.instance_ino(InstanceId(1, 1)),
        (1 << 62) | (2 << 60),
    ],
)
def test_inode_numbers_never_given_out_are_not_found(tree: Tree, inode: int) -> None:
    for question in (tree.attributes, tree.open, tree.listing):
        with pytest.raises(NotFoundError):
            question(inode)


def test_no_name_lies_in_a_file(tree: Tree) -> None:
    with pytest.raises(NotFoundError):
        tree.lookup(walk(tree, f"patients/{FOLDER}/000001.dcm").inode, b"000001.dcm")


def test_an_open_file_gives_its_bytes(tree: Tree) -> None:
    reader = tree.open(walk(tree, f"patients/{FOLDER}/000010.dcm").inode)
    assert reader.read(7, 100) == content(InstanceId(9, 2))[7:107]


def test_the_status_file_is_json_of_the_size_it_shows(tree: Tree) -> None:
    attributes = tree.attributes(STATUS_INODE)
    reader = tree.open(STATUS_INODE)
    assert attributes.is_volatile
    assert json.loads(reader.read(0, 1 << 20)) == {"instances": 3}
    assert reader.read_ready(0, 1 << 20) == reader.read(0, attributes.size)
    assert tree.may_block(STATUS_INODE)
    assert instance_of(STATUS_INODE) is None


def test_what_follows_an_instance_is_shown_and_next_by_name(tree: Tree, archive: MemoryArchive) -> None:
    newer = archive.catalog.supersede("000002.dcm")
    assert tree.following(InstanceId(9, 0), 2) == [newer, InstanceId(9, 2)]
    assert tree.following(InstanceId(9, 2), 2) == []


def test_a_listing_says_at_which_change_it_was_read(tree: Tree, archive: MemoryArchive) -> None:
    listing = tree.listing(PATIENTS_INODE)
    assert listing.change == tree.change()
    archive.catalog.add("000011.dcm")
    assert listing.change < tree.change()


def test_a_level_of_folders_is_found_by_its_own_inode_kind(tree: Tree) -> None:
    assert walk(tree, f"patients/{FOLDER}").inode == inodes.folder_ino(Level.SERIES, 9)
