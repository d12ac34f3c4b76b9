"""Environments: errors in our words, rules of use, schema versions."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from dicomfs.errors import CatalogBusy, CatalogError, CatalogFull, CatalogOutdated
from dicomfs.index import env as env_module
from dicomfs.index.env import Environment, WriteTxn, translate
from dicomfs.index.keys import CATALOG_TABLES, META, OBJECTS, UIDS


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Environment]:
    opened = Environment(tmp_path / "env", CATALOG_TABLES, create=True)
    yield opened
    opened.close()


def test_a_full_map_is_catalog_full_and_loses_nothing(tmp_path: Path) -> None:
    env = Environment(tmp_path / "small", CATALOG_TABLES, create=True, map_bytes=1 << 18)
    with env.write() as txn:
        txn.put(META, b"kept", b"1")

    def fill() -> None:
        with env.write() as txn:
            for number in range(1000):
                txn.put(OBJECTS, number.to_bytes(4, "big"), bytes(4096))

    with pytest.raises(CatalogFull, match="free space"):
        fill()
    with env.write() as txn:
        txn.put(META, b"more", b"2")
    with env.read() as snapshot:
        assert snapshot.get(META, b"kept") == b"1"
        assert snapshot.entries(OBJECTS) == 0
    env.close()


@pytest.mark.parametrize(
    "error, expected",
    [
        (lmdb.DiskError(f"put: {os.strerror(errno.ENOSPC)}"), CatalogFull),
        (lmdb.DiskError("commit", errno.ENOSPC), CatalogFull),
        (lmdb.MapFullError("put"), CatalogFull),
        (lmdb.LockError("begin"), CatalogBusy),
        (lmdb.ReadersFullError("begin"), CatalogBusy),
        (lmdb.CorruptedError("get"), CatalogOutdated),
        (lmdb.VersionMismatchError("open"), CatalogOutdated),
        (lmdb.PanicError("get"), CatalogError),
    ],
)
def test_lmdbs_errors_become_the_catalogs(error: lmdb.Error, expected: type[CatalogError]) -> None:
    assert type(translate(error, "write")) is expected


def test_a_missing_environment_is_outdated(tmp_path: Path) -> None:
    with pytest.raises(CatalogOutdated, match="recover"):
        Environment(tmp_path, CATALOG_TABLES)


def test_a_file_that_is_none_of_lmdbs_is_outdated(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(os.urandom(65536))
    with pytest.raises(CatalogOutdated, match="unreadable"):
        Environment(tmp_path, CATALOG_TABLES)


def test_missing_tables_are_outdated(tmp_path: Path) -> None:
    Environment(tmp_path, [META], create=True).close()
    with pytest.raises(CatalogOutdated, match="another schema"):
        Environment(tmp_path, CATALOG_TABLES)


def test_a_block_that_raises_is_undone(env: Environment) -> None:
    def fail() -> None:
        with env.write() as txn:
            txn.put(META, b"name", b"1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with env.read() as snapshot:
        assert snapshot.get(META, b"name") is None


def test_a_snapshot_does_not_see_later_writes(env: Environment) -> None:
    with env.read() as snapshot:
        with env.write() as txn:
            txn.put(META, b"name", b"1")
        assert snapshot.get(META, b"name") is None


def test_write_blocks_do_not_nest_not_even_through_another_handle(env: Environment) -> None:
    other = Environment(env.folder, CATALOG_TABLES)
    for inner in (env, other):
        with env.write(), pytest.raises(CatalogError, match="nest"), inner.write():
            pass
    with other.write() as txn:
        txn.put(META, b"name", b"1")
    other.close()


def test_a_thread_that_waits_too_long_is_told_so(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_module, "WRITER_WAIT_SECONDS", 0.01)
    errors: list[Exception] = []

    def write() -> None:
        try:
            with env.write():
                pass
        except CatalogBusy as error:
            errors.append(error)

    with env.write():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(errors) == 1


def test_the_file_stays_open_until_its_last_user_closes(env: Environment) -> None:
    other = Environment(env.folder, CATALOG_TABLES, readonly=True)
    other.close()
    other.close()
    with env.write() as txn:
        txn.put(META, b"name", b"1")


def test_a_closed_environment_says_so(env: Environment) -> None:
    env.close()
    with pytest.raises(CatalogError, match="closed"), env.read():
        pass


def test_a_handle_from_before_a_fork_is_refused(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomfs.index.env.os.getpid", lambda: -1)
    with pytest.raises(CatalogError, match="fork"), env.read():
        pass
    monkeypatch.undo()


def test_a_read_only_environment_refuses_to_write(env: Environment) -> None:
    env.close()
    reader = Environment(env.folder, CATALOG_TABLES, readonly=True)
    with pytest.raises(CatalogError, match="read-only"), reader.write():
        pass
    with pytest.raises(CatalogBusy, match="read-only in this process"):
        Environment(env.folder, CATALOG_TABLES)
    reader.close()


def test_slow_transactions_are_logged(
    env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(env_module, "SLOW_WRITE_SECONDS", -1.0)
    monkeypatch.setattr(env_module, "SLOW_READ_SECONDS", -1.0)
    with caplog.at_level(logging.WARNING):
        with env.write():
            pass
        with env.read():
            pass
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == [
        "write",
        "read",
    ]


def test_the_last_key_of_a_prefix_is_found(env: Environment) -> None:
    with env.write() as txn:
        for key in (b"a\x01", b"a\xff\xff", b"b"):
            txn.put(META, key, b"v")
        assert txn.last(META, b"a") == (b"a\xff\xff", b"v")
        assert txn.last(META, b"a\xff") == (b"a\xff\xff", b"v")
        assert txn.last(META) == (b"b", b"v")
        assert txn.last(META, b"c") is None
        assert txn.last(META, b"A") is None
        assert txn.last(OBJECTS) is None


def test_duplicates_are_found_by_their_beginning(env: Environment) -> None:
    values = [b"aa1", b"ab1", b"ab2", b"ac1"]
    with env.write() as txn:
        txn.put_duplicates(UIDS, [(b"k", value) for value in values])
        assert txn.duplicates(UIDS, b"k", b"ab") == [b"ab1", b"ab2"]
        assert txn.duplicates(UIDS, b"x", b"") == []
        txn.delete(UIDS, b"k", b"ab1")
        assert txn.duplicates(UIDS, b"k", b"") == [b"aa1", b"ab2", b"ac1"]
        assert txn.entries(UIDS) == 3


def _step(name: bytes) -> env_module.Upgrade:
    def upgrade(txn: WriteTxn) -> None:
        txn.put(META, name, b"done")

    return upgrade


def test_an_older_schema_is_upgraded_step_by_step(env: Environment) -> None:
    env.check_schema(META, 1, {}, create=True)
    env.check_schema(META, 3, {1: _step(b"one"), 2: _step(b"two")}, create=False)
    with env.read() as txn:
        assert txn.get(META, b"one") == txn.get(META, b"two") == b"done"
    env.check_schema(META, 3, {}, create=False)


@pytest.mark.parametrize("current, advice", [(4, "run `dicomfs recover`"), (1, "upgrade dicomfs")])
def test_another_schema_without_a_way_there_is_refused(env: Environment, current: int, advice: str) -> None:
    env.check_schema(META, 2, {}, create=True)
    with pytest.raises(CatalogOutdated, match=advice):
        env.check_schema(META, current, {3: _step(b"three")}, create=False)


def test_an_environment_without_a_schema_version_is_refused(env: Environment) -> None:
    with pytest.raises(CatalogOutdated, match="schema version 0"):
        env.check_schema(META, 1, {}, create=False)
