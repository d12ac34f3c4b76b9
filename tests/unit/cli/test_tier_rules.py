"""``dicomfs tier apply``, ``explain``, ``pin`` and ``unpin``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dicomfs.archive import Archive
from dicomfs.cli import main, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.progress import NullProgress
from tests import samples
from tests.archives import rows, write_sources
from tests.conftest import CHECKOUT
from tests.tiered import EXTERNAL, LABORATORY, three_tiers, write_settings

RULES = {"local": "keep_days = 0\nkeep_used_days = 0", EXTERNAL: "copy_after_days = 0"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A packed archive that hands all packs of frames and streams on to the external tier."""
    three_tiers(tmp_path, tiers=RULES).close()
    return tmp_path / "archive"


def run(root: Path, *command: str) -> int:
    return main(["-a", str(root), "tier", *command])


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def first(root: Path) -> tuple[str, str]:
    """Path and UID of an instance of frames."""
    with Archive.open(root) as archive:
        found = next(row for _, row in rows(archive) if len(archive.residency.objects(row.id)) > 1)
        return tree.path_of(archive, found.id), found.sop_instance_uid


def test_a_dry_run_tells_what_applying_does(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "apply", "--dry-run", "--json") == ExitCode.DONE
    planned = said(capsys)
    assert {one["tier"] for one in planned["copies"]} == {EXTERNAL}
    assert {one["reason"] for one in planned["evictions"]} == {"tiers.local.keep_days: 0 days"}
    assert run(root, "apply", "--dry-run") == ExitCode.DONE
    assert "tiers.external.copy_after_days: 0 days" in capsys.readouterr().out
    assert run(root, "apply", "--json") == ExitCode.DONE
    done = said(capsys)
    assert done["copied"][EXTERNAL]["objects"] == len(planned["copies"])
    assert done["evicted"]["local"]["objects"] == len(planned["evictions"])
    assert run(root, "apply") == ExitCode.DONE
    assert "nothing was due" in capsys.readouterr().out


def test_a_tier_that_is_down_is_part_failed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root.parent / EXTERNAL).rename(root.parent / "unmounted")
    assert run(root, "apply") == ExitCode.PART_FAILED
    assert "tier external: " in capsys.readouterr().err
    assert run(root, "apply", "--json") == ExitCode.PART_FAILED
    assert {one["tier"] for one in said(capsys)["problems"]} == {EXTERNAL}


