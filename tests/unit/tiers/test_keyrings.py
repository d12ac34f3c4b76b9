"""Keyrings of a sealed tier: order of writes, two processes at once, change of keys, destruction, loss."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomfs.crypto.keyring import keyring_key, parse_keyring_key
from dicomfs.crypto.segments import KeyReference, read_reference
from dicomfs.errors import (
    KeyDestroyed,
    KeyMissing,
    ObjectDamaged,
    ObjectNotFound,
    TierError,
    TransientTierError,
)
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ObjectStat, Tier
from dicomfs.tiers.keyrings import FEWEST_KEYS, MOST_KEYS, Keyrings
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.wrapper import TierWrapper
from tests.sealed_tiers import (
    ARCHIVE_ID,
    NEW,
    OLD,
    DyingTier,
    Killed,
    by_digest,
    contents,
    copied,
    deaths,
    flipped,
    names,
    overwrite,
    put,
    sealed,
)


class Hooked(TierWrapper):
    """Calls ``before_put`` or ``after_put`` with the key of each put."""

    def __init__(
        self,
        inner: Tier,
        before_put: Callable[[ObjectKey], None] = lambda _: None,
        after_put: Callable[[ObjectKey], None] = lambda _: None,
    ) -> None:
        super().__init__(inner)
        self._before_put, self._after_put = before_put, after_put

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        self._before_put(key)
        super().put(key, source, sha256)
        self._after_put(key)


def filled(objects: int = 3) -> MemoryTier:
    """A tier of objects put by as many processes: each has a keyring of its own."""
    inner = MemoryTier()
    for number in range(objects):
        put(sealed(inner), by_digest("pixel", bytes([number])), bytes([number]))
    return inner


def versions(inner: Tier) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for name in names(inner, keyrings=True):
        parsed = parse_keyring_key(name)
        assert parsed is not None
        found.setdefault(parsed[0], []).append(parsed[1])
    return found


def reference_of(inner: Tier, name: ObjectKey) -> KeyReference:
    return read_reference(inner.get(name), name)[0]


# Making


def test_reading_writes_nothing() -> None:
    inner = MemoryTier()
    tier = sealed(inner)
    assert list(tier.list("")) == []
    tier.delete(by_digest("pixel", b"x"))
    with pytest.raises(ObjectNotFound):
        tier.get(by_digest("pixel", b"x"))
    assert names(inner) == names(inner, keyrings=True) == []


def test_no_two_objects_share_a_key() -> None:
    inner = MemoryTier()
    for tier in (sealed(inner), sealed(inner)):
        for number in range(FEWEST_KEYS + 5):
            put(tier, by_digest("pixel", f"{id(tier)} {number}".encode()), f"{id(tier)} {number}".encode())
    stored = names(inner)
    assert len({reference_of(inner, name) for name in stored}) == len(stored) == 2 * (FEWEST_KEYS + 5)


def test_threads_and_processes_at_the_same_time_share_no_key() -> None:
    inner = MemoryTier()
    tiers = [sealed(inner) for _ in range(2)]

    def work(number: int) -> None:
        for count in range(40):
            data = f"{number} {count}".encode()
            put(tiers[number % 2], by_digest("pixel", data), data)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = names(inner)
    assert len({reference_of(inner, name) for name in stored}) == len(stored) == 8 * 40
    assert all(by_digest("pixel", data) == key for key, data in contents(sealed(inner)).items())


def test_keyrings_grow_with_use_and_to_what_is_expected() -> None:
    def sizes(expected: int, objects: int) -> list[int]:
        inner = MemoryTier()
        keyrings = Keyrings(inner, ARCHIVE_ID, [OLD])
        keyrings.expect(expected)
        for _ in range(objects):
            keyrings.take()
        return sorted(state.keys for state in keyrings.states())

    assert sizes(0, 1) == [0, FEWEST_KEYS]
    assert sizes(0, 7 * FEWEST_KEYS) == [0, FEWEST_KEYS, 2 * FEWEST_KEYS, 4 * FEWEST_KEYS]
    assert sizes(100, 1) == [0, 100]
    assert sizes(10 * MOST_KEYS, MOST_KEYS + 1) == [0, MOST_KEYS, MOST_KEYS]


def test_a_keyring_is_there_before_the_first_object_that_uses_it() -> None:
    inner = MemoryTier()

    def check(key: ObjectKey) -> None:
        if not key.startswith("keyring/"):
            assert len(versions(inner)) == 2

    put(sealed(Hooked(inner, before_put=check)), by_digest("pixel", b"x"), b"x")
    assert len(names(inner)) == 1


def test_a_keyring_that_reads_back_otherwise_is_not_used() -> None:
    inner = MemoryTier()

    def spoil(key: ObjectKey) -> None:
        overwrite(inner, key, flipped(inner.get(key), 800))

    with pytest.raises(ObjectDamaged, match="read back"):
        put(sealed(Hooked(inner, after_put=spoil)), by_digest("pixel", b"x"), b"x")
    assert names(inner) == []


def test_processes_that_use_a_new_tier_at_the_same_time_agree_on_names() -> None:
    inner, barrier = MemoryTier(), threading.Barrier(2)

    def wait(key: ObjectKey) -> None:
        if key == keyring_key(0, 1):
            barrier.wait(timeout=30)

    tiers = [sealed(Hooked(inner, before_put=wait)) for _ in range(2)]
    threads = [
        threading.Thread(target=put, args=(tier, by_digest("pixel", bytes([number])), bytes([number])))
        for number, tier in enumerate(tiers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(contents(sealed(inner)).values()) == [b"\0", b"\1"]
    assert versions(inner)[0] == [1]


def test_first_use_killed_at_any_call_leaves_a_tier_that_can_be_used() -> None:
    key = by_digest("header", b"x")
    for inner in deaths(MemoryTier, lambda tier: put(sealed(tier), key, b"x")):
        assert contents(sealed(inner)) in ({}, {key: b"x"})
        put(sealed(inner), key, b"x")
        assert contents(sealed(inner)) == {key: b"x"}


def test_a_tier_that_others_began_and_gave_another_key_meanwhile_is_not_begun_twice() -> None:
    for keys in ((OLD,), (NEW, OLD)):
        inner = MemoryTier()
        ahead = [by_digest("pixel", b"ahead")]

        def overtake(key: ObjectKey, inner: MemoryTier = inner, ahead: list[ObjectKey] = ahead) -> None:
            if key == keyring_key(0, 1) and ahead:
                put(sealed(inner, OLD), ahead.pop(), b"ahead")
                sealed(inner, OLD).keyrings.rewrap(NEW)

        late = sealed(Hooked(inner, before_put=overtake), *keys)
        if keys == (OLD,):
            with pytest.raises(KeyMissing):
                put(late, by_digest("pixel", b"late"), b"late")
        else:
            put(late, by_digest("pixel", b"late"), b"late")
        assert not ahead
        assert versions(inner)[0] == [2]
        assert len(contents(sealed(inner, NEW))) == len(keys)


# Wrong keys


def test_another_archive_key_opens_nothing_and_the_error_names_both() -> None:
    inner = filled(1)
    key, other = by_digest("pixel", b"\0"), by_digest("pixel", b"other")
    tier = sealed(inner, NEW)
    for call in (
        lambda: tier.get(key),
        lambda: tier.stat(key),
        lambda: list(tier.list("")),
        lambda: tier.delete(key),
        lambda: put(tier, other, b"other"),
    ):
        with pytest.raises(KeyMissing, match=rf"{OLD.id.hex()}.*{NEW.id.hex()}"):
            call()
    assert contents(sealed(inner)) == {key: b"\0"}


def test_the_tier_of_another_archive_is_refused() -> None:
    inner = filled(1)
    with pytest.raises(KeyMissing, match=f"belongs to archive {ARCHIVE_ID.hex()}"):
        list(sealed_for(inner, bytes(16)).list(""))


def sealed_for(inner: Tier, archive_id: bytes | None) -> Tier:
    from dicomfs.tiers.sealed import SealedTier

    return SealedTier(inner, archive_id, [OLD])


def test_without_knowing_the_archive_a_tier_is_read_but_not_begun() -> None:
    inner = filled(1)
    assert contents(sealed_for(inner, None)) == contents(sealed(inner))
    with pytest.raises(TierError, match="archive is not known"):
        put(sealed_for(MemoryTier(), None), by_digest("pixel", b"x"), b"x")


# Loss


def test_the_key_of_names_survives_the_loss_of_the_first_keyring() -> None:
    for spoil in (lambda inner: inner.delete(keyring_key(0, 1)), damage_first):
        inner = filled()
        expected = contents(sealed(inner))
        spoil(inner)
        assert contents(sealed(inner)) == expected
        put(sealed(inner), by_digest("pixel", b"more"), b"more")
        assert contents(sealed(inner)) == expected | {by_digest("pixel", b"more"): b"more"}
        assert not any(state.problem for state in sealed(inner).keyrings.states() if state.number == 0)


def damage_first(inner: MemoryTier) -> None:
    overwrite(inner, keyring_key(0, 1), flipped(inner.get(keyring_key(0, 1)), 900))


def test_a_tier_whose_only_keyring_is_damaged_is_not_begun_anew() -> None:
    inner = MemoryTier()
    sealed(inner).keyrings.ensure_name_key()
    damage_first(inner)
    with pytest.raises(ObjectDamaged):
        put(sealed(inner), by_digest("pixel", b"x"), b"x")
    assert list(versions(inner)) == [0]


def test_a_lost_keyring_costs_its_own_objects_only() -> None:
    inner = filled()
    lost = reference_of(inner, names(inner)[0]).keyring
    inner.delete(keyring_key(lost, 1))
    tier = sealed(inner)
    of_the_lost = [key for key, _ in tier.list("") if not readable(tier, key)]
    assert len(of_the_lost) == 1
    with pytest.raises(ObjectDamaged, match="keyring is missing"):
        tier.get(of_the_lost[0])


def readable(tier: Tier, key: ObjectKey) -> bool:
    try:
        return bool(tier.get(key))
    except ObjectDamaged:
        return False


def test_a_keyring_of_another_tier_is_refused() -> None:
    one, other = filled(1), filled(1)
    foreign = next(name for name in names(other, keyrings=True) if name != keyring_key(0, 1))
    own = next(name for name in names(one, keyrings=True) if name != keyring_key(0, 1))
    put(one, foreign, other.get(foreign))
    with pytest.raises(ObjectDamaged, match="another tier"):
        sealed_keyrings(one).secret(KeyReference(int(foreign.split("/")[1], 16), 0))
    overwrite(one, own, other.get(foreign))
    with pytest.raises(ObjectDamaged, match="another name"):
        sealed(one).get(by_digest("pixel", b"\0"))


def sealed_keyrings(inner: Tier) -> Keyrings:
    keyrings = Keyrings(inner, ARCHIVE_ID, [OLD])
    keyrings.ensure_name_key()
    return keyrings


def test_every_changed_bit_of_a_keyring_is_refused() -> None:
    inner = MemoryTier()
    keyrings = Keyrings(inner, ARCHIVE_ID, [OLD])
    keyrings.expect(2)
    reference, secret = keyrings.take()
    name = keyring_key(reference.keyring, 1)
    data = inner.get(name)
    inner.delete(keyring_key(0, 1))
    plain_part = range(8 * 68)
    for bit in (*plain_part, *range(8 * 68, 8 * len(data), 13)):
        overwrite(inner, name, flipped(data, bit))
        with pytest.raises((ObjectDamaged, KeyMissing)):
            Keyrings(inner, ARCHIVE_ID, [OLD]).secret(reference)
    overwrite(inner, name, data)
    assert Keyrings(inner, ARCHIVE_ID, [OLD]).secret(reference) == secret


@pytest.mark.parametrize("length", [0, 7, 67, 68, 147, 148, -1])
def test_a_keyring_that_is_cut_short_or_longer_is_refused(length: int) -> None:
    inner = MemoryTier()
    sealed_keyrings(inner)
    data = inner.get(keyring_key(0, 1))
    assert len(data) == 148
    overwrite(inner, keyring_key(0, 1), data + b"\0" if length == 148 else data[:length])
    with pytest.raises(ObjectDamaged):
        Keyrings(inner, ARCHIVE_ID, [OLD]).name_key()


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


# Requests


class Listing(TierWrapper):
    """Remembers what was listed."""

    def __init__(self, inner: Tier) -> None:
        super().__init__(inner)
        self.prefixes: list[str] = []

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        self.prefixes.append(prefix)
        return super().list(prefix)


def test_who_reads_one_object_does_not_list_all_keyrings_and_who_reads_many_does_so_rarely() -> None:
    inner = filled(12)
    keys = list(contents(sealed(inner)))
    for objects, expected in ((1, 0), (12, 2)):
        listing = Listing(inner)
        tier = sealed(listing)
        for key in keys[:objects]:
            tier.get(key)
        assert listing.prefixes.count("keyring") <= expected
        assert len(listing.prefixes) <= 2 + objects // 2
