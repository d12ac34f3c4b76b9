"""``dicomfs scrub`` and ``dicomfs heal``: copies read again, and bad ones replaced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from dicomfs.cli import output, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.cli.stopping import asked_by_signals
from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from dicomfs.scrubbing import ScrubReport

_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


class _Size(click.ParamType[int]):
    """Bytes, in powers of 1024 with a letter: 500G."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = _SIZE.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no number of bytes, like 500000 or 500G", param, ctx)
        return int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")


@click.command("scrub")
@click.option("--bytes", "size", type=_Size(), metavar="N", help="Stop after so many bytes, like 500G.")
@click.option("--hours", type=click.FloatRange(min=0), metavar="H", help="Stop after so many hours.")
@click.option("--tier", metavar="TIER", help="Only copies on this tier.")
@click.option("--no-heal", is_flag=True, help="Tell of bad copies; replace none.")
@as_json
@pass_state
def command(
    state: State, size: int | None, hours: float | None, tier: str | None, no_heal: bool, as_json: bool
) -> int:
    """Read copies of objects again, those first that were proven longest ago, and replace bad ones.

    Exit code 1 when a bad copy could not be replaced, 5 when a tier could not be asked.
    """
    from dicomfs.scrubbing import Budget  # noqa: PLC0415  keeps --help free of the heavy libraries

    seconds = None if hours is None else hours * 3600
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        scrubber = archive.scrubber()
        report = scrubber.scrub(Budget(size, seconds), progress, tier=tier, heal=not no_heal, stop=stop)
        if tier is None and not report.stopped:
            scrubber.scrub_journal(report, everywhere=False, heal=not no_heal)
            scrubber.scrub_snapshots(report, heal=not no_heal)
    return _tell(report, as_json)


@click.command("heal")
@click.option("--all", "everything", is_flag=True, help="All that the archive holds.")
@click.argument("selectors", nargs=-1, metavar="[PATH|UID]...")
@as_json
@pass_state
def heal(state: State, everything: bool, selectors: tuple[str, ...], as_json: bool) -> int:
    """Read every copy of what lies at PATHS, or of all, and replace those that are damaged or missing.

    Exit codes are those of `scrub`.
    """
    if everything == bool(selectors):
        raise UsageError("say what to heal: paths of the tree, UIDs, or --all")
    from dicomfs.scrubbing import Budget  # noqa: PLC0415  keeps --help free of the heavy libraries

    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        chosen = None if everything else archive.tiering().objects(tree.series_of(archive, selectors))
        scrubber = archive.scrubber()
        report = scrubber.scrub(Budget(), progress, objects=chosen, stop=stop)
        if everything and not report.stopped:
            scrubber.scrub_journal(report, everywhere=True)
            scrubber.scrub_snapshots(report)
    return _tell(report, as_json)


def _tell(report: ScrubReport, as_json: bool) -> int:
    if as_json:
        output.emit_json(
            {
                "copies": report.copies,
                "bytes": report.bytes,
                "left": report.left,
                "healed": [{"tier": tier, "object": key} for tier, key in report.healed],
                "damaged": [{"tier": t, "object": key, "reason": why} for t, key, why in report.damaged],
                "unreachable": report.unreachable,
                "stopped": report.stopped,
            }
        )
    else:
        for tier, why in report.unreachable.items():
            output.note(f"tier {tier} could not be asked: {why}")
        for tier, key in report.healed:
            output.say(f"healed: tier {tier}: {key}")
        for tier, key, why in report.damaged:
            output.say(f"not healed: tier {tier}: {key}: {why}")
        left = f", {report.left} are left for the next run" if report.left else ""
        output.say(f"read {report.copies} copies, {output.size(report.bytes)}{left}")
    if report.stopped:
        return ExitCode.INTERRUPTED
    if report.damaged:
        return ExitCode.PART_FAILED
    return ExitCode.STORAGE if report.unreachable else ExitCode.DONE
