"""``dicomfs tier``: what lies on which tier, and moving it."""

from __future__ import annotations

import click

from dicomfs.cli import costs, output, tier_moves, tier_rules
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.cli.stopping import asked_by_signals
from dicomfs.prices import Prices
from dicomfs.tier_set import LOCAL


@click.group("tier")
def command() -> None:
    """Tell what lies on which tier, and move it."""


for one in (tier_rules.apply, tier_rules.explain, tier_rules.pin, tier_rules.unpin):
    command.add_command(one)


@command.command("status")
@as_json
@pass_state
def status(state: State, as_json: bool) -> int:
    """Tell how much lies on each tier, as the index knows it, and about what that costs in a month."""
    with opened(state) as archive:
        found = archive.tiering().status()
        prices, records = Prices(archive.settings), list(archive.catalog.objects())
        cost = {
            name: prices.stored(name, [record for record in records if name in record.tiers])
            for name in found
        }
    if as_json:
        output.emit_json(
            {name: {**counted, "cost": costs.document(cost[name])} for name, counted in found.items()}
        )
    else:
        rows = [
            (name, one["objects"], output.size(one["bytes"]), costs.text(cost[name]))
            for name, one in found.items()
        ]
        output.table(("tier", "objects", "size", "cost"), rows, right=("objects", "size"))
    return ExitCode.DONE


@command.command("copy")
@click.option("--to", "name", required=True, metavar="TIER", help="Where to.")
@tier_moves.everything
@tier_moves.dry_run
@tier_moves.selectors
@as_json
@pass_state
def copy(
    state: State, name: str, everything: bool, dry_run: bool, selectors: tuple[str, ...], as_json: bool
) -> int:
    """Put copies of packed objects on a tier, each read back and compared, and ship the journal there."""
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        tiering = archive.tiering()
        chosen = tier_moves.chosen(archive, selectors, everything, tiering.objects)
        archive.tiers.known(name)
        due, prices = [one for one in chosen if name not in one.tiers], Prices(archive.settings)
        cost, seconds = prices.copied(name, due), prices.seconds(name, due)
        if dry_run:
            return costs.tell_plan(f"copied to {name}", due, cost, seconds, as_json=as_json)
        report = tiering.copy(name, chosen, progress, stop)
        waiting = archive.catalog.counts().spool_instances
    return tier_moves.tell(report, f"copied to {name}", waiting, as_json, cost)


@command.command("evict")
@click.option("--from", "name", required=True, metavar="TIER", help="Where from.")
@tier_moves.everything
@tier_moves.dry_run
@tier_moves.selectors
@as_json
@pass_state
def evict(
    state: State, name: str, everything: bool, dry_run: bool, selectors: tuple[str, ...], as_json: bool
) -> int:
    """Remove copies from a tier, each only where another tier is asked and still has one."""
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        tiering = archive.tiering()
        chosen = tier_moves.chosen(archive, selectors, everything, tiering.objects)
        archive.tiers.known(name)
        due = tiering.on(name, [one for one in chosen if len(one.tiers) > 1])
        cost = Prices(archive.settings).evicted(name, due)
        if dry_run:
            return costs.tell_plan(f"evicted from {name}", due, cost, None, as_json=as_json)
        report = tiering.evict(name, chosen, progress, stop)
    return tier_moves.tell(report, f"evicted from {name}", 0, as_json, cost)


@command.command("warm")
@click.option("--wait", is_flag=True, help="Wait for what is being restored from cold storage classes.")
@click.option("--poll", type=click.FloatRange(min=0.1), default=60.0, metavar="SECONDS", show_default=True)
@tier_moves.everything
@tier_moves.dry_run
@tier_moves.selectors
@as_json
@pass_state
def warm(
    state: State,
    wait: bool,
    poll: float,
    everything: bool,
    dry_run: bool,
    selectors: tuple[str, ...],
    as_json: bool,
) -> int:
    """Bring objects to the local tier; returns when they are there.

    What is in a cold storage class is restored first: without --wait that is begun only, and the command ends
    with exit code 4.  With --wait, tiers are asked every --poll seconds whether it is done.
    """
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        tiering = archive.tiering()
        chosen = tier_moves.chosen(archive, selectors, everything, tiering.objects)
        due, prices = [one for one in chosen if LOCAL not in one.tiers], Prices(archive.settings)
        cost, seconds = prices.copied(LOCAL, due), prices.seconds(LOCAL, due)
        if dry_run:
            return costs.tell_plan("brought to local", due, cost, seconds, as_json=as_json)
        report = tiering.warm(chosen, progress, stop)
        if wait and report.cold:
            output.note(f"waiting for {len(report.cold)} objects to be restored")
            tiering.wait_for_cold(report, progress, stop, poll)
    return tier_moves.tell(report, "brought to local", 0, as_json, cost)


@command.command("encrypt")
@click.argument("name", metavar="TIER")
@as_json
@pass_state
def encrypt(state: State, name: str, as_json: bool) -> int:
    """Encrypt a tier that was used in plain bytes: replace each object by an encrypted one.

    Reading goes on; from the first moment on everything that is put there is encrypted.  Stopped, the same
    command goes on, as mounts and `tier apply` do.
    """
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        report = archive.encryption().run(name, progress, stop)
    if as_json:
        output.emit_json(
            {
                "objects": report.objects,
                "bytes": report.bytes,
                "left": [{"object": key, "reason": reason} for key, reason in report.left],
                "stopped": report.stopped,
            }
        )
    else:
        for _, reason in report.left:
            output.note(reason)
        output.say(f"encrypted on {name}: {report.objects} objects, {output.size(report.bytes)}")
        if not report.left and not report.stopped:
            output.say(f"nothing plain is left: remove plaintext = true from [tiers.{name}]")
    if report.stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.PART_FAILED if report.left else ExitCode.DONE


@command.command("claim")
@click.argument("name", metavar="TIER")
@pass_state
def claim(state: State, name: str) -> int:
    """Take a tier into use that was added to the settings, or over from another folder of this archive.

    That one writes there no more.
    """
    with opened(state) as archive:
        epoch = archive.claim(name)
    output.say(f"tier {name} is in the hands of this archive, epoch {epoch}")
    return ExitCode.DONE
