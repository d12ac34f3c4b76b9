"""SealedTier: what the inner tier sees, what is refused, where plain bytes may not be."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomfs.crypto.segments import OVERHEAD, SEGMENT_BYTES, STORED_SEGMENT, stored_size
from dicomfs.errors import (
    KeyMissing,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    TierError,
    TransientTierError,
)
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.metered import MeteredTier
from dicomfs.tiers.sealed import SealedTier
from dicomfs.tiers.wrapper import TierWrapper
from tests.faulty_tier import FaultyTier
from tests.sealed_tiers import (
    ARCHIVE_ID,
    NEW,
    OLD,
    by_digest,
    contents,
    copied,
    flipped,
    names,
    overwrite,
    put,
    sealed,
)

SECRET = b"Doe^Jane 1970-01-01 1.2.826.0.1.3680043.8.498"


def _two_segments() -> tuple[MemoryTier, ObjectKey, ObjectKey, bytes]:
    inner, data = MemoryTier(), os.urandom(SEGMENT_BYTES + 100)
    key = put(sealed(inner), by_digest("pixel", data), data)
    return inner, key, names(inner)[0], data


def _refused(inner: MemoryTier, key: ObjectKey, problem: str | None = None) -> None:
    with pytest.raises(ObjectDamaged, match=problem):
        sealed(inner).get(key)


# What the inner tier sees


def test_nothing_of_content_or_name_is_seen_beneath() -> None:
    inner, data = MemoryTier(), SECRET * 2000
    key = put(sealed(inner), by_digest("header", data), data)
    digest = key.rpartition("/")[2]
    for name, stored in contents(inner).items():
        assert digest not in name
        assert SECRET[:8] not in stored
        assert bytes.fromhex(digest) not in stored


def test_names_have_the_forms_of_the_page() -> None:
    inner = MemoryTier()
    tier = sealed(inner)
    put(tier, by_digest("opaque", b"x"), b"x")
    put(tier, "journal/000000000000002a", b"x")
    put(tier, "owner", b"x")
    forms = [
        r"journal/000000000000002a\.sealed",
        r"opaque/([0-9a-f]{2})/\1[0-9a-f]{94}",
        r"owner/[0-9a-f]{32}",
    ]
    assert all(re.fullmatch(form, name) for form, name in zip(forms, names(inner), strict=True))


def test_the_same_object_has_another_name_and_other_bytes_on_each_tier() -> None:
    inners = [MemoryTier(), MemoryTier()]
    for inner in inners:
        put(sealed(inner), by_digest("pixel", b"x"), b"x")
    one, other = (contents(inner) for inner in inners)
    assert not one.keys() & other.keys() - {ObjectKey("keyring/0000000000000000/00000001")}
    assert not set(one.values()) & set(other.values())


def test_plain_objects_under_the_same_prefix_are_strangers() -> None:
    inner = MemoryTier()
    tier = sealed(inner)
    plain = [
        put(inner, by_digest("pixel", b"plain"), b"plain"),
        put(inner, "journal/0000000000000001", b"plain"),
    ]
    assert [key for key, _ in tier.strangers()] == sorted(plain)
    put(tier, plain[0], b"plain")
    put(tier, plain[1], b"sealed")
    assert contents(tier) == {plain[0]: b"plain", plain[1]: b"sealed"}
    assert [key for key, _ in sealed(inner).strangers()] == sorted(plain)
    tier.delete(plain[0])
    assert inner.get(plain[0]) == b"plain"


def test_the_names_of_keyrings_can_not_be_used() -> None:
    tier = sealed(MemoryTier())
    for key in ("keyring", "keyring/0000000000000000/00000001"):
        with pytest.raises(TierError, match="the tier's own"):
            put(tier, key, b"x")
    assert list(tier.list("keyring")) == []


def test_a_tier_without_a_key_can_not_be_made() -> None:
    with pytest.raises(KeyMissing, match="none is set"):
        SealedTier(MemoryTier(), ARCHIVE_ID, [])


def test_what_is_put_may_be_anything_and_is_no_file() -> None:
    traits = sealed(FolderTier("laboratory", Path("/nowhere"))).traits
    assert (traits.local, traits.trusted, traits.connections) == (False, True, 4)


# Requests


@pytest.mark.parametrize(
    "offset,length", [(0, 1), (70_000, 10), (SEGMENT_BYTES - 1, 2), (3 * SEGMENT_BYTES, 50), (0, 1 << 30)]
)
def test_a_range_is_one_request_even_by_the_first_reader(offset: int, length: int) -> None:
    metered = MeteredTier(MemoryTier())
    data = os.urandom(3 * SEGMENT_BYTES + 50)
    key = put(sealed(metered), by_digest("pixel", data), data)
    reader = sealed(metered)
    list(reader.list(""))
    before = metered.meters()
    assert reader.get_range(key, ByteRange(offset, length)) == data[offset : offset + length]
    after = metered.meters()
    assert after["get_range"].calls == 1
    assert after["get_range"].payload_bytes <= min(length, len(data)) + 2 * STORED_SEGMENT + 2 * OVERHEAD
    assert after["get"].calls - before["get"].calls == 1, "the keyring, once"
    assert reader.get_range(key, ByteRange(offset, length)) == data[offset : offset + length]
    last = metered.meters()
    assert (last["get_range"].calls, last["get"].calls) == (2, after["get"].calls)
    assert last["stat"] == before["stat"]


# Refusal


def test_an_object_cut_short_is_refused_wherever_it_is_read() -> None:
    inner, key, name, data = _two_segments()
    stored = inner.get(name)
    for length in (0, 1, 39, 56, STORED_SEGMENT - 1, STORED_SEGMENT, STORED_SEGMENT + 56, len(stored) - 1):
        overwrite(inner, name, stored[:length])
        _refused(inner, key)
        for offset in (0, 100, SEGMENT_BYTES - 1, SEGMENT_BYTES, len(data) - 1):
            try:
                got = sealed(inner).get_range(key, ByteRange(offset, 1))
            except ObjectDamaged:
                continue
            assert got == data[offset : offset + 1]
        for beyond in (ByteRange(len(data) - 1, 1), ByteRange(0, 1 << 20), ByteRange(SEGMENT_BYTES - 1, 2)):
            with pytest.raises(ObjectDamaged):
                sealed(inner).get_range(key, beyond)


def test_an_object_that_goes_on_behind_its_end_is_refused() -> None:
    inner, key, name, _ = _two_segments()
    stored = inner.get(name)
    for more in (b"\0", stored[:STORED_SEGMENT], stored[STORED_SEGMENT:]):
        overwrite(inner, name, stored + more)
        _refused(inner, key)


def test_behind_the_end_there_are_no_bytes_and_that_is_proven() -> None:
    inner, key, _, data = _two_segments()
    for offset in (len(data), 2 * SEGMENT_BYTES, 1 << 40):
        assert sealed(inner).get_range(key, ByteRange(offset, 10)) == b""


def test_segments_in_another_order_are_refused() -> None:
    inner, data = MemoryTier(), os.urandom(3 * SEGMENT_BYTES)
    key = put(sealed(inner), by_digest("pixel", data), data)
    name = names(inner)[0]
    stored = inner.get(name)
    one, two, three = (
        stored[start : start + STORED_SEGMENT] for start in range(0, len(stored), STORED_SEGMENT)
    )
    for changed in (two + one + three, one + three + two, one + one + three, one + two + two):
        overwrite(inner, name, changed)
        _refused(inner, key)


def test_objects_that_changed_places_are_refused() -> None:
    inner = MemoryTier()
    tier = sealed(inner)
    keys = [put(tier, by_digest("pixel", data), data) for data in (b"one", b"two")]
    one, two = (inner.get(name) for name in names(inner))
    overwrite(inner, names(inner)[0], two)
    overwrite(inner, names(inner)[1], one)
    for key in keys:
        _refused(inner, key, "does not open")


def test_an_object_of_another_kind_under_its_name_is_refused() -> None:
    inner = MemoryTier()
    put(sealed(inner), by_digest("pixel", b"x"), b"x")
    name = names(inner)[0]
    stored = inner.get(name)
    put(inner, name.replace("pixel", "header"), stored)
    assert [key for key, _ in sealed(inner).list("")] == [by_digest("pixel", b"x")]


def test_segments_of_two_generations_of_an_object_are_not_mixed() -> None:
    inner, key, name, data = _two_segments()
    first = inner.get(name)
    sealed(inner).delete(key)
    put(sealed(inner), key, data)
    second = inner.get(name)
    overwrite(inner, name, first[:STORED_SEGMENT] + second[STORED_SEGMENT:])
    _refused(inner, key, "another object")


def test_every_changed_bit_around_the_ciphertext_is_refused() -> None:
    inner, key, name, data = _two_segments()
    stored = inner.get(name)
    second = STORED_SEGMENT
    places = [*range(40), *range(second - 16, second + 40), *range(len(stored) - 16, len(stored))]
    for bit in (8 * place + shift for place in places for shift in range(8)):
        overwrite(inner, name, flipped(stored, bit))
        with pytest.raises(ObjectDamaged):
            sealed(inner).get(key)
    overwrite(inner, name, stored)
    assert sealed(inner).get(key) == data


def test_what_a_newer_version_wrote_is_refused_with_advice() -> None:
    inner, key, name, _ = _two_segments()
    stored = bytearray(inner.get(name))
    stored[4] = 2
    overwrite(inner, name, bytes(stored))
    _refused(inner, key, "format version 2 is newer than 1; upgrade dicomfs")


def test_a_length_that_can_not_be_is_refused_without_taking_memory() -> None:
    inner, key, name, _ = _two_segments()
    stored = inner.get(name)
    overwrite(inner, name, stored[:20] + b"\xff" * 8 + stored[28:])
    _refused(inner, key, "impossible")
    overwrite(inner, name, stored[:20] + (1 << 55).to_bytes(8, "little") + stored[28:])
    _refused(inner, key)


# Putting


def test_what_is_there_and_the_same_is_accepted_again_from_another_process() -> None:
    inner, key, name, data = _two_segments()
    stored = inner.get(name)
    put(sealed(inner), key, data)
    assert inner.get(name) == stored


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: flipped(data, 4000), lambda _: b""])
def test_a_damaged_object_in_the_way_is_told_as_such_and_can_be_replaced(
    spoil: Callable[[bytes], bytes],
) -> None:
    inner, key, name, data = _two_segments()
    overwrite(inner, name, spoil(inner.get(name)))
    tier = sealed(inner)
    with pytest.raises(ObjectExists, match="can't be read") as caught:
        put(tier, key, data)
    assert isinstance(caught.value.__cause__, ObjectDamaged)
    tier.delete(key)
    put(tier, key, data)
    assert tier.get(key) == data


def test_an_object_of_other_bytes_in_the_way_has_no_cause() -> None:
    inner = MemoryTier()
    key = put(sealed(inner), "journal/0000000000000001", b"x")
    with pytest.raises(ObjectExists) as caught:
        put(sealed(inner), key, b"y")
    assert caught.value.__cause__ is None
    assert sealed(inner).get(key) == b"x"


def test_a_failure_of_the_tier_while_comparing_is_not_taken_for_damage() -> None:
    inner, key, _, data = _two_segments()
    faulty = FaultyTier(inner)
    tier = sealed(faulty)
    tier.get(key)

    class Failing(TierWrapper):
        def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
            raise TransientTierError("memory", key, "timeout")

    tier._inner = Failing(inner)
    with pytest.raises(TransientTierError):
        put(tier, key, data)


def test_a_source_that_grows_or_shrinks_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, data = tmp_path / "source", os.urandom(9 << 20)
    source.write_bytes(data)
    inner = MemoryTier()
    real = os.fstat

    def fewer(descriptor: int) -> os.stat_result:
        found = list(real(descriptor))
        found[6] -= 1
        return os.stat_result(found)

    monkeypatch.setattr("dicomfs.tiers.sealed.os.fstat", fewer)
    with pytest.raises(TierError, match="does not match"):
        sealed(inner).put(by_digest("opaque", data), source, hashlib.sha256(data).hexdigest())
    assert names(inner) == []


@pytest.mark.parametrize("size", [0, 1000, 9_000_001])
@pytest.mark.parametrize("unnamed", [True, False])
def test_plain_bytes_are_never_in_a_file(
    size: int, unnamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not unnamed:
        monkeypatch.setattr("dicomfs.tiers.sealed.os.O_TMPFILE", os.O_DIRECTORY)
    scratch, folder, source = tmp_path / "scratch", tmp_path / "tier", tmp_path / "source"
    scratch.mkdir()
    folder.mkdir()
    data = (SECRET * (size // len(SECRET) + 1))[:size]
    source.write_bytes(data)
    key = by_digest("opaque", data)
    seen: list[Path] = []

    class Looking(TierWrapper):
        def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
            if isinstance(source, Path):
                seen.append(source)
                assert SECRET[:8] not in source.read_bytes()
            self._look()
            super().put(key, source, sha256)
            self._look()

        def _look(self) -> None:
            for path in (*scratch.iterdir(), *(path for path in folder.rglob("*") if path.is_file())):
                assert SECRET[:8] not in path.read_bytes()
                assert path.stat().st_mode & 0o077 == 0

    inner = Looking(FolderTier("laboratory", folder))
    tier = SealedTier(inner, ARCHIVE_ID, [OLD], scratch)
    tier.put(key, source, hashlib.sha256(data).hexdigest())
    inner._look()
    assert tier.get(key) == data
    assert source.read_bytes() == data
    assert [path.parent == scratch for path in seen] == ([not unnamed] if size > 8 << 20 else [])
    assert list(scratch.iterdir()) == []
    other = by_digest("opaque", b"other")
    with pytest.raises(TierError):
        tier.put(other, source, other.rpartition("/")[2])
    with pytest.raises(KeyMissing):
        SealedTier(inner, ARCHIVE_ID, [NEW], scratch).put(other, source, other.rpartition("/")[2])
    with pytest.raises(KeyMissing):
        SealedTier(inner, ARCHIVE_ID, [NEW], scratch).get(key)
    assert list(scratch.iterdir()) == []
    inner._look()


# Sizes


def test_sizes_are_worked_out_without_reading() -> None:
    for size in (0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES):
        metered = MeteredTier(MemoryTier())
        key = put(sealed(metered), by_digest("pixel", bytes(size)), bytes(size))
        tier = sealed(metered)
        assert tier.stat(key).size == size
        assert metered.stat(names(metered)[0]).size == stored_size(size)
        assert [stat.size for _, stat in tier.list("pixel")] == [size]


def test_an_absent_object_is_told_by_the_key_asked_for() -> None:
    inner, *_ = _two_segments()
    key = by_digest("pixel", b"absent")
    tier = sealed(inner)
    for call in (
        lambda: tier.get(key),
        lambda: tier.stat(key),
        lambda: tier.open_local(key),
        lambda: tier.get_range(key, ByteRange(0, 10)),
        lambda: tier.get_range(key, ByteRange(1 << 20, 10)),
    ):
        with pytest.raises(ObjectNotFound, match=key):
            call()


def test_a_whole_copy_of_a_tier_is_as_good() -> None:
    inner, key, _, data = _two_segments()
    assert sealed(copied(inner)).get(key) == data
