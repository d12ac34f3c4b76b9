"""``dicomfs key``: tells, changes and hands out the key of encrypted tiers."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click

from dicomfs import archive_keys, config
from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import PathName, State, as_json, pass_state
from dicomfs.crypto.key_sources import load_keys
from dicomfs.crypto.keys import ArchiveKey
from dicomfs.paths import ArchivePaths, read_identity
from dicomfs.tiers.registry import open_wrapped_tier
from dicomfs.tiers.sealed import SealedTier


def _keys(state: State) -> tuple[ArchiveKey, ...]:
    root = state.archive_path()
    return load_keys(config.load(root).keys, root, os.environ)


def _sealed_tiers(state: State) -> list[SealedTier]:
    """The encrypted tiers of the archive, whose index is not needed for this.  Raises UsageError."""
    root, keys = state.archive_path(), _keys(state)
    archive_id = read_identity(ArchivePaths(root))
    return [
        SealedTier(open_wrapped_tier(name, tier.url, tier, archive_id=archive_id).tier, archive_id, keys)
        for name, tier in config.load(root).tiers.items()
        if name != "local"
    ]


@click.group("key")
def command() -> None:
    """Tell, change or write down the key of encrypted tiers; no command shows a key."""


@command.command("show")
@as_json
@pass_state
def show(state: State, as_json: bool) -> int:
    """Tell the ids of the keys at hand, and which of them opens each tier."""
    at_hand = [key.id.hex() for key in _keys(state)]
    tiers = archive_keys.tell(_sealed_tiers(state))
    problems = [f"tier {tier.tier}: {problem}" for tier in tiers for problem in tier.problems]
    if as_json:
        output.emit_json({"keys": at_hand, "tiers": {tier.tier: _as_document(tier) for tier in tiers}})
    else:
        rows: list[tuple[object, ...]] = [("key at hand", key_id, "") for key_id in at_hand]
        for tier in tiers:
            for key_id, keyrings in tier.wrapped_by.items():
                rows.append((f"tier {tier.tier}", key_id, f"{keyrings} keyrings"))
            if tier.older_versions:
                rows.append((f"tier {tier.tier}", "older versions", f"{tier.older_versions} keyrings"))
        output.table(("", "", ""), rows)
        for problem in problems:
            output.note(problem)
    return ExitCode.PART_FAILED if problems else ExitCode.DONE


@command.command("rotate")
@click.option(
    "--new-key-file",
    type=PathName(),
    required=True,
    metavar="FILE",
    help="The key to come; made if there is none.",
)
@click.option("--keep-old", is_flag=True, help="Let the old key work on, until the same without this option.")
@as_json
@pass_state
def rotate(state: State, new_key_file: Path, keep_old: bool, as_json: bool) -> int:
    """Wrap the keyrings of all tiers by another key; no object is touched.

    Afterwards keys.file must name the new key file, and running mounts need a new start.  What was
    interrupted goes on with the same command.
    """
    tiers = _sealed_tiers(state)
    with output.progress() as progress:
        done = archive_keys.change(tiers, new_key_file.absolute(), keep_old=keep_old, progress=progress)
    if as_json:
        output.emit_json(dataclasses.asdict(done))
    else:
        for problem in done.failed:
            output.note(problem)
        for name, tier in done.tiers.items():
            output.say(
                f"tier {name}: {tier.rewritten} keyrings wrapped anew, {tier.removed} old versions removed"
            )
    names = f'["{new_key_file.absolute()}", the old one]' if keep_old else f'"{new_key_file.absolute()}"'
    output.note(f"key {done.key_id} opens the tiers: set keys.file = {names}, then start mounts anew")
    return ExitCode.PART_FAILED if done.failed else ExitCode.DONE


@command.command("export")
@click.argument("file", type=PathName())
@pass_state
def export(state: State, file: Path) -> int:
    """Write the key in use into a new file: to be printed, or put into a safe off this machine.

    The file is a key file itself: it, or what is typed from its print, serves as keys.file.
    """
    key_id = archive_keys.export(_keys(state), file.absolute())
    output.note(f"key {key_id} is in {file.absolute()}: who has it can read the archive's tiers")
    return ExitCode.DONE


def _as_document(tier: archive_keys.TierKeys) -> dict[str, object]:
    document = dataclasses.asdict(tier)
    del document["tier"]
    return document