def test_explaining_names_copies_rules_and_times(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, uid = first(root)
    assert run(root, "explain", path, uid, str(Path(path).parent), "--json") == ExitCode.DONE
    by_path, by_uid, by_series = said(capsys)
    assert by_path == by_uid
    assert (by_path["path"], by_path["residency"], by_path["pin"]) == (path, "local", "0")
    assert by_series["objects"] == sorted(by_path["objects"], key=by_series["objects"].index)
    header, pack = sorted(by_path["objects"], key=lambda one: one["kind"])
    assert (header["kind"], pack["kind"], pack["modalities"]) == ("header", "pixel", ["CT"])
    assert datetime.fromisoformat(pack["accepted"]) <= datetime.fromisoformat(pack["tiers"]["local"])
    said_of = {one["tier"]: one for one in pack["verdicts"]}
    assert (said_of["local"]["move"], said_of["local"]["state"]) == ("evict", "held")
    assert (said_of[EXTERNAL]["move"], said_of[EXTERNAL]["state"]) == ("copy", "due")
    assert said_of[LABORATORY]["reason"] == "nothing copies it there"
    assert run(root, "explain", path) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "local: must keep its copy (no other proven copies, 1 wanted" in shown
    assert "external: gets a copy at the next run (tiers.external.copy_after_days: 0 days)" in shown


def test_what_waits_to_be_packed_is_explained(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Archive.open(root) as archive:
        archive.import_paths([write_sources(root.parent / "late", samples.ct_series(1, 16, 16, 7))])
        waiting = tree.path_of(archive, next(row.id for _, row in rows(archive) if row.spooled))
    assert run(root, "explain", waiting) == ExitCode.DONE
    assert "waits to be packed" in capsys.readouterr().out
    assert run(root, "explain", "/patients/nobody") == ExitCode.NOT_FOUND
    assert run(root, "explain", "/.dicomfs/status") == ExitCode.USAGE


def test_what_is_pinned_stays(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = first(root)
    assert run(root, "pin", path) == ExitCode.DONE
    assert "pinned 1 series, 1 of them now" in capsys.readouterr().out
    assert run(root, "apply") == ExitCode.DONE
    assert main(["-a", str(root), "stat", path, "--json"]) == ExitCode.DONE
    capsys.readouterr()
    assert run(root, "explain", path, "--json") == ExitCode.DONE
    assert [one["pinned"] for one in said(capsys)[0]["objects"]] == [True, True]
    assert run(root, "evict", "--from", "local", path) == ExitCode.PART_FAILED
    assert "is pinned" in capsys.readouterr().err
    assert run(root, "unpin", path, "--json") == ExitCode.DONE
    assert said(capsys) == {"series": 1, "unpinned": 1}
    assert run(root, "apply") == ExitCode.DONE
    capsys.readouterr()
    assert run(root, "pin", path, "--json") == ExitCode.DONE
    assert said(capsys)["objects"] == 1


def test_in_the_background_only_what_fills_the_disk_moves_outside_the_schedule(root: Path) -> None:
    hour = datetime.now().hour
    closed = f"[lifecycle]\nschedule = ['{(hour + 5) % 24}:00-{(hour + 6) % 24}:00']"
    command = [sys.executable, "-m", "dicomfs", "-a", str(root), "tier", "apply"]
    command += ["--background-of", str(os.getpid())]
    write_settings(root.parent, closed, RULES)
    subprocess.run(command, cwd=CHECKOUT, check=True)
    with Archive.open(root) as archive:
        assert all(record.tiers.keys() == {"local"} for record in archive.catalog.objects())
    write_settings(root.parent, "", RULES)
    subprocess.run(command, cwd=CHECKOUT, check=True)
    write_settings(root.parent, closed, {"local": "high_watermark = 0"})
    with Archive.open(root) as archive:
        assert all(EXTERNAL in record.tiers for record in archive.catalog.objects())
        tiering = archive.tiering()
        tiering.warm(tiering.objects(), NullProgress())
    subprocess.run(command, cwd=CHECKOUT, check=True)
    with Archive.open(root) as archive:
        near = {record.key.split("/")[0] for record in archive.catalog.objects() if "local" in record.tiers}
        assert near == {"header"}


def test_what_a_move_costs_is_told_before_it_is_made(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    priced = "\n[tiers.external.prices]\nstorage_gb_month = 1000000\nput_1000 = 1000\n"
    settings = root / "dicomfs.toml"
    settings.write_text(settings.read_text() + priced)
    assert run(root, "copy", "--to", EXTERNAL, "--all", "--dry-run", "--json") == ExitCode.DONE
    planned = said(capsys)
    assert planned["cost"]["once"] == planned["objects"]
    assert planned["cost"]["monthly"] == pytest.approx(planned["bytes"] / 1000)
    assert run(root, "copy", "--to", EXTERNAL, "--all", "--dry-run") == ExitCode.DONE
    assert f"{planned['objects']:,.2f} USD once" in capsys.readouterr().out
    assert run(root, "apply", "--dry-run", "--json") == ExitCode.DONE
    cost = said(capsys)["cost"][EXTERNAL]
    assert cost["once"] > 0
    assert run(root, "copy", "--to", EXTERNAL, "--all", "--json") == ExitCode.DONE
    assert said(capsys)["cost"] == planned["cost"]
    assert run(root, "status", "--json") == ExitCode.DONE
    status = said(capsys)
    assert status[EXTERNAL]["cost"]["monthly"] == planned["cost"]["monthly"]
    assert status["local"]["cost"]["monthly"] == 0
    assert run(root, "evict", "--from", EXTERNAL, "--all", "--dry-run") == ExitCode.DONE
    assert "a month saved" in capsys.readouterr().out
    assert run(root, "warm", "--all", "--dry-run", "--json") == ExitCode.DONE
    assert said(capsys)["objects"] == 0
    assert run(root, "copy", "--to", "nowhere", "--all", "--dry-run") == ExitCode.USAGE
