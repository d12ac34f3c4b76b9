"""Settings: defaults, what is refused, and that a refusal names file and key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dicomfs import config
from dicomfs.errors import ConfigError


def test_without_a_file_there_are_the_defaults(tmp_path: Path) -> None:
    assert config.load(tmp_path) == config.Settings()


def test_the_template_changes_nothing_and_stays_valid_when_uncommented() -> None:
    assert config.parse(config.TEMPLATE) == config.Settings()
    lines = [line.removeprefix("# ") for line in config.TEMPLATE.splitlines()[2:] if line != "#"]
    assert config.parse("\n".join(lines)) == config.Settings()
    assert tomllib.loads("\n".join(lines)).keys() == {"pack", "mount"}


def test_every_section_is_read(tmp_path: Path) -> None:
    (tmp_path / "dicomfs.toml").write_text(
        '[archive]\nminimum_free_bytes = 5\n[pack]\nprofile = "dense"\n'
        '[mount]\nuid = 7\nallow_other = true\n[tiers.local]\nurl = "file:///srv/a%20b"\n'
    )
    settings = config.load(tmp_path)
    assert settings.archive.minimum_free_bytes == 5
    assert settings.pack.profile == "dense"
    assert settings.tiers["local"].path() == Path("/srv/a b")
    assert settings.mount.as_options() == ["file_mode=0440", "folder_mode=0550", "uid=7", "allow_other"]


@pytest.mark.parametrize(
    "text,key",
    [
        ("[pakc]\n", "pakc"),
        ("[pack]\nprofil = 'fast'\n", "pack.profil"),
        ("[tiers.local]\nurl = 'file:///a'\nsize = 1\n", "tiers.local.size"),
        ("[pack]\nprofile = 'loud'\n", "pack.profile"),
        ("[mount]\nfile_mode = 440\n", "mount.file_mode"),
        ("[mount]\nfile_mode = '0999'\n", "mount.file_mode"),
        ("[archive]\nminimum_free_bytes = -1\n", "archive.minimum_free_bytes"),
        ("[tiers.local]\n", "tiers.*"),
        ("[tiers.local]\nurl = 's3://bucket'\n", "tiers.local.url"),
        ("[tiers.local]\nurl = 'file://host/a'\n", "tiers.local.url"),
        ("pack = 3\n", "pack"),
        ("[pack\n", "(syntax)"),
    ],
)
def test_a_wrong_setting_is_refused_with_file_and_key(text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "/srv/a/dicomfs.toml")
    assert (caught.value.file, caught.value.key) == ("/srv/a/dicomfs.toml", key)


def test_an_unreadable_file_is_a_setting_error_too(tmp_path: Path) -> None:
    (tmp_path / "dicomfs.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError):
        config.load(tmp_path)
