"""``dicomfs tier apply``, ``explain``, ``pin`` and ``unpin``: what the rules make of objects."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from dicomfs.cli import costs, output, snapshot, tier_moves, tree
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state
from dicomfs.cli.stopping import asked_by_signals
from dicomfs.errors import CatalogBusy, TierError, UsageError
from dicomfs.low_priority import yield_to_others
from dicomfs.prices import Prices
from dicomfs.vfs import instance_of

if TYPE_CHECKING:
    from dicomfs.archive import Archive
    from dicomfs.lifecycle import Decision, Facts, Plan, Verdict
    from dicomfs.lifecycle_runs import ApplyReport
    from dicomfs.model import ObjectKey
    from dicomfs.prices import Cost
    from dicomfs.progress import Progress

_log = logging.getLogger(__name__)

_named = click.argument("selectors", nargs=-1, required=True, metavar="PATH|UID...")


@click.command("apply")
@click.option("--dry-run", is_flag=True, help="Tell what would be moved, and move nothing.")
@click.option("--background-of", type=int, hidden=True)
@as_json
@pass_state
def apply(state: State, dry_run: bool, background_of: int | None, as_json: bool) -> int:
    """Move what the rules say is due: copy first, then evict, and ship the journal."""
    if background_of is not None:
        return _in_background(state, background_of)
    with opened(state) as archive:
        if dry_run:
            plan, problems = archive.lifecycle.plan()
            return _tell_plan(plan, problems, _costs_of(archive, plan), as_json)
        with output.progress() as progress, asked_by_signals() as stop, archive.applying_rules():
            report = archive.lifecycle.apply(progress, stop)
            report.problems += _encrypted(archive, progress, stop)
            report.problems += snapshot.if_due(archive, progress, stop)
    return _tell_report(report, as_json)


def _in_background(state: State, parent: int) -> int:
    """The same for a mount: out of everybody's way, within the schedule, and silent when all is well."""
    yield_to_others(parent)
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        may_move_s = archive.lifecycle.may_move_seconds()
        try:
            with archive.applying_rules(), _stopped_after(may_move_s, stop):
                report = archive.lifecycle.apply(progress, stop, copies=may_move_s > 0)
                if may_move_s > 0:
                    report.problems += _encrypted(archive, progress, stop)
                    report.problems += snapshot.if_due(archive, progress, stop)
        except CatalogBusy as problem:
            _log.info("rules not applied: %s", problem)
            return ExitCode.DONE
    for tier, reason in report.problems:
        _log.warning("tier %s is tried again later: %s", tier, reason)
    for run in (*report.copied.values(), *report.evicted.values()):
        for _, reason in run.failed:
            _log.warning("not moved: %s", reason)
    for tier, count in report.above.items():
        _log.warning(
            "tier %s is %d bytes above its low watermark, and nothing else may leave it", tier, count
        )
    return ExitCode.DONE


def _encrypted(archive: Archive, progress: Progress, stop: threading.Event) -> list[tuple[str, str]]:
    """Go on encrypting tiers where that was begun; what stays plain: (tier, reason)."""
    encryption, left = archive.encryption(), list[tuple[str, str]]()
    for name in encryption.begun():
        try:
            left += [(name, reason) for _, reason in encryption.run(name, progress, stop).left]
        except (TierError, UsageError) as problem:
            left.append((name, str(problem)))
    return left


@contextmanager
def _stopped_after(seconds: float, stop: threading.Event) -> Iterator[None]:
    timer = threading.Timer(seconds, stop.set) if seconds > 0 else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


@click.command("explain")
@_named
@as_json
@pass_state
def explain(state: State, selectors: tuple[str, ...], as_json: bool) -> int:
    """Tell for each object of an instance or series where its copies are, what the rules say, and when."""
    with opened(state) as archive:
        found = [_explained(archive, name) for name in selectors]
    if as_json:
        output.emit_json(found)
    else:
        for one in found:
            _say(one)
    return ExitCode.DONE


