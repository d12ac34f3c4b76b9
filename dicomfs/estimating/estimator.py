"""Estimating a tree: series are measured until the sample is large enough, then each group is scaled up.

Owns which series are measured and in which order.  What one series takes, says `measuring`.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dicomfs import __version__
from dicomfs.codec.base import Profile
from dicomfs.errors import DicomfsError, NotTakenError
from dicomfs.estimating.headers import header_pack_bytes
from dicomfs.estimating.measuring import measure
from dicomfs.estimating.model import Estimate, FoundSeries, GroupEstimate, Measured
from dicomfs.estimating.survey import MOST_FILES, survey
from dicomfs.format.header import SeriesPart
from dicomfs.format.journal import CountersReserved, NodesMade, encode_journal
from dicomfs.packing.plan import BATCH_INSTANCES
from dicomfs.packing.run import PackRun, Stopped
from dicomfs.packing.spooled import UnreadableFile
from dicomfs.progress import Progress, SharedProgress

DEFAULT_SECONDS = 240.0
"""Processor time of measuring; every group gets one series, however long it takes."""
_UNKNOWN_SPREAD = 0.5
"""By how much, as a share, series of a group are taken to differ where one of them was measured."""
_SAMPLE_BYTES = 1 << 30
_HEADERS_TOGETHER = 32 << 20
"""Header bytes of small series that wait to be coded together."""


def estimate(
    sources: Sequence[Path],
    profile: Profile,
    reorder_bytes: int,
    progress: Progress,
    stop: threading.Event,
    *,
    seconds: float = DEFAULT_SECONDS,
    most_files: int = MOST_FILES,
) -> Estimate:
    """What an archive of the instances at and below ``sources`` would take, and how long packing would.

    Nothing is written.  ``seconds`` of processor time bound the measuring, so that the answer does not depend
    on what else the machine does; ``most_files`` bound the files that are opened.  Once
    ``stop`` is set the answer comes from what was measured so far.
    """
    found = survey(sources, progress, stop, most_files)
    groups: dict[tuple[str, str], _Group] = {}
    for series in found.series:
        groups.setdefault(series.group, _Group(*series.group)).series.append(series)
    workers = os.cpu_count() or 1
    deadline = time.process_time() + seconds
    progress.start(None, "measuring")
    seen: set[tuple[int, int, int]] = set()
    studies: dict[str, int] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="estimate") as pool:
        run = PackRun(pool, workers, profile, reorder_bytes, SharedProgress(progress), stop)
        for turn, (group, series) in enumerate(_turns(list(groups.values()))):
            late = turn >= len(groups) and time.process_time() > deadline
            if stop.is_set() or late:
                break
            study = studies.setdefault(series.described.study_uid, len(studies) + 1)
            try:
                group.add(series, measure(series, run, seen, (study, turn + 1)))
            except Stopped:
                break
            except DicomfsError as problem:
                # It would not be packed either; the others say what they take.
                path = problem.path if isinstance(problem, UnreadableFile) else series.files[0].path
                found.unreadable.append(NotTakenError(str(path), str(problem).split(": ", 1)[-1]))
    progress.done()
    done = [group.finish(found.scale) for group in groups.values()]
    done.sort(key=lambda one: -one.raw_bytes)
    return Estimate(profile.value, done, found, workers, stopped=stop.is_set())


@dataclass(slots=True)
class _Group:
    """Series of one modality and transfer syntax: all of them, and what was measured of some."""

    modality: str
    syntax: str
    series: list[FoundSeries] = field(default_factory=list)
    measured: int = 0
    raw: int = 0
    raw_pixels: int = 0
    instances: int = 0
    """Series, bytes, those of pixel values, and instances that were measured."""
    pixel: float = 0.0
    stream: float = 0.0
    header: float = 0.0
    cpu_s: float = 0.0
    sampled: int = 0
    codecs: Counter[str] = field(default_factory=Counter)
    waiting: list[tuple[SeriesPart, list[bytes]]] = field(default_factory=list)
    shares: list[tuple[int, float]] = field(default_factory=list)
    """Bytes of each measured series, and what its pixels and streams take."""

    def in_turn(self) -> list[FoundSeries]:
        """The series, study by study, in an order that has nothing to do with what they are."""
        return sorted(
            self.series,
            key=lambda one: (_rank(one.described.study_uid), _rank(one.described.series_uid)),
        )

    def add(self, series: FoundSeries, found: Measured) -> None:
        """Count a measured series."""
        self.measured += 1
        self.shares.append((series.size, found.pixel_bytes + found.stream_bytes))
        self.raw += series.size
        self.raw_pixels += series.pixel_size
        self.instances += len(series.files)
        self.pixel += found.pixel_bytes
        self.stream += found.stream_bytes
        self.header += found.more_header_bytes
        self.cpu_s += found.cpu_s
        self.sampled += found.sampled_bytes
        self.codecs.update(found.codecs)
        self.waiting.append((found.part, found.headers))
        rows = sum(len(headers) for _, headers in self.waiting)
        size = sum(map(len, (header for _, headers in self.waiting for header in headers)))
        if rows >= BATCH_INSTANCES or size >= _HEADERS_TOGETHER:
            self._code_headers()

    def _code_headers(self) -> None:
        """Code what waits as the packer would: small series share blocks."""
        if not self.waiting:
            return
        self.waiting.sort(key=lambda one: one[0].study.number)
        parts = [part for part, _ in self.waiting]
        nodes = NodesMade(
            tuple(part.patient for part in parts),
            tuple(part.study for part in parts),
            tuple(part.series for part in parts),
        )
        entries = (CountersReserved(1, 1, 1), nodes)
        journal = sum(len(encode_journal([one], 1, bytes(16), 0, __version__)) for one in entries)
        started = time.process_time()
        self.header += header_pack_bytes(self.waiting) + journal
        self.cpu_s += time.process_time() - started
        self.waiting.clear()

    def _deviation(self, scale: float) -> float:
        """Standard deviation of what is expected of the series that were not measured (ratio estimator)."""
        count, mean = len(self.shares), self.raw / max(1, len(self.shares))
        others = scale * sum(one.size for one in self.series) - self.raw
        if not count or not mean or others < 1:
            return 0.0
        stored = sum(one for _, one in self.shares)
        if count == 1:
            spread = (_UNKNOWN_SPREAD * stored) ** 2
        else:
            ratio = stored / self.raw
            spread = sum((one - ratio * raw) ** 2 for raw, one in self.shares) / (count - 1)
        # They differ from each other, and the ratio of those that were measured from that of all.
        return math.sqrt(spread * (others / mean + (others / mean) ** 2 / count))

    def finish(self, scale: float) -> GroupEstimate:
        """Scale up from what was measured to all series, and to ``scale`` times the bytes of those found."""
        self._code_headers()
        raw = sum(one.size for one in self.series)
        instances = sum(len(one.files) for one in self.series)
        by_bytes = scale * raw / self.raw if self.raw else 0.0
        # A group may hold series that are pixels and such that are headers above all.
        pixels = sum(one.pixel_size for one in self.series)
        by_pixels = scale * pixels / self.raw_pixels if self.raw_pixels else by_bytes
        by_instances = scale * instances / self.instances if self.instances else 0.0
        return GroupEstimate(
            self.modality,
            self.syntax,
            series=round(scale * len(self.series)),
            instances=round(scale * instances),
            raw_bytes=round(scale * raw),
            pixel_bytes=round(self.pixel * by_pixels),
            stream_bytes=round(self.stream * by_pixels),
            header_bytes=round(self.header * by_instances),
            cpu_s=self.cpu_s * by_bytes,
            sampled_bytes=self.sampled,
            sampled_series=self.measured,
            codecs=self.codecs,
            deviation=self._deviation(scale),
        )


def _rank(uid: str) -> bytes:
    return hashlib.sha256(uid.encode(errors="replace")).digest()


def _turns(groups: Sequence[_Group]) -> Iterator[tuple[_Group, FoundSeries]]:
    """One series of every group, the largest group first; then always of the group that is seen least."""
    waiting = {id(group): group.in_turn() for group in groups}
    ordered = sorted(groups, key=lambda one: -sum(series.size for series in one.series))
    for group in ordered:
        yield group, waiting[id(group)].pop(0)
    while True:
        left = [group for group in ordered if waiting[id(group)]]
        if not left or sum(group.sampled for group in ordered) > _SAMPLE_BYTES:
            return
        group = max(left, key=lambda one: sum(series.size for series in one.series) / (1 + one.raw) ** 2)
        yield group, waiting[id(group)].pop(0)
