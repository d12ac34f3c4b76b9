"""Sealed tiers: every range is the slice; whatever is changed beneath is refused, never served."""

from __future__ import annotations

import functools
import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.crypto.keyring import new_keyring, new_name_key, unwrapped
from dicomfs.crypto.keys import ArchiveKey, from_text, to_text
from dicomfs.crypto.names import NameCipher
from dicomfs.crypto.segments import SEGMENT_BYTES, STORED_SEGMENT, KeyReference, Sealer, opened
from dicomfs.errors import FormatError, ObjectNotFound, TierError, UsageError
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange
from dicomfs.tiers.memory import MemoryTier
from tests.sealed_tiers import by_digest, copied, flipped, names, overwrite, put, sealed

SIZES = (0, 1, 100, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES, 200_000)
NEAR = st.one_of(
    st.integers(0, 210_000),
    st.sampled_from([0, SEGMENT_BYTES, 2 * SEGMENT_BYTES, 200_000]).flatmap(
        lambda edge: st.integers(max(0, edge - 2), edge + 2)
    ),
)


def content(size: int) -> bytes:
    return hashlib.shake_256(b"content").digest(size)


@functools.cache
def tier_of_objects() -> MemoryTier:
    inner = MemoryTier()
    for size in SIZES:
        put(sealed(inner), by_digest("pixel", content(size)), content(size))
    return inner


@given(st.sampled_from(SIZES), NEAR, NEAR)
def test_any_range_is_the_slice(size: int, offset: int, length: int) -> None:
    data = content(size)
    found = sealed(tier_of_objects()).get_range(by_digest("pixel", data), ByteRange(offset, length))
    assert found == data[offset : offset + length]


@settings(deadline=None)
@given(st.data())
def test_any_change_beneath_is_refused_or_does_not_matter(data: st.DataObject) -> None:
    """Bits, lengths, exchanged objects and pieces: a read gives the true bytes or an error."""
    inner = copied(tier_of_objects())
    name = data.draw(st.sampled_from([*names(inner), *names(inner, keyrings=True)]))
    stored = inner.get(name)
    change = data.draw(st.sampled_from(["bit", "cut", "more", "other", "piece", "gone"]))
    if change == "bit":
        overwrite(inner, name, flipped(stored, data.draw(st.integers(0, 8 * len(stored) - 1))))
    elif change == "cut":
        overwrite(inner, name, stored[: data.draw(st.integers(0, len(stored) - 1))])
    elif change == "more":
        overwrite(inner, name, stored + data.draw(st.binary(min_size=1, max_size=100)))
    elif change == "other":
        other = data.draw(st.sampled_from([*names(inner), *names(inner, keyrings=True)]))
        overwrite(inner, name, inner.get(other))
    elif change == "piece":
        source = inner.get(data.draw(st.sampled_from(names(inner))))
        one, two = (
            STORED_SEGMENT * data.draw(st.integers(0, 3)),
            STORED_SEGMENT * data.draw(st.integers(0, 3)),
        )
        overwrite(
            inner, name, stored[:one] + source[two : two + STORED_SEGMENT] + stored[one + STORED_SEGMENT :]
        )
    else:
        inner.delete(name)
    tier = sealed(inner)
    for size in SIZES:
        key, expected = by_digest("pixel", content(size)), content(size)
        offset, length = data.draw(NEAR), data.draw(NEAR)
        for wanted in (None, ByteRange(offset, length), ByteRange(0, 1), ByteRange(max(0, size - 1), 1)):
            try:
                found = tier.get(key) if wanted is None else tier.get_range(key, wanted)
            except TierError:
                continue
            assert found == (
                expected if wanted is None else expected[wanted.offset : wanted.offset + wanted.length]
            )


@given(st.integers(0, 8 * (STORED_SEGMENT + 57) - 1))
def test_any_changed_bit_of_an_object_is_refused(bit: int) -> None:
    data = content(SEGMENT_BYTES + 1)
    inner = MemoryTier()
    key = put(sealed(inner), by_digest("pixel", data), data)
    name = names(inner)[0]
    overwrite(inner, name, flipped(inner.get(name), bit))
    try:
        sealed(inner).get(key)
    except ObjectNotFound:
        raise
    except TierError:
        return
    raise AssertionError("served")


COMPONENT = st.text("abz09_-.", min_size=1, max_size=9).filter(lambda text: text[0] != ".")


@given(st.lists(COMPONENT, min_size=1, max_size=6), st.binary(min_size=64, max_size=64))
def test_any_key_comes_back_from_its_name(components: list[str], name_key: bytes) -> None:
    key = ObjectKey("/".join(components))
    cipher = NameCipher(name_key)
    assert cipher.logical(cipher.stored(key)) == key


def with_head(head: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that begin right, up to some place."""
    return st.tuples(st.integers(0, len(head)), st.binary(max_size=300)).map(lambda it: head[: it[0]] + it[1])


OBJECT = ObjectKey("pixel/00/name")
HEAD = Sealer(bytes(32), KeyReference(1, 0), OBJECT, 9).seal(memoryview(b"123456789"))
RING = new_keyring(1, bytes(16), ArchiveKey(bytes(32)), new_name_key(), 1)


@given(with_head(HEAD), st.integers(0, 1 << 40))
def test_any_bytes_are_refused_as_an_object(data: bytes, first: int) -> None:
    try:
        run = opened(data, OBJECT, first, lambda _: bytes(32))
    except FormatError:
        return
    assert (data, run.plain) == (HEAD, b"123456789")


@given(with_head(RING.wrapped(ArchiveKey(bytes(32)))))
def test_any_bytes_are_refused_as_a_keyring(data: bytes) -> None:
    try:
        assert unwrapped(data, RING.object_key, ArchiveKey(bytes(32))) == RING
    except FormatError:
        return


@given(st.text(max_size=300))
def test_any_text_is_a_name_of_this_tier_or_ignored(text: str) -> None:
    cipher = NameCipher(bytes(range(64)))
    key = cipher.logical(text)
    assert key is None or cipher.stored(key) == text


@given(st.binary(min_size=32, max_size=32))
def test_any_key_comes_back_from_its_text(secret: bytes) -> None:
    assert from_text(to_text(ArchiveKey(secret)), "here").secret == secret


@given(st.text())
def test_any_text_is_a_key_or_a_usage_error(text: str) -> None:
    try:
        key = from_text(text, "here")
    except UsageError:
        return
    assert len(key.secret) == 32
