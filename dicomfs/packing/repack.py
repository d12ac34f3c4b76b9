"""One pack of frames coded anew: what would gain, the new pack in staging, and the proof that it is exact.

Owns when a stack is coded anew and when its segments are copied as they are.  Compares by `repack_check`;
places and deletes nothing (`dicomfs.repacker`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from dicomfs.codec.base import CodecId, Profile, Settings, at_level
from dicomfs.codec.candidates import Candidate
from dicomfs.codec.trial import Trial, choose, sample_runs
from dicomfs.errors import DamagedError
from dicomfs.format.pack import PackReader, PackWriter
from dicomfs.format.pack_index import StackIndex
from dicomfs.format.pack_notes import StoodFor
from dicomfs.frames import FrameReader, codec_of
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.model import ObjectKey
from dicomfs.packing.repack_check import compare, users_of
from dicomfs.packing.run import PackRun
from dicomfs.packing.seal import Staged, Staging
from dicomfs.packing.segments import AS_NAMED, Raw, SegmentWriter, decision_of, level_noted
from dicomfs.packs import PackSource
from dicomfs.tiers.base import Tier

LEAST_GAIN = 0.02
"""Share by which a stack has to shrink to be worth coding anew, and reading more slowly."""
_LEAST_HALVINGS = 0.5
"""How much faster, in powers of two, a stack has to be read for the fast profile."""
_CACHE_BYTES = 96 << 20
_Coding = tuple[CodecId, int]
"""A codec and its level."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pack, and why."""

    key: ObjectKey
    series: tuple[int, ...]
    """Series with frames in it."""
    profile: str
    """The one it had before; empty where it was not noted."""
    moved: bool
    reason: str
    before: int
    """Bytes of the pack."""
    after: int
    """Bytes of the new one; the same as before where it was not moved."""