@click.command("pin")
@_named
@as_json
@pass_state
def pin(state: State, selectors: tuple[str, ...], as_json: bool) -> int:
    """Keep what these series need on the local tier, and bring it there; new instances of them, too."""
    with opened(state) as archive, output.progress() as progress, asked_by_signals() as stop:
        series = tree.series_of(archive, selectors)
        new = archive.pins.pin(series)
        tiering = archive.tiering()
        report = tiering.warm(tiering.objects(series), progress, stop)
    if not as_json:
        output.say(f"pinned {len(series)} series, {new} of them now")
    return tier_moves.tell(report, "brought to local", 0, as_json)


@click.command("unpin")
@_named
@as_json
@pass_state
def unpin(state: State, selectors: tuple[str, ...], as_json: bool) -> int:
    """Let the rules decide on these series again; nothing is moved by that."""
    with opened(state) as archive:
        series = tree.series_of(archive, selectors)
        ended = archive.pins.unpin(series)
    if as_json:
        output.emit_json({"series": len(series), "unpinned": ended})
    else:
        output.say(f"unpinned {ended} of {len(series)} series")
    return ExitCode.DONE


def _explained(archive: Archive, name: str) -> dict[str, object]:
    instance = None
    if "/" in name:
        found = tree.at(tree.tree_of(archive), name)
        instance = None if found.is_folder else instance_of(found.inode)
        if not found.is_folder and instance is None:
            raise UsageError(f"{name}: no instance, so no tier holds it")
    else:
        instance = tree.instances_of(archive, name)[0]
    if instance is None:
        records = archive.tiering().objects(tree.series_of(archive, [name]))
        return {"path": name, "objects": _objects(archive, [record.key for record in records])}
    path = tree.path_of(archive, instance)
    if not archive.catalog.is_packed(instance):
        return {"path": path, "waiting": True, "objects": []}
    where = archive.residency.of(instance)
    return {"path": path, **where, "objects": _objects(archive, archive.residency.objects(instance))}


def _objects(archive: Archive, keys: Sequence[ObjectKey]) -> list[dict[str, object]]:
    return [_document(facts, verdicts) for facts, verdicts in archive.lifecycle.verdicts(keys)]


def _document(facts: Facts, verdicts: Sequence[Verdict]) -> dict[str, object]:
    return {
        "object": facts.key,
        "kind": facts.kind,
        "size": facts.size,
        "profile": facts.profile or None,
        "pinned": facts.pinned,
        "last_read": _time(facts.used_ns),
        "accepted": _time(max((one.accepted_ns for one in facts.series), default=0)),
        "modalities": sorted({one.modality for one in facts.series}),
        "tiers": {tier: _time(verified_ns) for tier, verified_ns in facts.tiers.items()},
        "held": {
            tier: {"size": facts.size_on(tier), "profile": facts.profile_on(tier) or None}
            for tier in facts.tiers
        },
        "verdicts": [
            {
                "move": one.move.value,
                "tier": one.tier,
                "state": one.state.value,
                "at": _time(one.at_ns or 0),
                "reason": one.reason,
            }
            for one in verdicts
        ],
    }


def _held(tier: str, size: int, profile: str | None) -> str:
    return f"{tier} ({profile}, {output.size(size)})" if profile else tier


def _say(found: dict[str, object]) -> None:
    output.say(str(found["path"]))
    if found.get("waiting"):
        output.say("  waits to be packed: it is on the local disk only")
    objects = found["objects"]
    assert isinstance(objects, list)
    for one in objects:
        read = f", last read {one['last_read']}" if one["last_read"] else ""
        pinned = ", pinned" if one["pinned"] else ""
        output.say(f"  {one['object']}: {output.size(one['size'])}{read}{pinned}")
        held = ", ".join(_held(tier, **there) for tier, there in one["held"].items())
        output.say(f"    on {held or 'no tier'}, accepted {one['accepted'] or 'by nobody'}")
        for verdict in one["verdicts"]:
            when = f" on {verdict['at']}" if verdict["at"] and verdict["state"] == "later" else ""
            said = _SAID[verdict["move"], verdict["state"]]
            output.say(f"    {verdict['tier']}: {said}{when} ({verdict['reason']})")


