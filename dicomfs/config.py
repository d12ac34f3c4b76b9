"""The settings of an archive: ``dicomfs.toml`` in the archive folder.

Owns names, types, defaults, units and limits of every setting, and says file, key and problem when one is
wrong.  What a setting does is up to those who are given it; nothing here opens a tier or an index.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from dicomfs.errors import ConfigError
from dicomfs.lifecycle_settings import LifecycleSettings, RuleSettings, TierLifecycle, problems

FILE_NAME = "dicomfs.toml"
Profile = Literal["fast", "dense", "archive"]
PROFILES: tuple[str, ...] = get_args(Profile)
PermissionBits = Annotated[str, Meta(pattern="^0?[0-7]{3}$")]
"""Permission bits as TOML strings of octal digits ("0440"): a bare 440 would be read as decimal."""
Number = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(gt=0)]
Text = Annotated[str, Meta(min_length=1)]
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
"""What object stores take; Amazon's own rule is narrower, other stores' older buckets are not."""


class ArchiveSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``[archive]``."""

    minimum_free_bytes: Number = 1 << 30
    """Accepting stops with "no space" below this: packing needs room to seal before it can release."""


class PackSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``[pack]``."""

    profile: Profile = "fast"
    """What `pack` aims at when not told: fast to read first, dense afterwards by `repack`."""
    quiet_seconds: Number = 120
    """How long a series waits after its last instance before a mount has it packed, and how long a file under
    ``incoming/`` that is odd or not whole must be left alone before it is taken as it is."""
    background: bool = True
    """Whether a mount has quiet series packed, by a process of low priority."""
    spool_bytes: Number = 64 << 30
    """Waiting bytes beyond which an import packs in between: a large tree needs no second copy of itself."""


class MountSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``[mount]``; options given to ``mount -o`` win over these."""

    uid: Number | None = None
    """Owner of everything shown; the mounting user when absent."""
    gid: Number | None = None
    """Group of everything shown; the mounting user's when absent."""
    file_mode: PermissionBits = "0440"
    """Mode of files under ``patients/`` and ``versions/``: owner and group read, nobody writes."""
    folder_mode: PermissionBits = "0550"
    """Mode of folders there."""
    allow_other: bool = False
    """Other users than the mounting one may look: patient data, so off unless asked for."""
    decoded_cache_bytes: Number = 256 << 20
    """Memory for decoded frames: some series' worth of neighbours, small beside a gateway's memory."""
    fetched_bytes: Number = 4 << 30
    """Disk space for pieces of objects that are read from other tiers and not promoted."""
    promote: bool = True
    """Whether objects that are read from other tiers are brought to the local one, while there is room."""
    cold_wait_seconds: Number = 0
    """How long reading waits for an object that is being restored from a cold storage class."""

    def as_options(self) -> list[str]:
        """Return these settings as ``-o`` options, to be put before those given by hand."""
        options = [f"file_mode={self.file_mode}", f"folder_mode={self.folder_mode}"]
        options += [
            f"{name}={value}" for name, value in (("uid", self.uid), ("gid", self.gid)) if value is not None
        ]
        return options + ["allow_other"] * self.allow_other


