"""Arithmetic of inode numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.index import inodes
from dicomfs.index.inodes import Ino, InoKind, parse_ino
from dicomfs.model import InstanceId, Level

POSITIONS = st.integers(0, 2**23 - 1)
INSTANCES = st.builds(InstanceId, st.integers(0, 2**37 - 1), POSITIONS)
FIRSTS = st.builds(InstanceId, st.integers(0, 2**35 - 1), POSITIONS)


@given(INSTANCES)
def test_an_instance_comes_back(instance: InstanceId) -> None:
    assert parse_ino(inodes.instance_ino(instance)) == Ino(InoKind.INSTANCE, id=instance)


@given(FIRSTS)
def test_a_group_of_versions_comes_back(first: InstanceId) -> None:
    assert parse_ino(inodes.versions_group_ino(first)) == Ino(InoKind.VERSIONS_FOLDER, id=first)


@given(st.sampled_from(Level), st.integers(0, 2**58 - 1))
def test_folders_come_back(level: Level, number: int) -> None:
    assert parse_ino(inodes.folder_ino(level, number)) == Ino(InoKind.PATIENTS_FOLDER, number, level)
    assert parse_ino(inodes.versions_folder_ino(level, number)) == Ino(InoKind.VERSIONS_FOLDER, number, level)


@given(st.integers(0, 2**60 - 1))
def test_fixed_nodes_come_back(number: int) -> None:
    assert parse_ino(inodes.fixed_ino(number)) == Ino(InoKind.FIXED, number)


@given(INSTANCES, st.integers(0, 2**58 - 1))
def test_bit_63_is_clear_and_bit_62_set(instance: InstanceId, number: int) -> None:
    for ino in (
        inodes.instance_ino(instance),
        inodes.folder_ino(Level.SERIES, number),
        inodes.fixed_ino(number),
    ):
        assert ino >> 62 == 1


def test_the_layout_is_the_documented_one() -> None:
    assert inodes.instance_ino(InstanceId(5, 7)) == 1 << 62 | 1 << 60 | 5 << 23 | 7
    assert inodes.folder_ino(Level.STUDY, 9) == 1 << 62 | 2 << 60 | 2 << 58 | 9
    assert inodes.versions_group_ino(InstanceId(5, 7)) == 1 << 62 | 3 << 60 | 5 << 23 | 7


@pytest.mark.parametrize("ino", [-1, 0, 1, 2**62 - 1, 2**63, 2**62 | 2 << 60])
def test_foreign_numbers_are_refused(ino: int) -> None:
    with pytest.raises(ValueError, match="inode number"):
        parse_ino(ino)


@pytest.mark.parametrize("instance", [InstanceId(2**37, 0), InstanceId(0, 2**23), InstanceId(-1, 0)])
def test_what_does_not_fit_is_refused(instance: InstanceId) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        inodes.instance_ino(instance)
    with pytest.raises(ValueError, match="does not fit"):
        inodes.versions_group_ino(InstanceId(2**35, 0))
