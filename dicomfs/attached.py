"""Opening the tiers that an archive's settings name: with retries, encryption and owner around each.

Owns which protection a tier needs.  Outside the house every object is encrypted; in the house it may lie in
plain bytes where the settings say so in so many words.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from dicomfs import config
from dicomfs.config import KeySettings, Settings, TierSettings, folder_of
from dicomfs.crypto.key_sources import load_keys
from dicomfs.crypto.keys import ArchiveKey
from dicomfs.errors import UsageError
from dicomfs.ownership import Ownership, holder_of
from dicomfs.paths import ArchivePaths
from dicomfs.tier_set import LOCAL, OpenTier, TierSet
from dicomfs.tiers.base import Tier
from dicomfs.tiers.registry import open_tier, open_wrapped_tier
from dicomfs.tiers.sealed import SealedTier
from dicomfs.tiers.sentinel import attach_folder
from dicomfs.tiers.switching import SwitchingTier


def open_tiers(paths: ArchivePaths, settings: Settings, archive_id: bytes) -> TierSet:
    """The tiers of an archive; those that are not local are opened when they are first needed.

    Raises:
        UsageError: the local tier's URL is impossible.
    """
    others = {
        name: partial(_open, name, tier, paths, settings, archive_id)
        for name, tier in settings.tiers.items()
        if name != LOCAL
    }
    return TierSet(local_tier(paths, settings), others)


def local_tier(paths: ArchivePaths, settings: Settings) -> Tier:
    """The archive's own folder of objects, or the one that the settings name.  Raises UsageError."""
    configured = settings.tiers.get(LOCAL)
    return open_tier(LOCAL, configured.url if configured else paths.local_tier.resolve().as_uri())


def _open(
    name: str, tier: TierSettings, paths: ArchivePaths, settings: Settings, archive_id: bytes
) -> OpenTier:
    wrapped = open_wrapped_tier(name, tier.url, tier, archive_id=archive_id)
    raw, meter = wrapped.tier, wrapped.meter
    ownership = Ownership(raw, archive_id, holder_of(paths.holder))
    if tier.plaintext:
        if not raw.traits.trusted:
            raise UsageError(f"tiers.{name}.plaintext: an object store outside the house is always encrypted")

        def seal() -> SealedTier:
            # Read anew: a key may have been named since this process began.
            keys = archive_keys(paths.root, config.load(paths.root).keys, name)
            return SealedTier(raw, archive_id, keys, paths.fetched)

        return OpenTier(SwitchingTier(raw, seal), ownership, meter)
    keys = archive_keys(paths.root, settings.keys, name)
    paths.fetched.mkdir(mode=0o700, exist_ok=True)
    return OpenTier(SealedTier(raw, archive_id, keys, paths.fetched), ownership, meter)


def attach(name: str, tier: TierSettings, archive_id: bytes) -> None:
    """Make what proves that a folder is a tier, where the folder is new or empty; object stores need nothing.

    Raises:
        UsageError: it is the tier of another archive, or holds something else.
        TierError: it cannot be read.
    """
    folder = folder_of(tier.url)
    if folder is not None:
        attach_folder(name, folder, archive_id)


def archive_keys(root: Path, keys: KeySettings, tier: str) -> tuple[ArchiveKey, ...]:
    """The keys of the archive, at least one.

    Raises:
        UsageError: there is none, or it cannot be had; nothing goes to the tier without.
    """
    found = load_keys(keys, root, os.environ)
    if not found:
        raise UsageError(
            f"tier {tier} needs a key: name its file under [keys] in dicomfs.toml, in DICOMFS_KEY_FILE, "
            "or with --key-file; without one nothing leaves the local tier, and nothing there can be read"
        )
    return found


def sealed_tiers(tiers: TierSet, *, writable: bool = False) -> list[SealedTier]:
    """The encrypted ones of an archive's tiers; raises as opening them, and as `TierSet.writable`, does."""
    found = []
    for name in tiers.remote:
        tier = tiers.writable(name) if writable else tiers[name]
        if isinstance(tier, SealedTier):
            found.append(tier)
        elif isinstance(tier, SwitchingTier) and tier.is_switched:
            found.append(tier.sealed)
    return found
