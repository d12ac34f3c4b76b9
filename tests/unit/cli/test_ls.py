"""``dicomfs ls``: folders of the tree, and versions that yielded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from tests import samples
from tests.archives import set_minimum_free
from tests.clients import Client

FIRST = samples.ct_series(2)


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old)
    return data.replace(old, new)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive whose first slice was written four times into incoming, and a second one once."""
    Archive.create(tmp_path / "archive").close()
    set_minimum_free(tmp_path / "archive", 0)
    with Archive.open(tmp_path / "archive") as archive:
        client = Client(archive)
        client.put("0.dcm", FIRST[0])
        client.put("1.dcm", changed(FIRST[0], b"Head routine", b"Head Routine"))
        client.put("2.dcm", FIRST[0][:-9] + bytes(byte ^ 1 for byte in FIRST[0][-9:]))
        client.put("3.dcm", changed(FIRST[0], b"Sample^Patient", b"Simple^Patient"))
        client.put("4.dcm", FIRST[1])
        client.close()
    return tmp_path / "archive"


def listed(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["-a", str(root), "ls", *words, "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_versions_are_listed_with_their_conflict_and_what_is_shown(
    root: Path, capsys: pytest.CaptureFixture[str], packed: bool
) -> None:
    if packed:
        assert main(["-a", str(root), "pack"]) == ExitCode.DONE
    found = listed(capsys, root, "--versions")
    assert sorted(str(one["conflict"]) for one in found) == ["attributes", "attributes", "pixels"]
    assert len({str(one["sop_instance_uid"]) for one in found}) == 1
    (shown,) = {str(one["shown"]) for one in found}
    assert shown.startswith("/patients/")
    assert "Simple Patient" in shown
    for one in found:
        folder, _, name = str(one["path"]).rpartition("/")
        (entry,) = [entry for entry in listed(capsys, root, folder) if entry["name"] == name]
        assert (entry["size"], entry["mtime_ns"]) == (one["size"], one["mtime_ns"])


def test_versions_below_a_path_only(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patients = [str(entry["name"]) for entry in listed(capsys, root, "/patients")]
    counts = {name: len(listed(capsys, root, "--versions", f"/patients/{name}")) for name in patients}
    assert sorted(counts.values()) == [0, 3]
    assert main(["-a", str(root), "ls", "--versions", "/patients/nobody"]) == ExitCode.NOT_FOUND


def test_versions_as_a_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-a", str(root), "ls", "--versions"]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert shown.count("/versions/") == 3
    assert "pixels" in shown
