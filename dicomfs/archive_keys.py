"""What is done with archive keys: tell which opens what, change it on all tiers, hand it out for the safe.

Works on sealed tiers that somebody else opened.  Shows ids, never a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomfs.crypto.keys import ArchiveKey, read_or_make_key_file, write_key_file
from dicomfs.errors import UsageError
from dicomfs.progress import NullProgress, Progress
from dicomfs.tiers.keyrings import Rewrapped
from dicomfs.tiers.sealed import SealedTier


@dataclass(frozen=True, slots=True)
class TierKeys:
    """The keyrings of one tier, without a secret."""

    tier: str
    keyrings: int
    data_keys: int
    """Each seals one object, or none yet."""
    wrapped_by: dict[str, int]
    """Keyrings by id of the archive key (16 hex digits); two while the key is being changed."""
    older_versions: int
    """Left over by a change of the key that did not finish, or that kept them."""
    problems: list[str]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A change of the archive key on all tiers."""

    key_id: str
    """Of the new key."""
    tiers: dict[str, Rewrapped]

    @property
    def failed(self) -> list[str]:
        """One sentence for each keyring that stayed as it was."""
        return [problem for tier in self.tiers.values() for problem in tier.failed]


def tell(tiers: Sequence[SealedTier]) -> list[TierKeys]:
    """Which archive key wraps the keyrings of each tier.  Raises TierError."""
    return [_told(tier) for tier in tiers]


def change(
    tiers: Sequence[SealedTier],
    new_key_file: Path,
    *,
    keep_old: bool = False,
    progress: Progress | None = None,
) -> KeyChange:
    """Wrap all keyrings by the key of a file, which is made if there is none.

    Old versions are removed when all tiers have the new ones: a tier that can't be reached leaves the old
    key good on every tier.  Stopped or failed, the same call goes on.

    Raises:
        UsageError: the key file can't be had; nothing was changed.
        TierError: a tier failed.
    """
    new = read_or_make_key_file(new_key_file)
    progress = progress or NullProgress()
    done = KeyChange(new.id.hex(), {tier.name: Rewrapped() for tier in tiers})
    for step_keeps_old in (True,) if keep_old else (True, False):
        for tier in tiers:
            what = f"{tier.name}: {'wrapping keyrings' if step_keeps_old else 'removing old versions'}"
            progress.start(None, what)
            report = tier.keyrings.rewrap(new, keep_old=step_keeps_old, advance=progress.advance)
            progress.done()
            total = done.tiers[tier.name]
            total.rewritten += report.rewritten
            total.removed += report.removed
            total.failed[:] = report.failed
    return done


def export(keys: Sequence[ArchiveKey], file: Path) -> str:
    """Write the key in use into a new file, to be printed or put into a safe; returns its id.

    Raises:
        UsageError: no key is set, there is something of that name, or it can't be written.
    """
    if not keys:
        raise UsageError("no archive key is set (keys.file in dicomfs.toml, or DICOMFS_KEY_FILE)")
    write_key_file(file, keys[0])
    return keys[0].id.hex()


def _told(tier: SealedTier) -> TierKeys:
    states = list(tier.keyrings.states())
    wrapped_by: dict[str, int] = {}
    for state in states:
        if state.key_id:
            wrapped_by[state.key_id] = wrapped_by.get(state.key_id, 0) + 1
    return TierKeys(
        tier.name,
        len(states),
        sum(state.keys for state in states),
        wrapped_by,
        sum(state.older for state in states),
        [f"keyring {state.number:016x}: {state.problem}" for state in states if state.problem],
    )
