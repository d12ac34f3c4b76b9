"""``dicomfs key`` on a laboratory tier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.crypto.keys import ArchiveKey, read_key_file, write_key_file
from dicomfs.errors import KeyMissing, TransientTierError
from dicomfs.tiers.base import Tier
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.keyrings import Keyrings
from dicomfs.tiers.sealed import SealedTier
from dicomfs.tiers.sentinel import attach_folder
from tests.sealed_tiers import NEW, OLD, contents, put


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with the key OLD and a laboratory tier of one object."""
    monkeypatch.delenv("DICOMFS_KEY", raising=False)
    monkeypatch.delenv("DICOMFS_KEY_FILE", raising=False)
    root, folder = tmp_path / "archive", tmp_path / "laboratory"
    folder.mkdir()
    Archive.create(root).close()
    attach_folder("laboratory", folder, archive_id(root))
    write_key_file(tmp_path / "old.key", OLD)
    set_key(root, tmp_path / "old.key")
    put(laboratory(root, OLD), "journal/0000000000000001", b"decisions")
    return root


def set_key(root: Path, *files: Path) -> None:
    (root / "dicomfs.toml").write_text(
        f"[keys]\nfile = {json.dumps([str(file) for file in files])}\n"
        f'[tiers.laboratory]\nurl = "{(root.parent / "laboratory").as_uri()}"\n'
    )


def laboratory(root: Path, key: ArchiveKey) -> Tier:
    return SealedTier(FolderTier("laboratory", root.parent / "laboratory"), archive_id(root), [key])


def archive_id(root: Path) -> bytes:
    return bytes.fromhex(json.loads((root / "archive.json").read_text())["id"])


def run(root: Path, *command: str | Path) -> int:
    return main(["-a", str(root), "key", *map(str, command)])


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_show_tells_ids_and_no_secret(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "show", "--json") == ExitCode.DONE
    document = said(capsys)
    assert document["keys"] == [OLD.id.hex()]
    tier = document["tiers"]["laboratory"]
    assert (tier["keyrings"], tier["wrapped_by"], tier["problems"]) == (2, {OLD.id.hex(): 2}, [])
    assert run(root, "show") == ExitCode.DONE
    shown = capsys.readouterr()
    assert OLD.id.hex() in shown.out
    assert OLD.secret.hex()[:16] not in shown.out + shown.err + json.dumps(document)


def test_show_with_another_key_tells_which_one_is_needed(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOMFS_KEY", NEW.secret.hex())
    assert run(root, "show") == ExitCode.PART_FAILED
    shown = capsys.readouterr()
    assert f"needs archive key {OLD.id.hex()}; at hand: {NEW.id.hex()}" in shown.err


def test_rotate_makes_the_new_key_and_leaves_the_old_one_useless(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_file = root.parent / "new.key"
    assert run(root, "rotate", "--new-key-file", new_file) == ExitCode.DONE
    shown = capsys.readouterr()
    new = read_key_file(new_file)
    assert "laboratory: 2 keyrings wrapped anew, 2 old versions removed" in shown.out
    assert new.id.hex() in shown.err
    assert list(contents(laboratory(root, new)).values()) == [b"decisions"]
    with pytest.raises(KeyMissing):
        contents(laboratory(root, OLD))
    set_key(root, new_file)
    assert run(root, "show", "--json") == ExitCode.DONE
    assert said(capsys)["tiers"]["laboratory"]["wrapped_by"] == {new.id.hex(): 2}


def test_rotate_in_two_steps_lets_both_keys_work_in_between(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_file = root.parent / "new.key"
    assert run(root, "rotate", "--new-key-file", new_file, "--keep-old", "--json") == ExitCode.DONE
    assert said(capsys)["tiers"]["laboratory"] == {"rewritten": 2, "removed": 0, "failed": []}
    new = read_key_file(new_file)
    assert contents(laboratory(root, OLD)) == contents(laboratory(root, new)) != {}
    set_key(root, new_file, root.parent / "old.key")
    assert run(root, "show", "--json") == ExitCode.DONE
    assert said(capsys)["tiers"]["laboratory"]["older_versions"] == 2
    assert run(root, "rotate", "--new-key-file", new_file, "--json") == ExitCode.DONE
    assert said(capsys)["tiers"]["laboratory"] == {"rewritten": 0, "removed": 2, "failed": []}


def test_no_tier_loses_the_old_key_while_one_can_not_be_reached(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = root.parent / "second"
    second.mkdir()
    attach_folder("second", second, archive_id(root))
    with (root / "dicomfs.toml").open("a") as settings:
        settings.write(f'[tiers.second]\nurl = "{second.as_uri()}"\n')
    real = Keyrings.rewrap

    def unreachable(self: Keyrings, *arguments: Any, **options: Any) -> Any:
        if self._tier.name == "second":
            raise TransientTierError("second", "", "timeout")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Keyrings, "rewrap", unreachable)
    new_file = root.parent / "new.key"
    assert run(root, "rotate", "--new-key-file", new_file) == ExitCode.BUSY
    assert contents(laboratory(root, OLD)) != {}
    monkeypatch.undo()
    assert run(root, "rotate", "--new-key-file", new_file) == ExitCode.DONE
    with pytest.raises(KeyMissing):
        contents(laboratory(root, OLD))
    assert "second" in capsys.readouterr().out


def test_rotate_reports_a_keyring_that_stayed_as_it_was(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = root.parent / "laboratory" / "keyring"
    damaged = next(path for path in folder.rglob("0*1") if path.is_file() and path.parent.name != "0" * 16)
    data = damaged.read_bytes()
    damaged.chmod(0o600)
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run(root, "rotate", "--new-key-file", root.parent / "new.key") == ExitCode.PART_FAILED
    assert damaged.parent.name in capsys.readouterr().err
    assert damaged.exists()


def test_rotate_to_a_file_that_is_no_key_changes_nothing(root: Path) -> None:
    wrong = root.parent / "new.key"
    wrong.write_text("not a key")
    wrong.chmod(0o400)
    assert run(root, "rotate", "--new-key-file", wrong) == ExitCode.USAGE
    assert contents(laboratory(root, OLD)) != {}


def test_an_exported_key_serves_as_a_key_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safe = root.parent / "safe.txt"
    assert run(root, "export", safe) == ExitCode.DONE
    assert OLD.id.hex() in capsys.readouterr().err
    assert safe.stat().st_mode & 0o777 == 0o400
    assert read_key_file(safe) == OLD
    set_key(root, safe)
    assert run(root, "show") == ExitCode.DONE
    assert run(root, "export", safe) == ExitCode.USAGE


def test_without_a_key_there_is_a_clear_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_key(root)
    assert run(root, "export", root.parent / "safe.txt") == ExitCode.USAGE
    assert "no archive key is set" in capsys.readouterr().err
    assert run(root, "rotate", "--new-key-file", root.parent / "new.key") == ExitCode.USAGE
    assert "needs a key" in capsys.readouterr().err
    assert not (root.parent / "new.key").exists()
