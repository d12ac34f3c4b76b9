"""Settings of what lies where for how long: of a tier, of the whole archive, and rules for some objects.

Owns names, defaults and limits; `dicomfs.config` reads them with all others.  What they mean for an object is
`dicomfs.lifecycle`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from datetime import time
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LOCAL = "local"
Days = Annotated[float, Meta(ge=0)] | Literal["never"]
"""Days, parts of them too, or never."""
Watermark = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^[0-9]{1,2}(\.[0-9]+)?%$")]
"""Bytes that the archive's objects take on a tier, or share of its file system that is used, by anybody."""
Kind = Literal["pixel", "burned", "opaque", "header", "text"]
_WINDOW = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")


class TierLifecycle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The part of ``[tiers.NAME]`` that says what lies there for how long."""

    copy_after_days: Days = "never"
    """How long after acceptance an object is copied to the tier; 0: as soon as it is packed."""
    keep_days: Days = "never"
    """How long after acceptance an object leaves the tier; never: it stays."""
    keep_used_days: Annotated[float, Meta(ge=0)] = 7.0
    """An object that was read less long ago stays although it is older than that."""
    high_watermark: Watermark | None = None
    """Beyond this, objects leave the tier, those first that nobody read for longest; nothing is promoted."""
    low_watermark: Watermark | None = None
    """Until this is reached; the high watermark itself when absent."""
    packing: Literal["fast", "dense", "archive"] | None = None
    """How frames are packed there: what is copied to the tier is coded anew where that gains; as it is when
    absent."""


class LifecycleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``[lifecycle]``."""

    background: bool = True
    """Whether a mount applies the rules, by a process of low priority."""
    minimum_copies: Annotated[int, Meta(ge=1)] = 1
    """Copies of every object that are left at least when one is evicted."""
    schedule: list[str] = []
    """Times of day, "22:00-06:00", at which a mount may move objects; at any time when empty."""
    interval_minutes: Annotated[int, Meta(ge=1, le=60)] = 30
    """How often a mount applies the rules and ships the journal."""


class RuleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section ``[[rules]]``: what the objects it is for have in common, and what becomes of them."""

    name: str = ""
    """For reports; the number of the rule when absent."""
    modalities: list[str] = []
    """Modality (0008,0060) of the series, any of these; any at all when empty."""
    kinds: list[Kind] = []
    """What the object holds, any of these; when empty, anything, but headers and their texts stay local."""
    profiles: list[Literal["fast", "dense", "archive"]] = []
    """How frames are packed, any of these; when empty, anything, also what holds no frames."""
    at_least_bytes: Annotated[int, Meta(ge=0)] = 0
    """Size of the object."""
    at_most_bytes: Annotated[int, Meta(ge=0)] | None = None
    """Size of the object."""
    unused_days: Annotated[float, Meta(ge=0)] | None = None
    """How long nobody has read it; what keep_used_days of the tier says, for evictions, when absent."""
    age: Literal["acceptance", "study"] = "acceptance"
    """What the days are counted from: acceptance, or Study Date (0008,0020) where there is one."""
    copy_to: str | None = None
    """The tier that gets a copy."""
    copy_after_days: Days = 0.0
    """How old it is then; never: no copy is made there."""
    evict_from: str | None = None
    """The tier that it leaves."""
    evict_after_days: Days | None = None
    """How old it is then; never: it stays."""


def problems(
    lifecycle: LifecycleSettings,
    rules: Collection[RuleSettings],
    tiers: dict[str, TierLifecycle],
) -> Iterator[tuple[str, str]]:
    """What contradicts itself: (setting, problem)."""
    for index, window in enumerate(lifecycle.schedule):
        if parse_window(window) is None:
            yield f"lifecycle.schedule[{index}]", f'{window!r} is not of the form "22:00-06:00"'
    known = {LOCAL, *tiers}
    if lifecycle.minimum_copies > len(known):
        yield "lifecycle.minimum_copies", f"{lifecycle.minimum_copies} copies on {len(known)} tiers"
    for name, tier in tiers.items():
        yield from _problems_of_tier(f"tiers.{name}", tier, local=name == LOCAL)
    for number, rule in enumerate(rules, 1):
        yield from ((f"rules[{number}].{key}", text) for key, text in _problems_of_rule(rule, known))


def _problems_of_tier(section: str, tier: TierLifecycle, *, local: bool) -> Iterator[tuple[str, str]]:
    for name in ("copy_after_days", "keep_days", "keep_used_days"):
        if not _is_days(getattr(tier, name)):
            yield f"{section}.{name}", "must be a number of days, or never"
    if local and tier.copy_after_days != "never":
        yield f"{section}.copy_after_days", "what is packed is local at once"
    high, low = tier.high_watermark, tier.low_watermark
    if low is None:
        return
    if high is None:
        yield f"{section}.low_watermark", "needs a high_watermark"
    elif isinstance(high, str) != isinstance(low, str):
        yield f"{section}.low_watermark", "must be bytes like the high watermark, or percent like it"
    elif amount(low) > amount(high):
        yield f"{section}.low_watermark", "is above the high watermark"


def _problems_of_rule(rule: RuleSettings, known: set[str]) -> Iterator[tuple[str, str]]:
    listed = ", ".join(sorted(known))
    for key in ("copy_to", "evict_from"):
        tier = getattr(rule, key)
        if tier is not None and tier not in known:
            yield key, f"there is no tier {tier!r}; known are {listed}"
    if rule.copy_to is None and rule.evict_from is None:
        yield "copy_to", "a rule needs copy_to or evict_from"
    if rule.copy_to == LOCAL:
        yield "copy_to", "what is packed is local at once; pin what is to be brought there"
    if rule.copy_to is not None and rule.copy_to == rule.evict_from:
        yield "evict_from", "is the tier that the rule copies to"
    if (rule.evict_from is None) != (rule.evict_after_days is None):
        yield "evict_after_days", "evict_from and evict_after_days go together"
    for key in ("copy_after_days", "evict_after_days"):
        if not _is_days(getattr(rule, key) or 0.0):
            yield key, "must be a number of days, or never"
    if not math.isfinite(rule.unused_days or 0.0):
        yield "unused_days", "must be a number of days"
    if rule.at_most_bytes is not None and rule.at_most_bytes < rule.at_least_bytes:
        yield "at_most_bytes", "is below at_least_bytes"


def _is_days(value: Days) -> bool:
    return value == "never" or math.isfinite(value)


def amount(watermark: Watermark) -> float:
    """Bytes, or percent."""
    return float(watermark.rstrip("%")) if isinstance(watermark, str) else float(watermark)


def parse_window(text: str) -> tuple[time, time] | None:
    """Begin and end of a time of day; None for what is none."""
    found = _WINDOW.fullmatch(text)
    if found is None:
        return None
    hours, minutes, until_hours, until_minutes = map(int, found.groups())
    if (until_hours, until_minutes) == (24, 0):
        until_hours = 0
    try:
        return time(hours, minutes), time(until_hours, until_minutes)
    except ValueError:
        return None
