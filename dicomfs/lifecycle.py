"""Which object belongs on which tier now, by the rules of the settings: facts in, decisions with reasons.

Pure: no catalog, no tier, no clock.  Every decision is made from `verdicts`, so that what `tier explain` says
is what `tier apply` does.  The last copy, and as many as the settings want, stay; `dicomfs.copies` proves it
again when it removes one.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from dicomfs.config import Settings
from dicomfs.lifecycle_settings import LOCAL, Days, RuleSettings, TierLifecycle
from dicomfs.model import READ_FIRST_KINDS, ObjectKey, PackKind

DAY_NS = 86_400 * 10**9
_HEADER = PackKind.HEADER.prefix
_AT_HOME = frozenset(kind.prefix for kind in READ_FIRST_KINDS)


class Move(enum.Enum):
    """What is done to an object."""

    COPY = "copy"
    EVICT = "evict"


class State(enum.Enum):
    """Whether a move is made."""

    DUE = "due"
    LATER = "later"
    NEVER = "never"
    HELD = "held"
    """The rules would have it, something else forbids it."""


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """A series that needs an object."""

    modality: str
    study_date: str
    """As DICOM DA (YYYYMMDD), or empty."""
    accepted_ns: int
    """When the instances in question became part of the archive."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules may ask of an object; of a pack and its twins as one."""

    key: ObjectKey
    size: int
    tiers: Mapping[str, int]
    """Where proven copies are, and since when (ns)."""
    series: tuple[SeriesFacts, ...]
    profile: str = ""
    used_ns: int = 0
    """When it was last read, 0 where nobody noted it."""
    pinned: bool = False
    needs: Mapping[ObjectKey, frozenset[str]] = field(default_factory=dict)
    """Of a header pack: the objects without which it is of no use, and the tiers that have them."""
    twins: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Of a pack with twins: size and profile of what each tier has."""

    def size_on(self, tier: str) -> int:
        """Its bytes on a tier; of one that has none, what a copy as it is would take."""
        return self.twins.get(tier, (self.size, ""))[0]

    def profile_on(self, tier: str) -> str:
        """How it is packed on a tier; on one that has none, as it is."""
        return self.twins.get(tier, (0, self.profile))[1]

    @property
    def kind(self) -> str:
        """What it holds: the first component of its key."""
        return self.key.split("/", 1)[0]

    @property
    def touched_ns(self) -> int:
        """When it was last read, or accepted."""
        return max(self.used_ns, *(one.accepted_ns for one in self.series)) if self.series else self.used_ns


@dataclass(frozen=True, slots=True)
class Fill:
    """How full a tier with watermarks is, in bytes."""

    used: int
    high: int
    low: int


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that decide."""

    tiers: Mapping[str, TierLifecycle]
    """All tiers, nearest first."""
    rules: Sequence[RuleSettings] = ()
    minimum_copies: int = 1

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy that settings describe."""
        local: dict[str, TierLifecycle] = {LOCAL: settings.tiers.get(LOCAL, TierLifecycle())}
        return cls(local | dict(settings.tiers), settings.rules, settings.lifecycle.minimum_copies)

    @property
    def moves_anything(self) -> bool:
        """Whether any setting asks for copies or evictions."""
        return bool(self.rules) or any(
            (tier.copy_after_days, tier.keep_days) != ("never", "never") or tier.high_watermark is not None
            for tier in self.tiers.values()
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of an object and a tier."""

    move: Move
    tier: str
    state: State
    reason: str
    at_ns: int | None = None
    """When it is due, where that is known."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A move that is to be made."""

    key: ObjectKey
    size: int
    move: Move
    tier: str
    reason: str


@dataclass(slots=True)
class Plan:
    """What is to be done, copies first."""

    copies: list[Decision] = field(default_factory=list)
    evictions: list[Decision] = field(default_factory=list)
    above: dict[str, int] = field(default_factory=dict)
    """Tiers that stay above their low watermark, and by how many bytes: nothing else may leave them."""


@dataclass(frozen=True, slots=True)
class _Term:
    """What the first setting that fits says: after how many days of what."""

    days: Days
    since_ns: int
    unused_days: float
    by: str

    @property
    def at_ns(self) -> int | None:
        return None if self.days == "never" else self.since_ns + round(self.days * DAY_NS)


def verdicts(facts: Facts, policy: Policy, now_ns: int) -> list[Verdict]:
    """What the rules say of an object, for each tier: of copying it there, or of evicting it."""
    return [
        _of_evicting(facts, name, policy, now_ns)
        if name in facts.tiers
        else _of_copying(facts, name, policy, now_ns)
        for name in policy.tiers
    ]


