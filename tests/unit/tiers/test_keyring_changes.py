"""Keyrings rewritten: change of the archive key, destruction of the keys of objects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dicomfs.crypto.keyring import keyring_key
from dicomfs.errors import (
    KeyDestroyed,
    KeyMissing,
    TierError,
    TransientTierError,
)
from dicomfs.model import ObjectKey
from dicomfs.tiers.keyrings import FEWEST_KEYS
from dicomfs.tiers.wrapper import TierWrapper
from tests.sealed_tiers import (
    NEW,
    OLD,
    DyingTier,
    Hooked,
    Killed,
    by_digest,
    contents,
    copied,
    deaths,
    filled,
    flipped,
    names,
    overwrite,
    put,
    reference_of,
    sealed,
    versions,
)

# Change of the archive key


def test_after_a_change_the_new_key_opens_everything_and_the_old_one_nothing() -> None:
    inner = filled()
    expected, objects = contents(sealed(inner)), {name: inner.get(name) for name in names(inner)}
    report = sealed(inner).keyrings.rewrap(NEW)
    assert (report.rewritten, report.removed, report.failed) == (4, 4, [])
    assert contents(sealed(inner, NEW)) == expected
    assert {name: inner.get(name) for name in names(inner)} == objects
    with pytest.raises(KeyMissing):
        list(sealed(inner, OLD).list(""))
    for name in names(inner, keyrings=True):
        assert OLD.id not in inner.get(name)


def test_a_change_that_keeps_the_old_versions_leaves_both_keys_working() -> None:
    inner = filled()
    assert sealed(inner).keyrings.rewrap(NEW, keep_old=True).removed == 0
    put(sealed(inner, OLD), by_digest("pixel", b"by old"), b"by old")
    put(sealed(inner, NEW), by_digest("pixel", b"by new"), b"by new")
    assert len(contents(sealed(inner, NEW, OLD))) == 5
    report = sealed(inner, NEW, OLD).keyrings.rewrap(NEW)
    assert (report.rewritten, report.failed) == (1, [])
    assert len(contents(sealed(inner, NEW))) == 5


def test_a_change_killed_at_any_call_is_finished_by_doing_it_again() -> None:
    before = filled(2)
    expected = contents(sealed(before))
    for inner in deaths(lambda: copied(before), lambda tier: sealed(tier, OLD).keyrings.rewrap(NEW)):
        assert contents(sealed(inner, OLD, NEW)) == contents(sealed(inner, NEW, OLD)) == expected
        if 1 in versions(inner)[0]:
            assert contents(sealed(inner, OLD)) == expected
        assert sealed(inner, OLD, NEW).keyrings.rewrap(NEW).failed == []
        assert contents(sealed(inner, NEW)) == expected
        assert all(len(found) == 1 for found in versions(inner).values())


def test_a_process_with_the_old_key_stops_writing_when_the_key_was_changed() -> None:
    inner = filled(1)
    running = sealed(inner, OLD)
    put(running, by_digest("pixel", b"first"), b"first")
    sealed(inner, OLD).keyrings.rewrap(NEW)
    for number in range(FEWEST_KEYS - 1):
        put(running, by_digest("pixel", f"{number}".encode()), f"{number}".encode())
    before = names(inner, keyrings=True)
    with pytest.raises(KeyMissing, match=rf"{NEW.id.hex()}.*{OLD.id.hex()}"):
        put(running, by_digest("pixel", b"one too many"), b"one too many")
    assert names(inner, keyrings=True) == before
    assert len(contents(sealed(inner, NEW))) == FEWEST_KEYS + 1


def test_a_keyring_put_while_the_key_is_changed_is_rewritten_or_taken_back() -> None:
    """The change runs as a whole between the put of a keyring and its first use."""
    inner = filled(1)

    def change(key: ObjectKey) -> None:
        if key.startswith("keyring/"):
            sealed(inner, OLD).keyrings.rewrap(NEW)

    with pytest.raises(TierError):
        put(sealed(Hooked(inner, after_put=change)), by_digest("pixel", b"x"), b"x")
    assert len(contents(sealed(inner, NEW))) == 1
    assert not any(state.problem for state in sealed(inner, NEW).keyrings.states())


def test_what_a_process_seals_while_the_key_is_changed_opens_with_the_new_one() -> None:
    inner = filled(1)
    added = by_digest("pixel", b"meanwhile")

    class Changing(TierWrapper):
        def erase(self, key: ObjectKey) -> None:
            """The first of the old versions is about to go: all are wrapped anew."""
            if key == keyring_key(0, 1):
                put(sealed(inner, OLD), added, b"meanwhile")
            super().erase(key)

    sealed(Changing(inner), OLD).keyrings.rewrap(NEW)
    assert contents(sealed(inner, NEW))[added] == b"meanwhile"
    assert all(len(found) == 1 for found in versions(inner).values())


def test_a_damaged_version_behind_a_good_one_is_cleared_away() -> None:
    inner = filled(1)
    for name in names(inner, keyrings=True):
        put(inner, name.replace("00000001", "00000002"), b"damaged")
    sealed(inner, OLD).keyrings.rewrap(OLD)
    assert all(len(found) == 1 for found in versions(inner).values())
    assert len(contents(sealed(inner, OLD))) == 1


def test_damage_on_the_way_does_not_stop_a_change_and_is_reported() -> None:
    inner = filled()
    spoilt = next(name for name in names(inner, keyrings=True) if name != keyring_key(0, 1))
    overwrite(inner, spoilt, flipped(inner.get(spoilt), 1000))
    report = sealed(inner).keyrings.rewrap(NEW)
    assert (report.rewritten, report.removed, len(report.failed)) == (3, 3, 1)
    assert spoilt in report.failed[0]
    assert spoilt in names(inner, keyrings=True)


def test_versions_of_which_none_opens_are_left_and_reported_and_the_others_changed() -> None:
    inner = filled()
    spoilt = next(name for name in names(inner, keyrings=True) if name != keyring_key(0, 1))
    overwrite(inner, spoilt, flipped(inner.get(spoilt), 1000))
    put(inner, spoilt.replace("00000001", "00000002"), b"damaged")
    report = sealed(inner).keyrings.rewrap(NEW)
    assert (report.rewritten, report.removed, len(report.failed)) == (3, 3, 1)
    assert versions(inner)[int(spoilt.split("/")[1], 16)] == [1, 2]


def test_a_damaged_new_version_is_passed_over_and_replaced() -> None:
    inner = filled(1)
    sealed(inner).keyrings.rewrap(NEW, keep_old=True)
    newer = [name for name in names(inner, keyrings=True) if name.endswith("00000002")]
    for name in newer:
        overwrite(inner, name, flipped(inner.get(name), 1000))
    assert len(contents(sealed(inner, NEW, OLD))) == 1
    assert sealed(inner, NEW, OLD).keyrings.rewrap(NEW).failed == []
    assert len(contents(sealed(inner, NEW))) == 1


def test_states_tell_which_key_opens_what_and_no_secret() -> None:
    inner = filled(1)
    tier = sealed(inner)
    tier.keyrings.rewrap(NEW, keep_old=True)
    with_old = list(sealed(inner, OLD).keyrings.states())
    assert [(state.version, state.key_id, state.older) for state in with_old] == 2 * [(1, OLD.id.hex(), 1)]
    with_new = list(sealed(inner, NEW).keyrings.states())
    assert [(state.version, state.key_id, state.problem) for state in with_new] == 2 * [(2, NEW.id.hex(), "")]
    tier.keyrings.rewrap(NEW)
    assert all(NEW.id.hex() in state.problem for state in sealed(inner, OLD).keyrings.states())
    shown = repr(with_new) + repr(tier.keyrings) + repr(OLD)
    assert OLD.secret.hex() not in shown
    assert repr(OLD.secret)[2:20] not in shown


def test_a_change_that_a_fault_ended_goes_on_in_the_same_process() -> None:
    before = filled(2)
    added = by_digest("pixel", b"in between")
    expected = contents(sealed(before)) | {added: b"in between"}
    for late in (False, True):
        call, failed = 0, True
        while failed:
            inner = copied(before)
            failing = FailingTier(inner, call, after=late)
            tier = sealed(failing)
            try:
                tier.keyrings.rewrap(NEW)
                failed = False
            except TransientTierError:
                call += 1
            failing.heal()
            put(tier, added, b"in between")
            assert tier.keyrings.rewrap(NEW).failed == []
            assert contents(sealed(inner, NEW)) == contents(tier) == expected
            assert all(len(found) == 1 for found in versions(inner).values())
        assert call > 10


class FailingTier(DyingTier):
    """Fails once instead of killing."""

    def _step(self, work: Callable[[], None]) -> None:
        try:
            super()._step(work)
        except Killed:
            raise TransientTierError(self.name, "", "timeout") from None

    def heal(self) -> None:
        self._fatal = -1


# Destruction


def test_a_destroyed_object_stays_unreadable_even_where_its_bytes_come_back() -> None:
    inner = filled()
    kept = copied(inner)
    doomed = by_digest("pixel", b"\1")
    sealed(inner).destroy([doomed, by_digest("pixel", b"was never there")])
    for name in names(kept):
        put(inner, name, kept.get(name))
    tier = sealed(inner)
    with pytest.raises(KeyDestroyed):
        tier.get(doomed)
    assert [tier.get(by_digest("pixel", bytes([number]))) for number in (0, 2)] == [b"\0", b"\2"]
    assert all(len(found) == 1 for found in versions(inner).values())


def test_destruction_killed_at_any_call_is_finished_by_doing_it_again() -> None:
    before = filled(1)
    tier = sealed(before)
    doomed, other = put(tier, by_digest("header", b"a"), b"a"), put(tier, by_digest("header", b"b"), b"b")
    expected = contents(sealed(before))
    del expected[doomed]
    for inner in deaths(lambda: copied(before), lambda tier: sealed(tier).destroy([doomed])):
        stored = {name: inner.get(name) for name in names(inner)}
        sealed(inner).destroy([doomed])
        assert contents(sealed(inner)) == expected
        assert all(len(found) == 1 for found in versions(inner).values())
        for name, data in stored.items():
            put(inner, name, data)
        if len(stored) == len(expected) + 1:
            with pytest.raises(KeyDestroyed):
                sealed(inner).get(doomed)
        assert sealed(inner).get(other) == b"b"


def test_destruction_leaves_no_older_version_behind_a_damaged_one() -> None:
    inner = filled(1)
    doomed = by_digest("pixel", b"\0")
    before = copied(inner)
    sealed(inner).destroy([doomed])
    for name in names(before):
        put(inner, name, before.get(name))
    ring = reference_of(inner, names(inner)[0]).keyring
    put(inner, keyring_key(ring, 1), before.get(keyring_key(ring, 1)))
    put(inner, keyring_key(ring, 3), b"damaged")
    sealed(inner).destroy([doomed])
    assert versions(inner)[ring] == [4]
    put(inner, names(before)[0], before.get(names(before)[0]))
    with pytest.raises(KeyDestroyed):
        sealed(inner).get(doomed)


def test_an_object_destroyed_is_put_again_under_another_key() -> None:
    inner = filled(1)
    key = by_digest("pixel", b"\0")
    tier = sealed(inner)
    tier.destroy([key])
    put(tier, key, b"\0")
    assert sealed(inner).get(key) == b"\0"


def test_a_key_that_a_change_rewrites_meanwhile_stays_destroyed() -> None:
    """The change had read the keyring before; it reads again before it writes."""
    inner = filled(1)
    doomed = by_digest("pixel", b"\0")
    changing = sealed(inner)
    contents(changing)
    stored = {name: inner.get(name) for name in names(inner)}
    sealed(inner).destroy([doomed])
    changing.keyrings.rewrap(NEW)
    for name, data in stored.items():
        put(inner, name, data)
    with pytest.raises(KeyDestroyed):
        sealed(inner, NEW).get(doomed)
