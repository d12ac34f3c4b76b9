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


def test_an_object_store_has_options() -> None:
    settings = config.parse(
        "[tiers.external]\nurl = 's3://bucket/site-a'\nbandwidth = 1000000\nstorage_class = 'DEEP_ARCHIVE'\n"
        "server_side_encryption = 'aws:kms'\nkms_key = 'k'\nobject_lock_days = 3650\n"
        "object_lock_mode = 'compliance'\nrestore_days = 3\nrestore_speed = 'bulk'\nprofile = 'archive'\n"
        "endpoint = 'https://s3.example.org'\nregion = 'eu-central-1'\nretry_seconds = 5\nread_back = false\n"
    )
    external = settings.tiers["external"]
    assert (external.url, external.storage_class, external.object_lock_days) == (
        "s3://bucket/site-a",
        "DEEP_ARCHIVE",
        3650,
    )


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
        ("[tiers.external]\nurl = 's3://'\n", "tiers.external.url"),
        ("[tiers.external]\nurl = 's3://a b/c'\n", "tiers.external.url"),
        ("[tiers.external]\nurl = 'gopher://abc'\n", "tiers.external.url"),
        ("[tiers.external]\nurl = 's3://abc'\nbandwidth = 0\n", "tiers.*.bandwidth"),
        ("[tiers.external]\nurl = 's3://abc'\nretry_seconds = -1\n", "tiers.*.retry_seconds"),
        ("[tiers.external]\nurl = 's3://abc'\nobject_lock_mode = 'x'\n", "tiers.*.object_lock_mode"),
        ("[tiers.external]\nurl = 's3://abc'\nendpoint = 'host'\n", "tiers.external.endpoint"),
        ("[tiers.external]\nurl = 's3://abc'\nkms_key = 'k'\n", "tiers.external.kms_key"),
        ("[tiers.laboratory]\nurl = 'file:///a'\nstorage_class = 'X'\n", "tiers.laboratory.storage_class"),
        ("[tiers.local]\nurl = 'file:///a'\nkeep_days = -1\n", "tiers.*.keep_days"),
        ("[tiers.local]\nurl = 'file:///a'\nkeep_days = inf\n", "tiers.local.keep_days"),
        ("[tiers.local]\nurl = 'file:///a'\ncopy_after_days = 1\n", "tiers.local.copy_after_days"),
        ("[tiers.a]\nurl = 'file:///a'\nhigh_watermark = '100%'\n", "tiers.*.high_watermark"),
        ("[tiers.a]\nurl = 'file:///a'\nlow_watermark = 1\n", "tiers.a.low_watermark"),
        ("[tiers.a]\nurl = 'file:///a'\nhigh_watermark = 2\nlow_watermark = '1%'\n", "tiers.a.low_watermark"),
        ("[tiers.a]\nurl = 'file:///a'\nhigh_watermark = 2\nlow_watermark = 3\n", "tiers.a.low_watermark"),
        ("[lifecycle]\nminimum_copies = 2\n", "lifecycle.minimum_copies"),
        ("[lifecycle]\nminimum_copies = 0\n", "lifecycle.minimum_copies"),
        ("[lifecycle]\nschedule = ['22:00-06:00', 'at night']\n", "lifecycle.schedule[1]"),
        ("[lifecycle]\nschedule = ['22:00-26:00']\n", "lifecycle.schedule[0]"),
        ("[[rules]]\nmodality = 'CT'\n", "rules[1].modality"),
        ("[[rules]]\nmodalities = ['CT']\n", "rules[1].copy_to"),
        ("[[rules]]\ncopy_to = 'tape'\n", "rules[1].copy_to"),
        ("[[rules]]\ncopy_to = 'local'\n", "rules[1].copy_to"),
        ("[[rules]]\nevict_from = 'local'\n", "rules[1].evict_after_days"),
        (
            "[[rules]]\nevict_from = 'local'\nevict_after_days = 1\nunused_days = inf\n",
            "rules[1].unused_days",
        ),
        ("[[rules]]\nevict_from = 'local'\nevict_after_days = inf\n", "rules[1].evict_after_days"),
        (
            "[[rules]]\nevict_from = 'local'\nevict_after_days = 1\nat_least_bytes = 2\nat_most_bytes = 1\n",
            "rules[1].at_most_bytes",
        ),
        ("[tiers.a]\nurl = 's3://abc'\nhigh_watermark = '80%'\n", "tiers.a.high_watermark"),
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


def test_what_lies_where_for_how_long_is_read() -> None:
    settings = config.parse(
        "[tiers.local]\nurl = 'file:///a'\nkeep_days = 60\nhigh_watermark = '85%'\nlow_watermark = '75.5%'\n"
        "[tiers.far]\nurl = 'file:///b'\ncopy_after_days = 0.5\n"
        "[lifecycle]\nminimum_copies = 2\nschedule = ['22:00-06:00']\n"
        "[[rules]]\nmodalities = ['MG']\nevict_from = 'local'\nevict_after_days = 'never'\ncopy_to = 'far'\n"
    )
    local, far = settings.tiers["local"], settings.tiers["far"]
    assert (local.keep_days, local.copy_after_days, far.copy_after_days) == (60.0, "never", 0.5)
    assert (local.high_watermark, local.low_watermark, far.high_watermark) == ("85%", "75.5%", None)
    assert settings.lifecycle.minimum_copies == 2
    assert (settings.rules[0].copy_after_days, settings.rules[0].evict_after_days) == (0.0, "never")
