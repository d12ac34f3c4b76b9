"""The watcher of changes: what it drops, in which order, and how it meets trouble."""

from __future__ import annotations

import errno
import threading

import pytest

from dicomfs.errors import CatalogBusy
from dicomfs.index import inodes
from dicomfs.index.records import ROOT, Change
from dicomfs.invalidation import EVERYTHING, ChangeWatcher, Drop, drops_of
from dicomfs.model import Level
from dicomfs.vfs import PATIENTS_INODE, VERSIONS_INODE
from tests.mount_fakes import MemoryCatalog


class RecordingCache:
    """Remembers what was dropped; raises on request."""

    def __init__(self) -> None:
        self.dropped: list[Drop] = []
        self.problem: OSError | None = None
        self.called = threading.Event()

    def drop_attributes(self, inode: int) -> None:
        self._note(Drop(inode, None))

    def drop_entry(self, parent: int, name: bytes) -> None:
        self._note(Drop(parent, name))

    def _note(self, drop: Drop) -> None:
        self.dropped.append(drop)
        self.called.set()
        if self.problem is not None:
            raise self.problem


def test_a_changed_folder_loses_its_attributes_in_both_trees() -> None:
    assert drops_of([Change(Level.STUDY, 5, None)] * 2) == [
        Drop(inodes.folder_ino(Level.STUDY, 5), None),
        Drop(inodes.versions_folder_ino(Level.STUDY, 5), None),
    ]


def test_the_root_stands_for_both_lists_of_patients() -> None:
    assert drops_of([Change(ROOT, 0, None)]) == [Drop(PATIENTS_INODE, None), Drop(VERSIONS_INODE, None)]


def test_a_name_with_other_bytes_is_dropped_before_attributes_and_with_its_versions() -> None:
    folder, versions = inodes.folder_ino(Level.SERIES, 9), inodes.versions_folder_ino(Level.SERIES, 9)
    assert drops_of([Change(Level.SERIES, 9, None), Change(Level.SERIES, 9, "000001.dcm")]) == [
        Drop(folder, b"000001.dcm"),
        Drop(versions, b"000001.dcm"),
        Drop(folder, None),
        Drop(versions, None),
    ]


def test_only_what_came_after_the_start_is_dropped() -> None:
    catalog, cache = MemoryCatalog(["000001.dcm"]), RecordingCache()
    watcher = ChangeWatcher(catalog, cache)
    watcher.follow()
    assert cache.dropped == []
    catalog.add("000002.dcm")
    watcher.follow()
    watcher.follow()
    assert cache.dropped == drops_of([Change(Level.SERIES, 9, None)])


def test_a_feed_that_does_not_reach_back_drops_everything() -> None:
    catalog, cache = MemoryCatalog(), RecordingCache()
    watcher = ChangeWatcher(catalog, cache)
    catalog.add("000001.dcm")
    catalog.forgetful = True
    watcher.follow()
    assert tuple(cache.dropped) == EVERYTHING


def test_what_the_kernel_does_not_know_is_no_problem() -> None:
    catalog, cache = MemoryCatalog(), RecordingCache()
    watcher = ChangeWatcher(catalog, cache)
    cache.problem = FileNotFoundError(errno.ENOENT, "")
    catalog.supersede("000001.dcm")
    watcher.follow()
    assert len(cache.dropped) == 4


def test_a_change_is_followed_by_the_thread_and_its_errors_are_retried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    catalog, cache = MemoryCatalog(), RecordingCache()
    watcher = ChangeWatcher(catalog, cache)
    failed = threading.Event()
    good = catalog.changes_since

    def fail(mark: int) -> list[Change] | None:
        catalog.changes_since = good  # type: ignore[method-assign]  # the second attempt succeeds
        failed.set()
        raise CatalogBusy("locked")

    catalog.changes_since = fail  # type: ignore[method-assign]  # the first attempt fails
    watcher.start()
    catalog.add("000001.dcm")
    watcher.nudge()
    assert failed.wait(10)
    assert cache.called.wait(10)
    assert watcher.stop(10)
    assert "retrying: locked" in caplog.text


def test_a_session_that_is_over_ends_the_thread() -> None:
    catalog, cache = MemoryCatalog(), RecordingCache()
    watcher = ChangeWatcher(catalog, cache)
    cache.problem = OSError(errno.ENOTCONN, "")
    catalog.add("000001.dcm")
    watcher.start()
    assert cache.called.wait(10)
    assert watcher.stop(10)
    assert len(cache.dropped) == 1


def test_a_watcher_that_never_started_is_stopped() -> None:
    assert ChangeWatcher(MemoryCatalog(), RecordingCache()).stop(0)
