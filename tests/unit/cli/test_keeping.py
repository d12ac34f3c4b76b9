"""``dicomfs gc``, ``scrub``, ``heal``, ``forget`` and ``hold``: what they say, in which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from tests.archives import contents, digests, flip, objects, rows
from tests.tiered import FILES, LABORATORY, copy_of


@pytest.fixture
def root(tmp_path: Path, tiered_archives: dict[bool, Path]) -> Path:
    """An archive with two patients, packed and copied to the laboratory."""
    copy_of(tiered_archives[True], tmp_path / "top").close()
    return tmp_path / "top" / "archive"


def run(root: Path, *command: str) -> int:
    return main(["-a", str(root), *command])


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def paths(root: Path) -> dict[str, str]:
    """Patient's folder, study's, series', file's: of the other patient."""
    with Archive.open(root) as archive:
        place = next(place for place, _ in rows(archive) if "Other" in place[0])
        uid = next(row.sop_instance_uid for found, row in rows(archive) if found == place)
    parts = [f"/patients/{'/'.join(map(str, place[:count]))}" for count in (1, 2, 3, 4)]
    return dict(zip(("patient", "study", "series", "file"), parts, strict=True)) | {"uid": uid}


def left(root: Path) -> int:
    with Archive.open(root) as archive:
        return len(contents(archive))


@pytest.mark.parametrize(
    "what, count", [("file", 1), ("uid", 1), ("series", 3), ("study", 3), ("patient", 3)]
)
def test_what_is_named_is_forgotten(
    root: Path, capsys: pytest.CaptureFixture[str], what: str, count: int
) -> None:
    assert run(root, "forget", "--yes", "--json", "--reason", "asked for", paths(root)[what]) == ExitCode.DONE
    document = said(capsys)
    assert (document["instances"], document["unshipped"], document["left"]) == (count, [], [])
    assert left(root) == len(FILES) - count
    assert run(root, "verify", "--deep") == ExitCode.DONE


def test_forgetting_all_of_a_batch_leaves_no_object(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patients = sorted({f"/patients/{place[0]}" for place, _ in _rows(root)})
    assert run(root, "forget", "--yes", *patients) == ExitCode.DONE
    assert "9 instances" in capsys.readouterr().out
    assert list((root / "local" / "pixel").glob("*/*")) == []


def _rows(root: Path) -> list[Any]:
    with Archive.open(root) as archive:
        return rows(archive)


def test_bytes_that_stay_are_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "forget", "--yes", paths(root)["file"]) == ExitCode.DONE
    assert "some of their bytes stay" in capsys.readouterr().out


def test_nobody_is_asked_where_nobody_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "forget", paths(root)["file"]) == ExitCode.USAGE
    assert "say --yes" in capsys.readouterr().err
    assert left(root) == len(FILES)


@pytest.mark.parametrize("name", ["/", "/patients", "/versions", "/.dicomfs/status"])
def test_what_names_no_patient_is_refused(root: Path, name: str) -> None:
    assert run(root, "forget", "--yes", name) == ExitCode.USAGE
    assert left(root) == len(FILES)


@pytest.mark.parametrize("name", ["/patients/none", "1.2.3.4.5"])
def test_what_is_not_there_is_told(root: Path, name: str) -> None:
    assert run(root, "forget", "--yes", name) == ExitCode.NOT_FOUND


@pytest.mark.parametrize("what", ["file", "series", "study", "patient"])
def test_what_is_held_stays_until_it_is_released(
    root: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path = paths(root)[what]
    assert run(root, "hold", "--reason", "trial", path) == ExitCode.DONE
    assert run(root, "forget", "--yes", paths(root)["patient"]) == ExitCode.USAGE
    assert "held" in capsys.readouterr().err
    assert run(root, "hold", "--json") == ExitCode.DONE
    (hold,) = said(capsys)["holds"]
    assert (hold["path"], hold["reason"]) == (path, "trial")
    assert run(root, "hold", "--release", path) == ExitCode.DONE
    assert run(root, "hold", "--release", path) == ExitCode.USAGE
    assert run(root, "forget", "--yes", path) == ExitCode.DONE


def test_a_tier_that_is_not_told_is_part_failed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root.parent / LABORATORY
    folder.rename(root.parent / "unmounted")
    assert run(root, "forget", "--yes", paths(root)["patient"]) == ExitCode.PART_FAILED
    assert f"tier {LABORATORY} does not know yet" in capsys.readouterr().err
    assert run(root, "verify") == ExitCode.STORAGE
    assert run(root, "scrub", "--json") == ExitCode.STORAGE
    capsys.readouterr()
    (root.parent / "unmounted").rename(folder)
    assert run(root, "gc", "--json") == ExitCode.DONE
    assert said(capsys)["journal"] == 1


def test_gc_tells_what_it_would_do(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Archive.open(root) as archive, archive.catalog.write() as writer:
        for record in list(archive.catalog.objects()):
            writer.remove_placement(record.key, LABORATORY)
    for _ in range(2):
        assert run(root, "gc", "--dry-run", "--json") == ExitCode.DONE
        document = said(capsys)
        assert document["condemned"] == document["waiting"] > 0
    assert run(root, "gc") == ExitCode.DONE
    assert "0 copies deleted" in capsys.readouterr().out
    toml = root / "dicomfs.toml"
    toml.write_text(toml.read_text() + "\n[gc]\nremote_grace_seconds = 0\n", encoding="utf-8")
    assert run(root, "gc", "--json") == ExitCode.DONE
    assert said(capsys)["deleted"] == document["condemned"]
    assert left(root) == len(FILES)


def test_heal_mends_what_lies_at_a_path_and_the_journal(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Archive.open(root) as archive:
        bad, journal = objects(archive, "header")[0], objects(archive, "journal")[0]
    flip(bad, 80)
    journal.unlink()
    assert run(root, "scrub", "--no-heal") == ExitCode.PART_FAILED
    assert "not healed" in capsys.readouterr().out
    assert run(root, "heal", "--json", paths(root)["file"]) == ExitCode.DONE
    assert [one["tier"] for one in said(capsys)["healed"]] == ["local"]
    assert run(root, "heal", "--all", "--json") == ExitCode.DONE
    assert [one["object"].split("/")[0] for one in said(capsys)["healed"]] == ["journal"]
    with Archive.open(root) as archive:
        assert contents(archive) == digests(FILES)
    assert run(root, "heal") == ExitCode.USAGE


def test_scrub_takes_a_budget(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(root, "scrub", "--bytes", "1K", "--hours", "1", "--tier", LABORATORY, "--json") == ExitCode.DONE
    )
    document = said(capsys)
    assert document["copies"] >= 1
    assert document["left"] >= 1
    assert run(root, "scrub", "--bytes", "much") == ExitCode.USAGE
    assert run(root, "scrub", "--tier", "none") == ExitCode.USAGE


def test_a_snapshot_is_made_and_recovered_from(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, "snapshot", "--json") == ExitCode.DONE
    made = said(capsys)
    assert made["tiers"] == ["local", LABORATORY]
    assert run(root, "snapshot") == ExitCode.DONE
    assert f"{made['headers']} header packs" in capsys.readouterr().out
    url = (root.parent / LABORATORY).as_uri()
    assert run(tmp_path / "again", "recover", "--from", url, "--json") == ExitCode.DONE
    report = said(capsys)
    assert report["from_snapshot"] == made["headers"]
    assert run(tmp_path / "packs", "recover", "--from", url, "--from-packs", "--json") == ExitCode.DONE
    assert said(capsys)["snapshot"] == ""
    assert left(tmp_path / "again") == left(tmp_path / "packs") == len(FILES)
    assert run(root, "status", "--json") == ExitCode.DONE
    assert said(capsys)["snapshot_bytes"] > 0


def test_applying_the_rules_makes_a_snapshot_when_it_is_due(root: Path) -> None:
    for _ in range(2):
        assert run(root, "tier", "apply") == ExitCode.DONE
    for tier in (root / "local", root.parent / LABORATORY):
        assert len([path for path in (tier / "snapshot").rglob("*") if path.is_file()]) == 1


def test_no_snapshot_is_made_where_the_settings_say_so(root: Path) -> None:
    settings = root / "dicomfs.toml"
    settings.write_text(settings.read_text() + "\n[snapshots]\nbackground = false\n")
    assert run(root, "tier", "apply") == ExitCode.DONE
    assert not (root / "local" / "snapshot").exists()
