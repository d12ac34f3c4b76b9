"""``dicomfs status``: what the archive holds and what it takes."""

from __future__ import annotations

from typing import Any

import click

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import State, as_json, opened, pass_state


@click.command("status")
@as_json
@pass_state
def command(state: State, as_json: bool) -> int:
    """Tell what the archive holds and what it takes; stored bytes count each object once."""
    with opened(state) as archive:
        status: dict[str, Any] = archive.status()
    if as_json:
        output.emit_json(status)
        return ExitCode.DONE
    rows: list[tuple[object, ...]] = [
        (name, status[name], "") for name in ("patients", "studies", "series", "instances")
    ]
    logical = status["logical_bytes"]
    for label, name in (
        ("as files", "logical_bytes"),
        ("stored", "stored_bytes"),
        ("- pixels", "pixel_bytes"),
        ("- headers", "header_bytes"),
        ("- kept whole", "opaque_bytes"),
        ("- journal", "journal_bytes"),
        ("index", "index_bytes"),
    ):
        part = "" if name == "logical_bytes" else output.share(status[name], logical)
        rows.append((label, output.size(status[name]), part))
        if name == "pixel_bytes":
            for profile, size in status["pixel_bytes_by_profile"].items():
                rows.append((f"  - {profile}", output.size(size), output.share(size, logical)))
    rows.append(("waiting", status["spool"]["instances"], output.size(status["spool"]["bytes"])))
    for name, tier in status["tiers"].items():
        rows.append((f"tier {name}", f"{tier['objects']} objects", output.size(tier["bytes"])))
    output.table(("", "", ""), rows, right=())
    return ExitCode.DONE
