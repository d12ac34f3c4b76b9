"""Frames that are there already: found by fingerprint, compared byte by byte, referred to instead of stored.

Owns which frames of a batch become references: to a pack of any study, of the same kind, or to an equal frame
of the same batch; and where texts that headers share are found.
A header pack lists every pack its instances need, in the transaction that commits it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dicomfs.codec.base import FROM_DISK
from dicomfs.errors import DicomfsError
from dicomfs.format.pack import PackReader
from dicomfs.format.pack_notes import StoodFor
from dicomfs.format.text_pack import read_text
from dicomfs.frames import FrameReader
from dicomfs.index.catalog import Catalog
from dicomfs.index.frames import FrameIndex, sampled
from dicomfs.model import FRAME_KINDS, ObjectKey, PackKind, is_text_pack
from dicomfs.packing.coded import frame_of
from dicomfs.packing.fingerprint import stack_fingerprints
from dicomfs.packing.plan import BatchPlan, FrameRef, Link, StackPlan
from dicomfs.packing.run import PackRun
from dicomfs.packing.seal import Staging
from dicomfs.packing.spooled import SpooledRanges
from dicomfs.packing.texts import BatchTexts, text_fingerprints
from dicomfs.packs import PackSource
from dicomfs.tiers.base import Tier

logger = logging.getLogger(__name__)

_CACHE_BYTES = 64 << 20
_MOST_PACKS = 8
"""Packs that the frames of one stack are looked for in."""
_KINDS = {*FRAME_KINDS, PackKind.TEXT}


@dataclass(frozen=True, slots=True)
class _Known:
    """The frames of a pack, by bytes of a frame and fingerprint."""

    key: ObjectKey
    """Its oldest name: whatever takes its place, and every twin, is read by that one."""
    index_digest: int
    places: dict[tuple[int, int], tuple[int, int]]


class Linker:
    """Finds frames of batches in the packs of an archive."""

    def __init__(self, folder: Path, catalog: Catalog, tier: Tier) -> None:
        """``folder`` is that of the `FrameIndex`."""
        self._folder, self._catalog, self._tier = folder, catalog, tier
        self._opened: FrameIndex | None = None
        self._passed_over: frozenset[ObjectKey] = frozenset()

    @contextlib.contextmanager
    def without(self, keys: Iterable[ObjectKey]) -> Iterator[None]:
        """Refer to none of these packs meanwhile either: they are about to go."""
        before = self._passed_over
        self._passed_over = before.union(keys)
        try:
            yield
        finally:
            self._passed_over = before

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Open the index for as long as a run lasts; all other methods need it."""
        self._opened = FrameIndex(self._folder)
        try:
            yield
        finally:
            self._opened.close()
            self._opened = None

    @property
    def _index(self) -> FrameIndex:
        assert self._opened is not None
        return self._opened

    def catch_up(self) -> None:
        """List packs that the index does not know: after a recovery, or where it was deleted."""
        listed = self._index.packs()
        for record in self._catalog.objects():
            if record.key not in listed and record.twin_of is None:
                self.add(record.key)

    def add(self, key: ObjectKey) -> None:
        """List a pack that is placed; one that cannot be read is left for the next time."""
        if _kind(key) not in _KINDS:
            return
        try:
            self._index.add(key, _listed(PackSource(self._tier).pack(key)))
        except DicomfsError as problem:
            logger.warning("contents not listed", extra={"object": key, "reason": str(problem)})

    def texts(self, staging: Staging) -> BatchTexts:
        """What chooses the texts that headers of a batch share."""
        return BatchTexts(self._find_texts, PackSource(self._tier, self._catalog.placed), staging)

    def _find_texts(self, wanted: set[int]) -> list[ObjectKey]:
        return [
            key
            for key in self._index.find(wanted)
            if is_text_pack(key) and key not in self._passed_over and self._catalog.has_object(key)
        ]

    def link(self, plan: BatchPlan, run: PackRun) -> None:
        """Take the frames of a batch that need not be stored out of its stacks.

        Raises:
            UnreadableFile: the disk does not give back what was accepted.
            Stopped: somebody asked to stop.
        """
        link_equals(plan, run)
        source = PackSource(self._tier, self._catalog.placed)
        known: dict[ObjectKey, _Known | None] = {}
        with contextlib.closing(FrameReader(source, _CACHE_BYTES)) as frames:
            self._link_stacks(plan, run, source, frames, known)
        plan.keep_unlinked()

    def _link_stacks(
        self,
        plan: BatchPlan,
        run: PackRun,
        source: PackSource,
        frames: FrameReader,
        known: dict[ObjectKey, _Known | None],
    ) -> None:
        for stack in plan.stacks:
            cuts = zip(*(frame.fingerprints for frame in stack.frames if frame.fingerprints), strict=True)
            wanted = set().union(*map(sampled, cuts))
            candidates = [key for key in self._index.find(wanted) if key not in self._passed_over]
            for key in candidates[:_MOST_PACKS]:
                run.check()
                found = self._catalog.find_object(key) if _kind(key) is stack.kind else None
                if found is None or found.twin_of is not None:
                    continue
                if key not in known:
                    known[key] = _known(source, key)
                pack = known[key]
                # A pack that nobody needs any more may have lost its first name already.
                if pack is not None and self._catalog.placed(pack.key) == key:
                    _link_stack(plan, stack, pack, frames)