_SAID = {
    ("copy", "due"): "gets a copy at the next run",
    ("copy", "later"): "gets a copy",
    ("copy", "never"): "gets none",
    ("copy", "held"): "can get none",
    ("evict", "due"): "loses its copy at the next run",
    ("evict", "later"): "keeps its copy until it leaves",
    ("evict", "never"): "keeps its copy",
    ("evict", "held"): "must keep its copy",
}


def _costs_of(archive: Archive, plan: Plan) -> dict[str, tuple[Cost, float | None]]:
    """What the plan costs and how long its copies take, by tier."""
    prices, tiering = Prices(archive.settings), archive.tiering()
    found: dict[str, tuple[Cost, float | None]] = {}
    for tier in archive.tiers.names:
        copies, evictions = (
            [
                record
                for one in moves
                if one.tier == tier and (record := archive.catalog.find_held(one.key)) is not None
            ]
            for moves in (plan.copies, plan.evictions)
        )
        if copies or evictions:
            cost = prices.copied(tier, copies) + prices.evicted(tier, tiering.on(tier, evictions))
            found[tier] = cost, prices.seconds(tier, copies)
    return found


def _tell_plan(
    plan: Plan,
    problems: Sequence[tuple[str, str]],
    cost: dict[str, tuple[Cost, float | None]],
    as_json: bool,
) -> ExitCode:
    if as_json:
        output.emit_json(
            {
                "copies": [_planned(one) for one in plan.copies],
                "evictions": [_planned(one) for one in plan.evictions],
                "cost": {tier: {**costs.document(one), "seconds": s} for tier, (one, s) in cost.items()},
                "above": plan.above,
                "problems": [{"tier": tier, "reason": reason} for tier, reason in problems],
            }
        )
    else:
        rows = [
            (one.move.value, one.tier, one.key, output.size(one.size), one.reason)
            for one in (*plan.copies, *plan.evictions)
        ]
        output.table(("move", "tier", "object", "size", "why"), rows, right=("size",))
        for tier, (one, seconds) in cost.items():
            took = "" if seconds is None else f"{output.duration(seconds)} at the bandwidth that is set"
            if told := ", ".join(part for part in (took, costs.text(one)) if part):
                output.note(f"tier {tier}: {told}")
        _note_trouble(plan.above, problems)
    return ExitCode.PART_FAILED if problems else ExitCode.DONE


def _planned(decision: Decision) -> dict[str, object]:
    return {
        "object": decision.key,
        "size": decision.size,
        "tier": decision.tier,
        "reason": decision.reason,
    }


def _tell_report(report: ApplyReport, as_json: bool) -> ExitCode:
    if as_json:
        output.emit_json(
            {
                "copied": {tier: tier_moves.document(run) for tier, run in report.copied.items()},
                "evicted": {tier: tier_moves.document(run) for tier, run in report.evicted.items()},
                "journal": report.shipped,
                "above": report.above,
                "problems": [{"tier": tier, "reason": reason} for tier, reason in report.problems],
                "stopped": report.stopped,
            }
        )
    else:
        for what, runs in (("copied to", report.copied), ("evicted from", report.evicted)):
            for tier, run in runs.items():
                for _, reason in (*run.failed, *run.kept):
                    output.note(reason)
                cold = f", {len(run.cold)} to be restored first" if run.cold else ""
                output.say(f"{what} {tier}: {run.objects} objects, {output.size(run.bytes)}{cold}")
        if not report.copied and not report.evicted and not report.problems:
            output.say("nothing was due")
        _note_trouble(report.above, report.problems)
    if report.stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.PART_FAILED if report.failed else ExitCode.DONE


def _note_trouble(above: dict[str, int], problems: Sequence[tuple[str, str]]) -> None:
    for tier, reason in problems:
        output.note(f"tier {tier}: {reason}")
    for tier, count in above.items():
        output.note(
            f"tier {tier} stays {output.size(count)} above its low watermark: nothing else may leave it"
        )


def _time(time_ns: int) -> str | None:
    return datetime.fromtimestamp(time_ns // 10**9, UTC).isoformat() if time_ns else None
