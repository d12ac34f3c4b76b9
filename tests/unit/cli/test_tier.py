"""``dicomfs tier``, ``init`` with tiers, and ``recover`` with a key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from tests.archives import contents, digests, rows, write_sources
from tests.tiered import FILES, copied

EVERYTHING = ("--all",)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive with an encrypted laboratory tier, packed in two batches."""
    (tmp_path / "laboratory").mkdir()
    options = ["--laboratory", str(tmp_path / "laboratory"), "--key-file", str(tmp_path / "key")]
    assert run(tmp_path / "archive", "init", *options) == ExitCode.DONE
    with Archive.open(tmp_path / "archive") as archive:
        for turn, files in enumerate([FILES[:6], FILES[6:]]):
            archive.import_paths([write_sources(tmp_path / f"in{turn}", files)])
            archive.pack()
    return tmp_path / "archive"


def run(root: Path, *command: str) -> int:
    return main(["-a", str(root), *command])


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_init_makes_the_key_and_writes_the_settings(root: Path, tmp_path: Path) -> None:
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o400
    settings = (root / "dicomfs.toml").read_text()
    assert f'url = "{(tmp_path / "laboratory").as_uri()}"' in settings
    assert f'file = "{tmp_path / "key"}"' in settings


def test_init_takes_a_key_that_is_there(tmp_path: Path, root: Path) -> None:
    key = (tmp_path / "key").read_bytes()
    assert run(tmp_path / "second", "init", "--key-file", str(tmp_path / "key")) == ExitCode.DONE
    assert (tmp_path / "key").read_bytes() == key


def test_init_refuses_what_is_no_tier_or_no_key_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no key").write_text("secret?")
    (tmp_path / "no key").chmod(0o400)
    assert run(tmp_path / "a", "init", "--external", "ftp://elsewhere") == ExitCode.USAGE
    assert run(tmp_path / "a", "init", "--key-file", str(tmp_path / "no key")) == ExitCode.USAGE
    assert not (tmp_path / "a").exists()
    assert "secret" not in capsys.readouterr().err


def test_copying_evicting_and_warming(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "tier", "copy", "--to", "laboratory", "--all", "--json") == ExitCode.DONE
    copied = said(capsys)
    assert (copied["failed"], copied["waiting"], copied["already"]) == ([], 0, 0)
    assert run(root, "tier", "evict", "--from", "local", "--all") == ExitCode.DONE
    assert f"evicted from local: {copied['objects']} objects" in capsys.readouterr().out
    assert run(root, "tier", "status", "--json") == ExitCode.DONE
    tiers = said(capsys)
    assert (tiers["local"]["objects"], tiers["local"]["bytes"]) == (0, 0)
    laboratory = tiers["laboratory"]
    assert (laboratory["objects"], laboratory["bytes"]) == (copied["objects"], copied["bytes"])
    assert run(root, "verify", "--deep") == ExitCode.DONE
    assert run(root, "tier", "warm", "--all") == ExitCode.DONE
    assert run(root, "tier", "status") == ExitCode.DONE
    assert "laboratory" in capsys.readouterr().out
    with Archive.open(root) as archive:
        assert contents(archive) == digests(FILES)


def test_what_lies_at_a_path_is_moved_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Archive.open(root) as archive:
        place = next(place for place, _ in rows(archive) if "Other" in place[0])
    path = "/patients/" + "/".join(place[:3])
    assert run(root, "tier", "copy", "--to", "laboratory", path, "--json") == ExitCode.DONE
    one = said(capsys)["objects"]
    assert run(root, "tier", "copy", "--to", "laboratory", "--all", "--json") == ExitCode.DONE
    rest = said(capsys)
    assert 0 < one == rest["already"]
    assert rest["objects"] > 0


def test_the_last_copy_stays_and_the_command_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "tier", "evict", "--from", "local", "--all") == ExitCode.PART_FAILED
    assert "no proven copies would be left" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ("copy", "--to", "laboratory"),
        ("copy", "--to", "laboratory", "--all", "/patients"),
        ("copy", "--to", "elsewhere", "--all"),
        ("claim", "local"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused(root: Path, command: tuple[str, ...]) -> None:
    assert run(root, "tier", *command) == ExitCode.USAGE


def test_what_waits_is_told(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [data.replace(b"Head routine", b"Head Routine") for data in FILES[:2]]
    with Archive.open(root) as archive:
        archive.import_paths([write_sources(tmp_path / "more", more)])
    assert run(root, "tier", "copy", "--to", "laboratory", "--all") == ExitCode.DONE
    assert "2 instances wait" in capsys.readouterr().err


def test_recovering_needs_the_key_and_writing_a_claim(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, "tier", "copy", "--to", "laboratory", "--all") == ExitCode.DONE
    shutil.rmtree(root)
    url, again = (tmp_path / "laboratory").as_uri(), tmp_path / "again"
    assert run(again, "recover", "--from", url) == ExitCode.USAGE
    assert not again.exists()
    assert run(again, "recover", "--from", url, "--key-file", str(tmp_path / "key")) == ExitCode.DONE
    assert run(again, "tier", "warm", "--all") == ExitCode.DONE
    assert run(again, "tier", "evict", "--from", "local", "--all") == ExitCode.USAGE
    assert "tier claim laboratory" in capsys.readouterr().err
    assert run(again, "tier", "claim", "laboratory") == ExitCode.DONE
    assert "epoch 2" in capsys.readouterr().out
    assert run(again, "tier", "evict", "--from", "local", "--all") == ExitCode.DONE
    with Archive.open(again) as archive:
        assert contents(archive) == digests(FILES)


def test_a_tier_that_was_plain_is_encrypted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied(tmp_path).close()
    root = tmp_path / "archive"
    assert run(root, "tier", "encrypt", "laboratory") == ExitCode.USAGE
    assert "needs a key" in capsys.readouterr().err
    assert run(tmp_path / "other", "init", "--key-file", str(tmp_path / "key")) == ExitCode.DONE
    settings = root / "dicomfs.toml"
    settings.write_text(f"[keys]\nfile = '{tmp_path / 'key'}'\n" + settings.read_text())
    capsys.readouterr()
    assert run(root, "tier", "encrypt", "laboratory") == ExitCode.DONE
    assert "remove plaintext = true" in capsys.readouterr().out
    # What somebody put in plain bytes meanwhile is replaced where the rules are applied.
    journal = next((root / "local" / "journal").iterdir())
    (tmp_path / "laboratory" / "journal" / journal.name).write_bytes(journal.read_bytes())
    assert run(root, "tier", "apply") == ExitCode.DONE
    assert not (tmp_path / "laboratory" / "journal" / journal.name).exists()
    capsys.readouterr()
    assert run(root, "tier", "encrypt", "laboratory", "--json") == ExitCode.DONE
    assert said(capsys)["objects"] == 0
    assert run(root, "verify", "--deep") == ExitCode.DONE
    assert run(root, "key", "show", "--json") == ExitCode.DONE
    assert run(root, "tier", "encrypt", "nowhere") == ExitCode.USAGE
