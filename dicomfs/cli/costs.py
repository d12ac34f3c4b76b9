"""How the commands of ``dicomfs tier`` tell what moving objects takes and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from dicomfs.index.records import ObjectRecord
    from dicomfs.prices import Cost


def document(cost: Cost) -> dict[str, object]:
    """A cost as JSON has it."""
    return {
        "currency": cost.currency,
        "once": round(cost.once, 6),
        "monthly": round(cost.monthly, 6),
        "list_prices": cost.listed,
        "unpriced_tiers": list(cost.unknown),
    }


def text(cost: Cost) -> str:
    """A cost in a few words; '' where nothing has a price."""
    parts = []
    if cost.once:
        parts.append(f"about {_amount(cost.once)} {cost.currency} once")
    if cost.monthly:
        what = "a month" if cost.monthly > 0 else "a month saved"
        parts.append(f"about {_amount(abs(cost.monthly))} {cost.currency} {what}")
    if cost.unknown:
        parts.append(f"no prices for {', '.join(cost.unknown)}")
    return ", ".join(parts) + (" (list prices)" if cost.listed and parts else "")


def tell_plan(
    what: str,
    objects: Sequence[ObjectRecord],
    cost: Cost,
    seconds: float | None,
    *,
    as_json: bool,
) -> ExitCode:
    """What one command would move."""
    size = sum(record.size for record in objects)
    if as_json:
        output.emit_json(
            {
                "dry_run": True,
                "objects": len(objects),
                "bytes": size,
                "seconds": seconds,
                "cost": document(cost),
            }
        )
    else:
        parts = [f"would be {what}: {len(objects)} objects, {output.size(size)}"]
        if seconds is not None:
            parts.append(f"{output.duration(seconds)} at the bandwidth that is set")
        output.say(", ".join(part for part in (*parts, text(cost)) if part))
    return ExitCode.DONE


def _amount(value: float) -> str:
    return f"{value:,.2f}" if value >= 0.005 else f"{value:.1g}"