def plan(objects: Sequence[Facts], policy: Policy, now_ns: int, fills: Mapping[str, Fill]) -> Plan:
    """All that is due, the evictions as if the copies were made."""
    copies = plan_copies(objects, policy, now_ns, fills)
    made: dict[ObjectKey, dict[str, int]] = {}
    for one in copies:
        made.setdefault(one.key, {})[one.tier] = now_ns
    after = [
        replace(facts, tiers={**facts.tiers, **made[facts.key]}) if facts.key in made else facts
        for facts in objects
    ]
    found = plan_evictions(after, policy, now_ns, fills)
    return Plan(copies, found.evictions, found.above)


def plan_copies(
    objects: Sequence[Facts], policy: Policy, now_ns: int, fills: Mapping[str, Fill]
) -> list[Decision]:
    """The copies that are due, none beyond a high watermark; header packs come after what they name."""
    room = {name: fill.high - fill.used for name, fill in fills.items() if name != LOCAL}
    coming: dict[str, set[ObjectKey]] = {name: set() for name in policy.tiers}
    found = []
    for facts in sorted(objects, key=lambda facts: facts.kind == _HEADER):
        for name in policy.tiers:
            if name in facts.tiers or facts.size > room.get(name, facts.size):
                continue
            verdict = _of_copying(facts, name, policy, now_ns, coming[name])
            if verdict.state is State.DUE:
                found.append(Decision(facts.key, facts.size, Move.COPY, name, verdict.reason))
                coming[name].add(facts.key)
                if name in room:
                    room[name] -= facts.size
    return found


def plan_evictions(objects: Sequence[Facts], policy: Policy, now_ns: int, fills: Mapping[str, Fill]) -> Plan:
    """The evictions that are due, nearest tier first, then those that watermarks ask for."""
    left = {facts.key: facts for facts in objects}
    found = Plan()

    def evict(facts: Facts, tier: str, reason: str) -> None:
        found.evictions.append(Decision(facts.key, facts.size_on(tier), Move.EVICT, tier, reason))
        tiers = {name: since for name, since in facts.tiers.items() if name != tier}
        left[facts.key] = replace(facts, tiers=tiers)

    for name in policy.tiers:
        for facts in [facts for facts in left.values() if name in facts.tiers]:
            verdict = _of_evicting(facts, name, policy, now_ns)
            if verdict.state is State.DUE:
                evict(facts, name, verdict.reason)
    for name, fill in fills.items():
        used = fill.used - sum(one.size for one in found.evictions if one.tier == name)
        if used <= fill.high:
            continue
        for facts in _least_used(left.values(), name, policy):
            if used <= fill.low:
                break
            evict(facts, name, "the tier is above its high watermark, and others were read later")
            used -= facts.size_on(name)
        if used > fill.low:
            found.above[name] = used - fill.low
    return found


def _least_used(objects: Iterable[Facts], tier: str, policy: Policy) -> list[Facts]:
    """What may leave a tier to make room, the least recently read first."""
    candidates = [
        facts
        for facts in objects
        if tier in facts.tiers
        and facts.series
        and _forbidden(facts, tier, policy) is None
        and not (tier == LOCAL and facts.kind in _AT_HOME)
    ]
    return sorted(candidates, key=lambda facts: (facts.touched_ns, facts.key))


def _of_copying(
    facts: Facts, tier: str, policy: Policy, now_ns: int, coming: Collection[ObjectKey] = ()
) -> Verdict:
    def verdict(state: State, reason: str, at_ns: int | None = None) -> Verdict:
        return Verdict(Move.COPY, tier, state, reason, at_ns)

    if not facts.tiers:
        return verdict(State.HELD, "no tier is known to have it")
    if tier == LOCAL:
        if facts.pinned:
            return verdict(State.DUE, "pinned", now_ns)
        return verdict(State.NEVER, "only what is read, warmed or pinned is brought to the local tier")
    if not facts.series:
        return verdict(State.NEVER, "no series needs it")
    term = _copy_term(facts, tier, policy)
    at_ns = _after_use(term, facts)
    if at_ns is None:
        return verdict(State.NEVER, term.by)
    if at_ns > now_ns:
        return verdict(State.LATER, term.by, at_ns)
    back = _evict_term(facts, tier, policy)
    leaves_ns = _after_use(back, facts)
    if leaves_ns is not None and leaves_ns <= now_ns:
        return verdict(State.NEVER, f"it would leave again at once: {back.by}")
    lacking = sum(tier not in tiers and key not in coming for key, tiers in facts.needs.items())
    if lacking:
        return verdict(State.HELD, f"{lacking} objects that it names have to be there first; then: {term.by}")
    return verdict(State.DUE, term.by, at_ns)


