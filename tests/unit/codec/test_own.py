"""The door to the kernel in C: buffers, bounds and errors."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.codec import own
from dicomfs.codec.base import CodecId, Planes, Settings
from dicomfs.codec.kernel.build import declarations
from dicomfs.codec.own import Dense, Fast
from dicomfs.codec.registry import codec
from dicomfs.errors import CodecError, CodecUnavailable

BOTH = pytest.mark.parametrize("one", [Fast(), Dense()], ids=["fast", "dense"])


def planes(frames: int = 6, rows: int = 40, columns: int = 50) -> Planes:
    """Return three scenes that have nothing in common, by turns."""
    rng = np.random.default_rng(4)
    scenes = np.cumsum(rng.integers(-30, 31, (3, rows, columns)), axis=2) + 2048
    shown = scenes[np.arange(frames) % 3] + rng.integers(0, 3, (frames, rows, columns))
    clipped: Planes = np.clip(shown, 0, 4095).astype(np.uint16)
    return clipped


@BOTH
def test_frames_come_one_by_one_and_only_those_that_are_wanted(one: Fast | Dense) -> None:
    wanted = planes()
    payload = memoryview(one.encode(wanted, 12, Settings(3)))
    found = one.decode(payload, wanted.shape, wanted.dtype, 12, [4, 1])
    number, first = next(found)
    assert number == 1
    assert np.array_equal(first, wanted[1])
    assert [number for number, _ in found] == [4]


@BOTH
def test_decoders_of_one_thread_take_turns(one: Fast | Dense) -> None:
    shown = [planes(), planes(5, 30, 70)[:, ::-1]]
    payloads = [memoryview(one.encode(some, 12, Settings(3))) for some in shown]
    runs = [
        one.decode(payload, some.shape, some.dtype, 12, range(len(some)))
        for payload, some in zip(payloads, shown, strict=True)
    ]
    for number in range(5):
        for some, run in zip(shown, runs, strict=True):
            index, frame = next(run)
            assert index == number
            assert np.array_equal(frame, some[number])
            assert one.encode(some, 12, Settings(3))


@BOTH
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("effort", [1, 3])
def test_what_memory_held_before_does_not_matter(one: Fast | Dense, level: int, effort: int) -> None:
    shown, settings, streams = planes(), Settings(effort, level, (1, 3)), set()
    for filling in (0x00, 0xFF, 0xA5):
        block = np.full(64 << 20, filling, np.uint8)
        own._kept.give(block)
        streams.add(one.encode(shown, 12, settings))
        (stream,) = streams
        assert own._kept._blocks[-1] is block
        block[:] = filling
        found = dict(one.decode(memoryview(stream), shown.shape, shown.dtype, 12, range(6)))
        assert all(np.array_equal(found[index], frame) for index, frame in enumerate(shown))


@BOTH
def test_references_reach_the_encoder(one: Fast | Dense) -> None:
    near, apart = (len(one.encode(planes(), 12, Settings(3, 0, distances))) for distances in ((1,), (3,)))
    assert apart < 0.9 * near


def test_the_archive_level_reaches_the_dense_encoder_and_no_other() -> None:
    levels = [Settings(5, level) for level in (0, 1)]
    fast = {Fast().encode(planes(), 12, settings) for settings in levels}
    dense = {Dense().encode(planes(), 12, settings) for settings in levels}
    assert (len(fast), len(dense)) == (1, 2)


@BOTH
def test_arrays_that_are_not_contiguous_are_coded_as_they_look(one: Fast | Dense) -> None:
    strided = planes()[::2, ::-1]
    payload = memoryview(one.encode(strided, 12, Settings(3)))
    found = dict(one.decode(payload, strided.shape, strided.dtype, 12, range(3)))
    assert all(np.array_equal(found[index], frame) for index, frame in enumerate(strided))


@BOTH
def test_colour_and_samples_beyond_their_depth_are_refused(one: Fast | Dense) -> None:
    colour = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(CodecError):
        one.encode(colour, 8, Settings())
    with pytest.raises(CodecError):
        one.encode(planes(), 17, Settings())
    with pytest.raises(CodecError):
        list(one.decode(memoryview(b"1234"), colour.shape, np.dtype(np.uint8), 8, [0]))


@BOTH
def test_samples_above_the_depth_that_was_told_never_reach_the_kernel(one: Fast | Dense) -> None:
    with pytest.raises(CodecError, match="beyond 9 bits"):
        one.encode(planes(), 9, Settings(3))


@BOTH
def test_memory_is_bounded(one: Fast | Dense, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = one.encode(planes(), 12, Settings(3))
    monkeypatch.setattr(own, "_MOST_MEMORY", 1000)
    with pytest.raises(CodecError, match="bytes of memory"):
        one.encode(planes(), 12, Settings(3))
    with pytest.raises(CodecError, match="bytes of memory"):
        list(one.decode(memoryview(payload), planes().shape, np.dtype(np.uint16), 12, [0]))


@BOTH
def test_a_stack_too_large_for_any_stream_is_refused_before_memory_is_taken(one: Fast | Dense) -> None:
    payload = memoryview(one.encode(planes(), 12, Settings(3)))
    for shape in ((1, 0x10000, 1), (0x10000, 1, 1), (0xFFFF, 0xFFFF, 0xFFFF)):
        with pytest.raises(CodecError):
            list(one.decode(payload, shape, np.dtype(np.uint16), 12, [0]))


def test_without_the_kernel_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_MISSING", "the kernel was not built: no module")
    with pytest.raises(CodecUnavailable, match="not built"):
        codec(CodecId.DENSE)


def test_the_header_is_told_to_cffi_without_comments_and_preprocessor() -> None:
    guard = "#ifndef A\n#define A\n#include <x.h>\n"
    text = f"/* one\ntwo */\n{guard}#define SIZE 3\nint f(int *a); /* b */\n#endif\n"
    assert [line.strip() for line in declarations(text).splitlines() if line.strip()] == [
        "#define SIZE 3",
        "int f(int *a);",
    ]


def test_frames_before_a_damaged_one_come_though_many_are_decoded_in_one_call() -> None:
    """Dense: a stream that is cut tells so at the frame that it lacks, fast may tell at the first."""
    wanted = planes(40, 20, 25)
    payload = Dense().encode(wanted, 12, Settings(3))
    cut = memoryview(payload[: len(payload) // 2])
    came: list[Planes] = []

    def decode() -> None:
        came.extend(frame for _, frame in Dense().decode(cut, wanted.shape, wanted.dtype, 12, range(40)))

    with pytest.raises(CodecError, match="damaged"):
        decode()
    assert 5 < len(came) < 35
    assert all(np.array_equal(frame, wanted[number]) for number, frame in enumerate(came))


@given(
    st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 16),
    st.integers(0, 15), st.integers(0, 0xFFFF), st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from([np.uint8, np.uint16]),
)  # fmt: skip
def test_samples_become_the_words_that_the_format_says(
    fold_at: int,
    fold_size: int,
    offset: int,
    width: int,
    shift: int,
    fixed: int,
    sample: type[np.uint8] | type[np.uint16],
    word: type[np.uint8] | type[np.uint16],
) -> None:
    samples: Planes = np.arange(0, np.iinfo(sample).max + 1, 1 if sample is np.uint8 else 37).astype(sample)
    mask = (1 << width) - 1
    expected = [
        ((one + (fold_size if one >= fold_at else 0) + offset & mask) << shift | fixed) & 0xFFFF
        for one in samples.tolist()
    ]
    found = own.to_words(samples, (fold_at, fold_size, offset, mask, shift, fixed), np.dtype(word))
    assert np.frombuffer(found, word).tolist() == [one & np.iinfo(word).max for one in expected]


@BOTH
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 40)), st.integers(1, 16),
    st.tuples(*[st.integers(0, 0xFFFF)] * 4, st.integers(0, 15), st.integers(0, 0xFFFF)),
    st.sampled_from([np.uint8, np.uint16]), st.sampled_from([0, 1, 30]), st.sampled_from([1, 5]),
)  # fmt: skip
def test_streams_decode_to_the_words_that_their_samples_stand_for(
    one: Fast | Dense,
    shape: tuple[int, int, int],
    bits: int,
    field: own.Field,
    word: type[np.uint8] | type[np.uint16],
    spread: int,
    step: int,
) -> None:
    chance = np.random.default_rng(sum(shape) + bits)
    samples: Planes = (chance.integers(0, spread + 1, shape) * step % (1 << bits)).astype(np.uint16)
    samples = samples.astype(np.uint8) if bits <= 8 else samples
    payload = memoryview(one.encode(samples, bits, Settings(1)))
    every = range(len(samples))
    found = one.decode_words(payload, samples.shape, samples.dtype, bits, every, field, np.dtype(word))
    assert b"".join(words for _, words in found) == own.to_words(samples, field, np.dtype(word))
    assert all(
        np.array_equal(frame, samples[index])
        for index, frame in one.decode(payload, samples.shape, samples.dtype, bits, every)
    )


def test_memory_is_kept_for_each_processor_and_used_again() -> None:
    kept = own._Kept()
    most = len(os.sched_getaffinity(0))
    blocks = [kept.take(size) for size in range(100, 100 + most + 1)]
    for block in blocks:
        kept.give(block)
    assert [block.size for block in kept._blocks] == [block.size for block in blocks[1:]]
    assert kept.take(blocks[1].size) is blocks[-1]
    assert kept.take(1000).size == 1000
    kept.give(np.empty(own._MOST_KEPT + 1, np.uint8))
    assert len(kept._blocks) == most - 1


def test_decoders_that_are_collected_as_garbage_give_their_memory_back_at_any_time() -> None:
    one = Fast()
    payload = memoryview(one.encode(planes(), 12, Settings(1)))
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(300):
            circle: list[object] = [one.decode(payload, planes().shape, np.dtype(np.uint16), 12, range(6))]
            next(circle[0])  # type: ignore[call-overload]
            circle.append(circle)
            own._kept.give(own._kept.take(100))
    finally:
        gc.set_threshold(*thresholds)


def test_frames_before_a_damaged_one_come_as_words_and_nothing_behind_them() -> None:
    wanted = planes(40, 20, 25)
    payload = Dense().encode(wanted, 12, Settings(3))
    cut = memoryview(payload[: len(payload) // 2])
    came: list[bytes] = []
    as_they_are, word = (0, 0, 0, 0xFFFF, 0, 0), np.dtype(np.uint16)

    def decode() -> None:
        found = Dense().decode_words(cut, wanted.shape, wanted.dtype, 12, range(40), as_they_are, word)
        came.extend(words for _, words in found)

    with pytest.raises(CodecError, match="damaged"):
        decode()
    decoded = b"".join(came)
    assert 5 < len(decoded) / wanted[0].nbytes < 35
    assert wanted.tobytes().startswith(decoded)


def test_words_need_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_MISSING", "the kernel was not built: gone")
    with pytest.raises(CodecError, match="was not built"):
        own.to_words(np.zeros(3, np.uint8), (0, 0, 0, 0, 0, 0), np.dtype(np.uint8))


def test_the_dense_encoder_knows_spikes_and_gaps_by_their_counts() -> None:
    chance = np.random.default_rng(7)
    walk = np.cumsum(chance.integers(-2, 3, (1, 96, 96)), axis=2)
    smooth = (walk - walk.min()).astype(np.uint16)
    spiked = np.where(chance.random(smooth.shape) < 0.2, 0, smooth).astype(np.uint16)
    parted = np.where(np.arange(96) < 30, smooth, smooth + 2000).astype(np.uint16)
    sparse = chance.exponential(900, (1, 96, 96)).astype(np.uint16)

    def flags(samples: Planes) -> int:
        return Dense().encode(samples, 16, Settings(5))[1]

    assert [flags(one) >> 4 & 3 for one in (smooth, spiked)] == [0, 1]
    assert [flags(one) & 64 for one in (smooth, parted, sparse)] == [0, 64, 0]
