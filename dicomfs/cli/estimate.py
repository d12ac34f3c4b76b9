"""``dicomfs estimate``: what an archive of some files would take, before there is one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import PathName, as_json
from dicomfs.cli.stopping import asked_by_signals
from dicomfs.config import PROFILES, Settings

if TYPE_CHECKING:
    from dicomfs.estimating.model import Estimate, GroupEstimate

_COLUMNS = ("modality", "transfer syntax", "series", "files", "now", "packed", "share", "packing", "codecs")
_NUMBERS = ("series", "files", "now", "packed", "share", "packing")


@click.command("estimate")
@click.argument("paths", nargs=-1, required=True, type=PathName())
@click.option("--profile", type=click.Choice(PROFILES), default="fast", show_default=True, help="How dense.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=240.0,
    show_default=True,
    help="Processor time of measuring series; every modality and transfer syntax gets one at least.",
)
@as_json
def command(paths: tuple[Path, ...], profile: str, seconds: float, as_json: bool) -> int:
    """Tell what an archive of the files at and below PATHS would take, and how long packing would.

    Needs no archive and writes nothing: segments of a sample of series are coded in memory by what `pack`
    uses, and compared.  Of very large trees some folders stand for all.  Ctrl-C ends it with what it has.
    """
    from dicomfs.codec.base import Profile  # noqa: PLC0415  keeps --help free of the heavy libraries
    from dicomfs.estimating.estimator import estimate  # noqa: PLC0415

    reorder_bytes = Settings().mount.decoded_cache_bytes // 2
    with output.progress() as progress, asked_by_signals() as stop:
        found = estimate(
            [path.absolute() for path in paths],
            Profile[profile.upper()],
            reorder_bytes,
            progress,
            stop,
            seconds=seconds,
        )
    if as_json:
        output.emit_json(_document(found))
    else:
        _tell(found)
    if found.stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.PART_FAILED if found.survey.unreadable else ExitCode.DONE


def _tell(found: Estimate) -> None:
    for refused in found.survey.unreadable:
        output.note(f"not looked at: {refused}")
    for reason, count in found.survey.not_taken.most_common():
        output.note(f"{count} files are no instances: {reason}")
    if found.survey.repeated_files:
        output.note(f"{found.survey.repeated_files} files repeat others and are kept once")
    if found.survey.looked_files < found.survey.files:
        output.note(f"{found.survey.looked_files} of {found.survey.files} files were looked at")
    measured = sum(group.sampled_series for group in found.groups)
    series = sum(group.series for group in found.groups)
    if measured < series:
        output.note(f"{measured} of {series} series were measured; --seconds lets it measure more")
    if not all(group.sampled_series for group in found.groups):
        output.note("what is marked with a dash was not measured, and counts as nothing")
    output.table(_COLUMNS, [_row(group) for group in found.groups], _NUMBERS)
    low, high = found.range_bytes
    output.say(
        f"{sum(group.instances for group in found.groups)} instances, {output.size(found.raw_bytes)}, would"
        f" take about {output.size(found.stored_bytes)}"
        f" ({output.share(found.stored_bytes, found.raw_bytes)}; {output.size(low)} to {output.size(high)}"
        f" in 19 of 20 cases) in profile {found.profile};"
        f" packing about {output.duration(found.seconds)} with {found.workers} processors"
    )


def _row(group: GroupEstimate) -> tuple[object, ...]:
    known = group.sampled_series > 0
    return (
        group.modality,
        group.syntax,
        group.series,
        group.instances,
        output.size(group.raw_bytes),
        output.size(group.stored_bytes) if known else "–",
        output.share(group.stored_bytes, group.raw_bytes) if known else "–",
        output.duration(group.cpu_s) if known else "–",
        " ".join(sorted(group.codecs)),
    )


def _document(found: Estimate) -> dict[str, object]:
    survey = found.survey
    return {
        "profile": found.profile,
        "instances": sum(group.instances for group in found.groups),
        "raw_bytes": found.raw_bytes,
        "stored_bytes": found.stored_bytes,
        "stored_bytes_range": list(found.range_bytes),
        "packing_seconds": round(found.seconds, 1),
        "processors": found.workers,
        "stopped": found.stopped,
        "files": survey.files,
        "files_looked_at": survey.looked_files,
        "repeated": {"files": survey.repeated_files, "bytes": survey.repeated_bytes},
        "no_instances": [
            {"reason": reason, "files": count} for reason, count in survey.not_taken.most_common()
        ],
        "not_looked_at": [{"path": one.path, "reason": one.reason} for one in survey.unreadable],
        "groups": [
            {
                "modality": group.modality,
                "transfer_syntax": group.syntax,
                "series": group.series,
                "instances": group.instances,
                "raw_bytes": group.raw_bytes,
                "stored_bytes": group.stored_bytes,
                "pixel_bytes": group.pixel_bytes,
                "opaque_bytes": group.stream_bytes,
                "header_bytes": group.header_bytes,
                "cpu_seconds": round(group.cpu_s, 1),
                "sampled_series": group.sampled_series,
                "sampled_bytes": group.sampled_bytes,
                "codecs": sorted(group.codecs),
            }
            for group in found.groups
        ],
    }
