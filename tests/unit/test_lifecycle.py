"""The planner: what the rules make of an object, and that they never ask for the last copies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.lifecycle import (
    DAY_NS,
    Facts,
    Fill,
    Move,
    Plan,
    Policy,
    SeriesFacts,
    State,
    Verdict,
    plan,
    plan_copies,
    plan_evictions,
    verdicts,
)
from dicomfs.lifecycle_settings import Kind, RuleSettings, TierLifecycle
from dicomfs.model import ObjectKey

NOW = 20_000 * DAY_NS
"""4 October 2024."""


def key(number: int, kind: str = "pixel") -> ObjectKey:
    return ObjectKey(f"{kind}/00/{number:064x}")


def facts(number: int = 1, *tiers: str, days: float = 100, modality: str = "CT", **others: Any) -> Facts:
    kind = others.pop("kind", "pixel")
    used_days = others.pop("used_days", None)
    series = SeriesFacts(modality, others.pop("study_date", ""), NOW - int(days * DAY_NS))
    found = Facts(key(number, kind), 100, dict.fromkeys(tiers or ("local",), 1), (series,), **others)
    return found if used_days is None else replace(found, used_ns=NOW - int(used_days * DAY_NS))


def policy(*rules: RuleSettings, minimum_copies: int = 1, **tiers: TierLifecycle) -> Policy:
    named = {name: tiers.get(name, TierLifecycle()) for name in ("local", "laboratory", "external")}
    return Policy(named, rules, minimum_copies)


def of(found: list[Verdict], tier: str) -> tuple[Move, State]:
    verdict = next(one for one in found if one.tier == tier)
    return verdict.move, verdict.state


def moves(found: Plan) -> set[tuple[str, str, ObjectKey]]:
    return {(one.move.value, one.tier, one.key) for one in (*found.copies, *found.evictions)}


SMALL_SERVER = policy(
    local=TierLifecycle(keep_days=60),
    laboratory=TierLifecycle(copy_after_days=1, keep_days=700),
    external=TierLifecycle(copy_after_days=0),
)


def test_without_rules_nothing_moves() -> None:
    assert not policy().moves_anything
    assert moves(plan([facts(1), facts(2, "local", "external", days=9999)], policy(), NOW, {})) == set()


def test_the_small_server_hands_on_and_lets_go() -> None:
    fresh, month = facts(1, days=0.5), facts(2, "local", "external", days=30)
    old, ancient = facts(3, days=61), facts(4, "laboratory", "external", days=701)
    found = plan([fresh, month, old, ancient], SMALL_SERVER, NOW, {})
    assert moves(found) == {
        ("copy", "external", fresh.key),
        ("copy", "laboratory", month.key),
        ("copy", "laboratory", old.key),
        ("copy", "external", old.key),
        ("evict", "local", old.key),
        ("evict", "laboratory", ancient.key),
    }


def test_what_would_leave_again_at_once_is_not_copied() -> None:
    found = verdicts(facts(1, "external", days=701), SMALL_SERVER, NOW)
    assert of(found, "laboratory") == (Move.COPY, State.NEVER)
    assert "leave again" in found[1].reason


def test_what_was_read_of_late_stays() -> None:
    one = facts(1, "local", "external", days=500, used_days=3)
    found = verdicts(one, SMALL_SERVER, NOW)[0]
    assert (found.state, found.at_ns) == (State.LATER, NOW + 4 * DAY_NS)


def test_a_pin_holds_and_brings() -> None:
    held = verdicts(facts(1, "local", "external", pinned=True), SMALL_SERVER, NOW)[0]
    assert held.state is State.HELD
    assert held.reason.startswith("pinned")
    brought = facts(2, "external", pinned=True)
    assert ("copy", "local", brought.key) in moves(plan([brought], policy(), NOW, {}))


@pytest.mark.parametrize("kind", ["header", "text"])
def test_headers_and_their_texts_stay_local_unless_a_rule_names_them(kind: Kind) -> None:
    one = facts(1, "local", "external", "laboratory", days=800, kind=kind)
    assert [(v.tier, v.state) for v in verdicts(one, SMALL_SERVER, NOW)] == [
        ("local", State.NEVER),
        ("laboratory", State.DUE),
        ("external", State.NEVER),
    ]
    general = RuleSettings(evict_from="local", evict_after_days=1)
    assert verdicts(one, policy(general), NOW)[0].state is State.NEVER
    naming = RuleSettings(evict_from="local", evict_after_days=1, kinds=[kind])
    assert verdicts(one, policy(general, naming), NOW)[0].state is State.DUE


def test_the_first_rule_that_fits_decides() -> None:
    keep = RuleSettings(name="mammograms", modalities=["MG"], evict_from="local", evict_after_days="never")
    soon = RuleSettings(evict_from="local", evict_after_days=2)
    both = policy(keep, soon)
    first = verdicts(facts(1, "local", "external", modality="MG"), both, NOW)[0]
    assert (first.state, first.reason) == (State.NEVER, "rule 'mammograms': evicted after never")
    second = verdicts(facts(1, "local", "external"), both, NOW)[0]
    assert (second.state, second.reason) == (State.DUE, "rule 2: evicted after 2 days")


@pytest.mark.parametrize(
    "rule,expected",
    [
        ({"kinds": ["burned"]}, False),
        ({"kinds": ["pixel", "burned"]}, True),
        ({"profiles": ["dense"]}, False),
        ({"profiles": ["fast"]}, True),
        ({"at_least_bytes": 101}, False),
        ({"at_least_bytes": 100, "at_most_bytes": 100}, True),
        ({"at_most_bytes": 99}, False),
        ({"modalities": ["MR", "CT"]}, True),
        ({"modalities": ["MR"]}, False),
        ({"copy_after_days": 99}, True),
        ({"copy_after_days": 101}, False),
        ({"unused_days": 3}, True),
        ({"unused_days": 6}, False),
        ({"age": "study", "copy_after_days": 1000}, True),
    ],
)
def test_a_rule_is_for_what_it_says(rule: dict[str, Any], expected: bool) -> None:
    one = facts(1, profile="fast", used_days=5, study_date="20150301")
    found = verdicts(one, policy(RuleSettings(copy_to="external", **rule)), NOW)
    assert (of(found, "external")[1] is State.DUE) is expected


def test_copying_takes_one_series_that_fits_and_evicting_all() -> None:
    shared = facts(1, "local", "external")
    shared = replace(shared, series=(*shared.series, replace(shared.series[0], modality="MR")))
    rule = RuleSettings(modalities=["MR"], copy_to="laboratory", evict_from="local", evict_after_days=1)
    found = verdicts(shared, policy(rule), NOW)
    assert of(found, "laboratory") == (Move.COPY, State.DUE)
    assert of(found, "local") == (Move.EVICT, State.NEVER)


def test_an_object_is_as_young_as_the_youngest_series_that_needs_it() -> None:
    shared = facts(1, "local", "external", days=100)
    shared = replace(shared, series=(*shared.series, replace(shared.series[0], accepted_ns=NOW - DAY_NS)))
    assert of(verdicts(shared, SMALL_SERVER, NOW), "local") == (Move.EVICT, State.LATER)


def test_a_header_pack_waits_for_what_it_names() -> None:
    old, young = facts(1, days=9), facts(2, days=1)
    needs = {old.key: frozenset(old.tiers), young.key: frozenset(young.tiers)}
    header = replace(facts(3, days=9, kind="header"), needs=needs)
    after = policy(RuleSettings(copy_to="external", copy_after_days=5))
    found = plan_copies([header, old, young], after, NOW, {})
    assert [one.key for one in found] == [old.key]
    assert of(verdicts(header, after, NOW), "external") == (Move.COPY, State.HELD)
    found = plan_copies([header, old, young], after, NOW + 4 * DAY_NS, {})
    assert [one.key for one in found] == [old.key, young.key, header.key]


def test_what_no_series_needs_is_left_alone() -> None:
    orphan = replace(facts(1, "local", "external"), series=())
    full = {"local": Fill(200, 50, 10)}
    found = plan([orphan], SMALL_SERVER, NOW, full)
    assert (moves(found), found.above) == (set(), {"local": 190})


def test_above_the_high_watermark_the_least_recently_read_leave() -> None:
    objects = [facts(n, "local", "external", days=n, used_days=0.1 * n) for n in range(1, 6)]
    objects += [facts(6, "local", days=90), facts(7, "local", "external", pinned=True)]
    objects += [facts(8, "local", "external", kind="header")]
    found = plan_evictions(objects, policy(), NOW, {"local": Fill(800, 700, 550)})
    assert [one.key for one in found.evictions] == [key(5), key(4), key(3)]
    assert found.above == {}
    none = plan_evictions(objects, policy(), NOW, {"local": Fill(800, 800, 100)})
    assert none.evictions == []
    all_of_them = plan_evictions(objects, policy(), NOW, {"local": Fill(800, 700, 100)})
    assert len(all_of_them.evictions) == 5
    assert all_of_them.above == {"local": 200}


def test_nothing_is_copied_beyond_the_high_watermark() -> None:
    copying = policy(external=TierLifecycle(copy_after_days=0))
    found = plan_copies([facts(n) for n in range(5)], copying, NOW, {"external": Fill(50, 300, 300)})
    assert [one.key for one in found] == [key(0), key(1)]


_TIERS = ("local", "laboratory", "external")
_DAYS = st.one_of(st.just("never"), st.integers(0, 20).map(float))
_RULES = st.builds(
    RuleSettings,
    modalities=st.sampled_from([[], ["CT"], ["MR"]]),
    kinds=st.sampled_from([[], ["header"], ["pixel"]]),
    copy_to=st.sampled_from([None, "laboratory", "external"]),
    copy_after_days=_DAYS,
    evict_from=st.sampled_from(_TIERS),
    evict_after_days=_DAYS,
    unused_days=st.one_of(st.none(), st.just(0.0)),
)
_FACTS = st.builds(
    facts,
    st.integers(0, 3),
    *[st.sampled_from(_TIERS)] * 2,
    days=st.integers(0, 30),
    modality=st.sampled_from(["CT", "MR"]),
    kind=st.sampled_from(["pixel", "header"]),
    pinned=st.booleans(),
)


@given(
    st.lists(_FACTS, max_size=5, unique_by=lambda one: one.key),
    st.lists(_RULES, max_size=3),
    st.tuples(*[st.builds(TierLifecycle, keep_days=_DAYS, copy_after_days=_DAYS)] * 3),
    st.integers(1, 3),
    st.dictionaries(st.sampled_from(_TIERS), st.just(Fill(500, 100, 0))),
)
def test_no_plan_leaves_too_few_copies_or_takes_what_is_pinned(
    objects: list[Facts],
    rules: list[RuleSettings],
    tiers: tuple[TierLifecycle, ...],
    minimum: int,
    fills: dict[str, Fill],
) -> None:
    drawn = Policy(dict(zip(_TIERS, tiers, strict=True)), rules, minimum)
    found = plan(objects, drawn, NOW, fills)
    left = {one.key: set(one.tiers) for one in objects}
    for copy in found.copies:
        assert copy.tier not in left[copy.key]
        left[copy.key].add(copy.tier)
    for eviction in found.evictions:
        left[eviction.key].remove(eviction.tier)
        assert len(left[eviction.key]) >= minimum
    for one in objects:
        if one.pinned:
            assert "local" in left[one.key]
