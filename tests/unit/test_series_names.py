"""Names within a series: one per UID, for ever."""

from __future__ import annotations

from dicomfs.instance_names import instance_name
from dicomfs.model import ConflictClass, InstanceId, InstanceRow
from dicomfs.series_names import SeriesNames


def row(name: str, uid: str, version: int = 0) -> InstanceRow:
    return InstanceRow(
        InstanceId(1, 0), name, uid, 1, 1, bytes(8), version, ConflictClass.NONE, spooled=False
    )


def test_the_first_gets_the_plain_name_and_another_uid_a_longer_one() -> None:
    names = SeriesNames([])
    assert names.take("1.1", 7) == ("000007.dcm", 0, 7)
    assert names.take("1.2", 7) == (instance_name(7, "1.2", 1), 1, 7)
    assert names.take("1.3", 7) == (instance_name(7, "1.3", 1), 1, 7)


def test_a_uid_keeps_its_name_whatever_number_comes_with_it() -> None:
    names = SeriesNames([])
    for uid, number in (("1.1", 7), ("1.2", 7), ("1.3", None)):
        taken = names.take(uid, number)
        for other in (7, 8, None):
            assert names.take(uid, other) == taken


def test_names_that_the_catalog_has_are_known() -> None:
    names = SeriesNames([row("000007.dcm", "1.1"), row("x-1234abcd.dcm", "1.2")])
    assert names.take("1.1", 9) == ("000007.dcm", 0, 7)
    assert names.take("1.3", 7)[1] == 1
    assert names.take("1.4", None) == (instance_name(None, "1.4", 0), 0, None)


def test_a_shortened_hash_that_is_taken_is_lengthened() -> None:
    first = instance_name(7, "1.2", 1)
    names = SeriesNames([row("000007.dcm", "1.1"), row(first, "a colliding one")])
    assert names.take("1.2", 7) == (instance_name(7, "1.2", 2), 2, 7)
    missing = instance_name(None, "1.5", 0)
    names = SeriesNames([row(missing, "a colliding one")])
    assert names.take("1.5", None) == (instance_name(None, "1.5", 2), 2, None)


def test_version_numbers_go_on_above_the_highest() -> None:
    names = SeriesNames([row("000007.dcm", "1.1"), row("000007.dcm", "1.1", 4)])
    assert [names.next_version("000007.dcm") for _ in range(2)] == [5, 6]
    assert names.next_version("000008.dcm") == 1
