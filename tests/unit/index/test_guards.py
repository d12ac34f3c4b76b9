"""Checks before LMDB is let near a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomfs.errors import CatalogBusy, CatalogError
from dicomfs.index import guards
from dicomfs.index.guards import (
    FOREIGN_FILE_SYSTEMS,
    Holder,
    boot_id,
    file_system_magic,
    pid_namespace,
    require_local,
)


@pytest.mark.parametrize("magic", FOREIGN_FILE_SYSTEMS)
def test_network_file_systems_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, magic: int
) -> None:
    monkeypatch.setattr(guards, "file_system_magic", lambda _: magic)
    with pytest.raises(CatalogError, match=FOREIGN_FILE_SYSTEMS[magic]):
        require_local(tmp_path)


def test_proc_is_recognised_by_its_magic() -> None:
    assert file_system_magic(Path("/proc")) == 0x9FA0


def test_a_folder_that_is_not_there_is_the_catalogs_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="No such file"):
        file_system_magic(tmp_path / "missing")


def test_boot_and_namespace_have_names() -> None:
    assert len(boot_id()) == 36
    assert pid_namespace().startswith("pid:[")


def test_only_the_first_holder_is_alone(tmp_path: Path) -> None:
    with Holder(tmp_path) as first:
        alone = [first.first]
        first.share()
        alone.append(first.first)
        with Holder(tmp_path) as second:
            alone.append(second.first)
            second.share()
    assert alone == [True, False, False]


def test_another_pid_namespace_is_refused_while_the_first_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Holder(tmp_path) as first:
        first.share()
        monkeypatch.setattr(guards, "pid_namespace", lambda: "pid:[1]")
        with Holder(tmp_path) as second, pytest.raises(CatalogBusy, match="PID namespace"):
            second.share()
    with Holder(tmp_path) as third:
        third.share()