def _of_evicting(facts: Facts, tier: str, policy: Policy, now_ns: int) -> Verdict:
    def verdict(state: State, reason: str, at_ns: int | None = None) -> Verdict:
        return Verdict(Move.EVICT, tier, state, reason, at_ns)

    if not facts.series:
        return verdict(State.NEVER, "no series needs it: it is gc's")
    term = _evict_term(facts, tier, policy)
    at_ns = _after_use(term, facts)
    if at_ns is None:
        return verdict(State.NEVER, term.by)
    if at_ns > now_ns:
        return verdict(State.LATER, term.by, at_ns)
    forbidden = _forbidden(facts, tier, policy)
    if forbidden is not None:
        return verdict(State.HELD, f"{forbidden}; else: {term.by}")
    return verdict(State.DUE, term.by, at_ns)


def _forbidden(facts: Facts, tier: str, policy: Policy) -> str | None:
    """Why a copy must stay, whatever the rules say."""
    if tier == LOCAL and facts.pinned:
        return "pinned"
    others = len(facts.tiers) - (tier in facts.tiers)
    if others < policy.minimum_copies:
        copies = f"{others or 'no'} other proven {'copy' if others == 1 else 'copies'}"
        return f"{copies}, {policy.minimum_copies} wanted"
    return None


def _after_use(term: _Term, facts: Facts) -> int | None:
    """When a term is over; not before the object was left alone for as long as it says."""
    if term.at_ns is None:
        return None
    unused_ns = facts.used_ns + round(term.unused_days * DAY_NS) if facts.used_ns else 0
    return max(term.at_ns, unused_ns)


def _copy_term(facts: Facts, tier: str, policy: Policy) -> _Term:
    for number, rule in enumerate(policy.rules, 1):
        if rule.copy_to == tier and _fits(rule, facts, tier, every=False):
            since_ns = min(_age_base_ns(rule, one) for one in facts.series)
            by = f"{_label(rule, number)}: copied after {_days(rule.copy_after_days)}"
            return _Term(rule.copy_after_days, since_ns, rule.unused_days or 0.0, by)
    days = policy.tiers[tier].copy_after_days
    since_ns = min(one.accepted_ns for one in facts.series)
    by = "nothing copies it there" if days == "never" else f"tiers.{tier}.copy_after_days: {_days(days)}"
    return _Term(days, since_ns, 0.0, by)


def _evict_term(facts: Facts, tier: str, policy: Policy) -> _Term:
    header_at_home, keep = tier == LOCAL and facts.kind in _AT_HOME, policy.tiers[tier]
    for number, rule in enumerate(policy.rules, 1):
        if rule.evict_from != tier or rule.evict_after_days is None or (header_at_home and not rule.kinds):
            continue
        if _fits(rule, facts, tier, every=True):
            since_ns = max(_age_base_ns(rule, one) for one in facts.series)
            by = f"{_label(rule, number)}: evicted after {_days(rule.evict_after_days)}"
            unused_days = keep.keep_used_days if rule.unused_days is None else rule.unused_days
            return _Term(rule.evict_after_days, since_ns, unused_days, by)
    since_ns = max(one.accepted_ns for one in facts.series)
    if header_at_home:
        return _Term(
            "never", since_ns, 0.0, "headers and their texts stay local unless a rule names their kind"
        )
    by = (
        "nothing evicts it"
        if keep.keep_days == "never"
        else f"tiers.{tier}.keep_days: {_days(keep.keep_days)}"
    )
    return _Term(keep.keep_days, since_ns, keep.keep_used_days, by)


def _fits(rule: RuleSettings, facts: Facts, tier: str, *, every: bool) -> bool:
    """Whether a rule is for an object: some series that need it fit, or every one does."""
    if rule.kinds and facts.kind not in rule.kinds:
        return False
    if rule.profiles and facts.profile_on(tier) not in rule.profiles:
        return False
    size = facts.size_on(tier)
    if size < rule.at_least_bytes or (rule.at_most_bytes is not None and size > rule.at_most_bytes):
        return False
    fitting = [not rule.modalities or one.modality in rule.modalities for one in facts.series]
    return all(fitting) if every else any(fitting)


def _age_base_ns(rule: RuleSettings, series: SeriesFacts) -> int:
    if rule.age == "study":
        try:
            date = datetime.strptime(series.study_date, "%Y%m%d").replace(tzinfo=UTC)
        except ValueError:
            return series.accepted_ns
        return int(date.timestamp()) * 10**9
    return series.accepted_ns


def _label(rule: RuleSettings, number: int) -> str:
    return f"rule {rule.name!r}" if rule.name else f"rule {number}"


def _days(days: Days) -> str:
    return "never" if days == "never" else f"{days:g} days"
