"""What follows an instance by name, and how often a series is scanned to know it."""

from __future__ import annotations

from dicomfs.model import InstanceId
from dicomfs.name_order import NameOrder
from tests.mount_fakes import MemoryCatalog


def test_a_reader_of_a_whole_series_has_it_scanned_once() -> None:
    catalog = MemoryCatalog([f"{number:06d}.dcm" for number in range(50)])
    order = NameOrder(catalog)
    for position in range(49):
        assert order.following(InstanceId(9, position), 1) == [InstanceId(9, position + 1)]
    assert catalog.scans == 1


def test_what_was_accepted_meanwhile_follows_too() -> None:
    catalog = MemoryCatalog(["000001.dcm", "000003.dcm"])
    order = NameOrder(catalog)
    assert order.following(InstanceId(9, 0), 2) == [InstanceId(9, 1)]
    added = catalog.add("000002.dcm")
    assert order.following(InstanceId(9, 0), 2) == [added, InstanceId(9, 1)]


def test_what_follows_a_superseded_instance_is_what_follows_its_name() -> None:
    catalog = MemoryCatalog(["000001.dcm", "000002.dcm"])
    newer = catalog.supersede("000001.dcm")
    order = NameOrder(catalog)
    assert order.following(InstanceId(9, 0), 4) == order.following(newer, 4) == [InstanceId(9, 1)]
