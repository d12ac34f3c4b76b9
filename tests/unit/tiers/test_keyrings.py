"""Keyrings of a sealed tier: order of writes, two processes at once, wrong keys, loss."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dicomfs.crypto.keyring import keyring_key
from dicomfs.crypto.segments import KeyReference
from dicomfs.errors import (
    KeyMissing,
    ObjectDamaged,
    ObjectNotFound,
    TierError,
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
    Hooked,
    by_digest,
    contents,
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