@dataclass(frozen=True, slots=True)
class Repacked:
    """A new pack in staging that was compared."""

    staged: Staged
    stands_for: tuple[StoodFor, ...]
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to do with one stack: the trial whose choice codes it anew, or None to copy it."""

    trial: Trial | None
    why: str


class PackMove:
    """Moves one pack to the profile of a run."""

    def __init__(
        self, record: ObjectRecord, catalog: Catalog, source: PackSource, tier: Tier, run: PackRun
    ) -> None:
        self._record, self._catalog, self._source, self._tier, self._run = record, catalog, source, tier, run
        self._pack = source.object(record.key)
        self._frames = FrameReader(source, _CACHE_BYTES)
        self._stands_for = _succession(record.key, self._pack)
        self._names = frozenset(other.key for other in self._stands_for)
        self._users = users_of(catalog, source, self._names)

    def make(self, staging: Staging) -> Repacked | Outcome:
        """The new pack, written, read back and compared; or why the old one stays.

        Raises:
            Stopped: somebody asked to stop.
            TierError, FormatError, MismatchError: the old pack cannot be read, or the new one not written.
            MismatchError: something does not come back from the new one.
        """
        wanted = self._run.profile
        if self._pack.packing.profile_name == wanted.value:
            return self._kept("has this profile")
        plans = [self._plan(number, stack) for number, stack in enumerate(self._pack.stacks)]
        if all(plan.trial is None for plan in plans):
            return self._kept(plans[0].why if plans else "is empty")
        staged = staging.write_pack(
            self._pack.kind, lambda writer: self._write(writer, plans), self._stands_for
        )
        after = staged.summary.size
        if wanted is not Profile.FAST and after > self._record.size * (1 - LEAST_GAIN / 2):
            gain = 100 * (1 - after / max(1, self._record.size))
            return self._kept(f"coded anew it gains {gain:.1f} % only")
        compare(staged, self._pack, self._names, self._users, self._catalog, self._tier, self._run)
        anew = [plan.why for plan in plans if plan.trial is not None]
        reason = f"{len(anew)} of {len(plans)} stacks coded anew: {anew[0]}"
        return Repacked(staged, self._stands_for, self._outcome(reason, after))

    def _kept(self, reason: str) -> Outcome:
        return self._outcome(reason, None)

    def _outcome(self, reason: str, after: int | None) -> Outcome:
        series = sorted({self._source.part(header, part).series.number for header, part in self._users})
        return Outcome(
            self._record.key,
            tuple(series),
            self._pack.packing.profile_name,
            after is not None,
            reason,
            self._record.size,
            self._record.size if after is None else after,
        )

    def _plan(self, number: int, stack: StackIndex) -> _Plan:
        """Whether coding a stack anew gains, by a trial on a sample of it."""
        self._run.check()
        stored = sum(segment.length for segment in stack.segments)
        references = stack.decision.references if stack.decision is not None else ()
        period = max((distance for distance in references if distance > 2), default=0)
        samples = [
            self._gather(number, run.start, len(run))
            for run in sample_runs(stack.frames, stack.layout, period)
        ]
        trial = choose(
            samples,
            stack.layout,
            self._run.profile,
            single=stack.frames == 1,
            frames=stack.frames,
            period=period,
        )
        before = {
            (codec_of(self._record.key, segment), level_noted(segment.params)) for segment in stack.segments
        }
        name = at_level(trial.codec.name.lower(), trial.settings.level)
        if self._run.profile is Profile.FAST:
            slowest = max(Candidate(codec, Settings(level=level)).halvings for codec, level in before)
            if slowest - Candidate(trial.codec, trial.settings).halvings < _LEAST_HALVINGS:
                return _Plan(None, f"{name} reads no faster than {_named(before)}")
            return _Plan(trial, f"{name} reads faster than {_named(before)}")
        gain = _gain(trial, before, stack, stored)
        if gain < LEAST_GAIN:
            return _Plan(None, f"{name} gains {100 * gain:.1f} % on {_named(before)}")
        return _Plan(trial, f"{name} gains about {100 * gain:.0f} % on {_named(before)}")

    def _gather(self, number: int, first: int, count: int) -> Raw:
        layout, key = self._pack.stacks[number].layout, self._record.key
        out = np.empty((count, layout.frame_bytes), np.uint8)
        for row in range(count):
            slices = self._frames.slices(key, number, first + row, 0, layout.frame_bytes)
            raw = b"".join(self._frames.fetch(one.unit)[one.start : one.stop] for one in slices)
            out[row] = np.frombuffer(raw, np.uint8)
        return out

    def _write(self, writer: PackWriter, plans: Sequence[_Plan]) -> None:
        segments = SegmentWriter(self._run, writer, lambda _: None)
        for number, (stack, plan) in enumerate(zip(self._pack.stacks, plans, strict=True)):
            if plan.trial is None:
                writer.add_stack(stack.layout, stack.frames, stack.decision)
                self._copy(writer, number, stack)
                continue
            order = AS_NAMED if stack.decision is None else stack.decision.order
            writer.add_stack(stack.layout, stack.frames, decision_of(plan.trial, order))

            def gather(first: int, count: int, number: int = number) -> Raw:
                return self._gather(number, first, count)

            segments.write(number, stack.layout, stack.frames, plan.trial, gather)

    def _copy(self, writer: PackWriter, number: int, stack: StackIndex) -> None:
        for segment in stack.segments:
            self._run.check()
            payloads = self._pack.read_segment(segment)
            bands = [
                (band.first_row, band.rows, payload)
                for band, payload in zip(segment.bands, payloads, strict=True)
            ]
            writer.add_segment(
                number,
                segment.first_frame,
                segment.frames,
                segment.codec,
                segment.params,
                bands,
                segment.digests,
            )


def _succession(key: ObjectKey, pack: PackReader) -> tuple[StoodFor, ...]:
    """What the successor of a pack stands for."""
    if pack.index_digest is None:
        raise DamagedError(key, "has no index of its own")
    return (*pack.packing.stands_for, StoodFor.of(key, pack.index_digest))


def _gain(trial: Trial, before: Collection[_Coding], stack: StackIndex, stored: int) -> float:
    """By what share the choice of a trial makes a stack smaller.

    On the sample, where the trial has the codec that the stack was coded with: what samples leave out, both
    leave out.
    """
    density = trial.chosen.bytes / max(1, trial.chosen.raw_bytes)
    rows = [row for row in trial.table if (row.codec, row.settings.level) in before]
    same = [row.bytes / max(1, row.raw_bytes) for row in rows]
    old = min(same) if same else stored / max(1, stack.frames * stack.layout.frame_bytes)
    return 1 - density / old if old else 0.0


def _named(codings: Collection[_Coding]) -> str:
    return "+".join(sorted(at_level(codec.name.lower(), level) for codec, level in codings))