def _listed(pack: PackReader) -> set[int]:
    """The fingerprints under which a pack is found again."""
    if pack.kind is PackKind.TEXT:
        return text_fingerprints(read_text(pack))
    chosen: set[int] = set()
    for stack in pack.stacks:
        chosen |= sampled([int(one) for one in stack_fingerprints(stack)])
    return chosen


def _kind(key: ObjectKey) -> PackKind | None:
    return next((kind for kind in PackKind if key.startswith(kind.prefix + "/")), None)


def _known(source: PackSource, key: ObjectKey) -> _Known | None:
    """The frames of a pack; None where it cannot be read."""
    try:
        pack = source.pack(key)
    except DicomfsError:
        return None
    if pack.index_digest is None:
        return None
    oldest = (*pack.packing.stands_for, StoodFor.of(key, pack.index_digest))[0]
    return _Known(oldest.key, int.from_bytes(oldest.index_digest, "little"), dict(_places(pack)))


def _places(pack: PackReader) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for number, stack in enumerate(pack.stacks):
        if any(segment.codec not in FROM_DISK for segment in stack.segments):
            continue
        for frame, one in enumerate(stack_fingerprints(stack).tolist()):
            yield (stack.layout.frame_bytes, one), (number, frame)


def link_equals(plan: BatchPlan, run: PackRun) -> None:
    """Frames of the batch that equal an earlier one."""
    first: dict[tuple[PackKind, int, int], FrameRef] = {}
    for stack in plan.stacks:
        for frame in stack.frames:
            if not frame.fingerprints:
                continue
            name = (stack.kind, stack.layout.frame_bytes, frame.fingerprints[0])
            earlier = first.setdefault(name, frame)
            if earlier is frame:
                continue
            run.check()
            if _raw(plan, earlier) == _raw(plan, frame):
                plan.links[frame.instance, frame.number] = (earlier.instance, earlier.number)


def _link_stack(plan: BatchPlan, stack: StackPlan, pack: _Known, frames: FrameReader) -> None:
    found = []
    for frame in stack.frames:
        names = ((stack.layout.frame_bytes, one) for one in frame.fingerprints)
        at = next((pack.places[name] for name in names if name in pack.places), None)
        if at is not None and (frame.instance, frame.number) not in plan.links:
            found.append((at, frame))
    # As they are stored: each segment is decoded once.
    for (number, place), frame in sorted(found, key=lambda one: one[0]):
        link = Link(pack.key, pack.index_digest, number, place)
        try:
            same = _stored(frames, link, stack.layout.frame_bytes) == _raw(plan, frame)
        except DicomfsError as problem:
            logger.warning("frames not referred to", extra={"object": pack.key, "reason": str(problem)})
            return
        if same:
            plan.links[frame.instance, frame.number] = link


def _stored(frames: FrameReader, link: Link, size: int) -> bytes:
    slices = frames.slices(link.key, link.stack, link.frame, 0, size)
    return b"".join(frames.fetch(wanted.unit)[wanted.start : wanted.stop] for wanted in slices)


def _raw(plan: BatchPlan, frame: FrameRef) -> bytes:
    instance = plan.instances[frame.instance]
    assert instance.split.layout is not None
    with SpooledRanges(instance.path) as file:
        if frame.codestream is not None:
            return frame_of(file, frame.codestream, instance.split.layout)
        return file.read(frame.offset, instance.split.layout.frame_bytes)