class TierOptions(TierLifecycle, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a tier is reached and what it is asked for, apart from where it is."""

    bandwidth: Positive | None = None
    """Bytes a second, both ways together; without a limit when absent."""
    retry_seconds: Number = 20
    """How long a failing call is tried again.  Somebody waits in front of a viewer for the answer."""
    read_back: bool = True
    """Whether all bytes of an object are read back and compared after it is put, or its checksum alone."""
    endpoint: Text | None = None
    """Address of the object store, ``https://host``; what the AWS environment or profile says when absent."""
    profile: Text | None = None
    """Section of the AWS configuration files."""
    region: Text | None = None
    """Region of the bucket."""
    storage_class: Text | None = None
    """Storage class of new packs of frames and streams; the rest, and when absent all, has the default."""
    server_side_encryption: Literal["AES256", "aws:kms"] | None = None
    """Encryption by the store, with its key or one of its key management."""
    kms_key: Text | None = None
    """The key for "aws:kms"; the account's default key when absent."""
    object_lock_days: Positive | None = None
    """How long the store must refuse to destroy a new object; the bucket must have object lock on."""
    object_lock_mode: Literal["governance", "compliance"] = "governance"
    """Who may shorten that: an administrator of the store with the right to, or nobody."""
    restore_days: Positive = 7
    """How long a restored copy of a cold object can be read."""
    restore_speed: Literal["bulk", "standard", "expedited"] = "standard"
    """How fast, and how dear, a restore of a cold object is."""


_Amount = Annotated[float, Meta(ge=0)]


class TierPrices(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section ``[tiers.NAME.prices]``: what the tier charges; with any of these, the others are nothing.

    Without any, an object store has the list prices of its storage class, a folder none.
    """

    storage_gb_month: _Amount | None = None
    """10^9 bytes for a month."""
    put_1000: _Amount | None = None
    """Requests that put or list."""
    get_1000: _Amount | None = None
    """Requests that read."""
    retrieval_gb: _Amount | None = None
    """10^9 bytes read or restored, for classes that charge for it."""
    restore_1000: _Amount | None = None
    """Requests that restore."""
    traffic_gb: _Amount | None = None
    """10^9 bytes read, on their way out of the store's network."""
    least_bytes: Number | None = None
    """Smaller objects are billed as if they had this size."""
    overhead_bytes: Number | None = None
    """Added to each object."""


class TierSettings(TierOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section ``[tiers.NAME]``."""

    url: str
    """Where the objects lie: ``file:///path`` or ``s3://bucket/prefix``."""
    plaintext: bool = False
    """Whether objects may lie there unencrypted; in the house only, never on an object store."""
    prices: TierPrices = TierPrices()
    """For the estimates of what moving and keeping costs."""

    def path(self) -> Path:
        """Return the folder that the URL names."""
        return Path(unquote(urlsplit(self.url).path))


ANY_TIER = frozenset(
    {"url", "plaintext", "prices", "bandwidth", "retry_seconds", *TierLifecycle.__struct_fields__}
)
"""Settings of a tier that mean something for each kind; the others are for ``s3://`` only."""


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``[keys]``; docs/encryption.md says where keys come from."""

    file: str | list[str] = []
    """The key file; or several, the first of which wraps what is written: while a key is being changed."""
    command: str | None = None
    """A command that prints the key, run without a shell: what asks a KMS or an HSM."""


class GcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``[gc]``: how long what nobody needs is kept, in case somebody needs it again."""

    local_grace_seconds: Number = 3600
    """On the local tier, whose space is short."""
    remote_grace_seconds: Number = 7 * 86400
    """On every other tier: time to notice a mistake."""


class SnapshotSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``[snapshots]``: copies of what the index knows, from which recovery is fast."""

    background: bool = True
    """Whether one is made when it is due, wherever the rules are applied."""
    changes: Positive = 100
    """Header packs and journal objects that came or went since the last one; a tenth of all, if more."""
    days: Annotated[float, Meta(gt=0)] = 7.0
    """After which one is made although less has changed."""
    keep: Positive = 2
    """How many are kept on each tier."""


class PriceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``[prices]``."""

    currency: Text = "USD"
    """Of all prices; in another than US dollars there are no list prices."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of an archive; the defaults are those of an empty file."""

    archive: ArchiveSettings = ArchiveSettings()
    pack: PackSettings = PackSettings()
    mount: MountSettings = MountSettings()
    keys: KeySettings = KeySettings()
    gc: GcSettings = GcSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    prices: PriceSettings = PriceSettings()
    tiers: dict[str, TierSettings] = {}
    lifecycle: LifecycleSettings = LifecycleSettings()
    rules: list[RuleSettings] = []


TEMPLATE = """\
# Settings of this archive (docs/operations.md, "Settings").  What is not set here has its default.
#
# [pack]
# profile = "fast"
#
# [mount]
# allow_other = false
# file_mode = "0440"
# folder_mode = "0550"
"""
"""What `init` writes: the settings asked for most, all commented out."""


def template(tiers: Mapping[str, TierSettings], keys: KeySettings) -> str:
    """Settings for a new archive with these tiers; what has its default is left out."""
    sections = [TEMPLATE]
    if keys != KeySettings():
        sections.append("[keys]\n" + _lines(keys))
    sections += [f"[tiers.{name}]\n{_lines(tier)}" for name, tier in tiers.items()]
    return "\n".join(sections)


def _lines(section: msgspec.Struct) -> str:
    """A section in TOML, whose strings, numbers and lists are written as JSON writes them."""
    return "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
        for name, value in _without_defaults(section).items()
    )


def folder_of(url: str) -> Path | None:
    """The folder that a URL names, None where it names none."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def load(archive: Path) -> Settings:
    """Read the settings of the archive folder; without a file, the defaults.

    Raises ConfigError naming file, key and problem.
    """
    path = archive / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "(file)", f"cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, file: str = FILE_NAME) -> Settings:
    """Decode settings from TOML; `file` is named in errors.  Raises ConfigError."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(file, "(syntax)", str(error)) from error
    _refuse_unknown(tree, Settings, "", file)
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$")
        key = where.rstrip("`").lstrip(".") or "(file)"
        raise ConfigError(file, key.replace("[...]", ".*"), problem) from error
    for name, tier in settings.tiers.items():
        _check_tier(tier, f"tiers.{name}", file)
    for key, problem in problems(settings.lifecycle, settings.rules, dict(settings.tiers)):
        raise ConfigError(file, key, problem)
    return settings


def _refuse_unknown(tree: dict[str, Any], shape: type[msgspec.Struct], prefix: str, file: str) -> None:
    """Raise ConfigError for a key that no section knows, with the keys it does know."""
    types = get_type_hints(shape)
    for key, value in tree.items():
        if key not in types:
            known = ", ".join(sorted(types))
            raise ConfigError(file, prefix + key, f"unknown setting; known here: {known}")
        if key == "rules" and isinstance(value, list):
            for number, rule in enumerate(value, 1):
                if isinstance(rule, dict):
                    _refuse_unknown(rule, RuleSettings, f"rules[{number}].", file)
        if not isinstance(value, dict):
            continue
        kind = types[key]
        if key == "tiers":
            for name, section in value.items():
                if isinstance(section, dict):
                    _refuse_unknown(section, TierSettings, f"tiers.{name}.", file)
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            _refuse_unknown(value, kind, f"{prefix}{key}.", file)


def _check_tier(tier: TierSettings, section: str, file: str) -> None:
    """Raise ConfigError for an impossible URL, and for settings that another one contradicts."""
    parts = urlsplit(tier.url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigError(
                file, f"{section}.url", f"{tier.url!r} is not of the form file:///absolute/path"
            )
        given = {name for name, value in _without_defaults(tier).items() if name not in ANY_TIER}
        for name in sorted(given):
            raise ConfigError(file, f"{section}.{name}", "only tiers on s3:// have this")
    elif parts.scheme != "s3" or _BUCKET.fullmatch(parts.netloc) is None:
        raise ConfigError(
            file, f"{section}.url", f"{tier.url!r} is neither file:///absolute/path nor s3://bucket/prefix"
        )
    elif section == "tiers.local":
        raise ConfigError(file, f"{section}.url", "the local tier must be a folder: file:///absolute/path")
    elif isinstance(tier.high_watermark, str):
        raise ConfigError(file, f"{section}.high_watermark", "an object store has no size: give bytes")
    if tier.endpoint is not None and urlsplit(tier.endpoint).scheme not in ("http", "https"):
        raise ConfigError(file, f"{section}.endpoint", f"{tier.endpoint!r} is not of the form https://host")
    if tier.kms_key is not None and tier.server_side_encryption != "aws:kms":
        raise ConfigError(file, f"{section}.kms_key", 'needs server_side_encryption = "aws:kms"')


def _without_defaults(settings: msgspec.Struct) -> dict[str, object]:
    """Return the fields that differ from their defaults."""
    return {
        field.name: value
        for field in msgspec.structs.fields(settings)
        if (value := getattr(settings, field.name)) != field.default
    }
