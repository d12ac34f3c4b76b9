"""Writing opaque packs: byte runs as they are, and codestreams that transcode.

Owns what a transcoded codestream becomes.  Bytes are read when their turn comes; a few codestreams are
transcoded ahead, on the threads of the run.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from dicomfs.codec.bitstream.registry import piece_recipe
from dicomfs.codec.bitstream.transcode import transcode
from dicomfs.dicom.pixels import Run, RunKind
from dicomfs.errors import CodecError
from dicomfs.format.pack import PackWriter
from dicomfs.format.version import MAX_CHUNK
from dicomfs.packing.coded import Codestream
from dicomfs.packing.plan import BatchPlan, InstancePlan
from dicomfs.packing.run import PackRun
from dicomfs.packing.spooled import SpooledRanges

_WORTH = 64
"""Bytes that transcoding must gain: what the piece and its digest cost."""
_GATHERED = 1 << 18
"""Stored codestreams shorter than this share a chunk."""

Where = tuple[int, int]
"""Instance of the batch, run of its plan."""


@dataclass(frozen=True, slots=True)
class StreamPlace:
    """Where the bytes of a run are: as they are, or, with a recipe, transcoded."""

    stream: int
    offset: int
    stored: int
    recipe: bytes | None = None


@dataclass(slots=True)
class _Gathered:
    """Stored codestreams that wait to become one stream."""

    parts: list[tuple[Where, bytes, bytes | None]] = field(default_factory=list)
    size: int = 0


class StreamWriter:
    """Writes runs of one opaque pack."""

    def __init__(
        self, plan: BatchPlan, run: PackRun, writer: PackWriter, advance: Callable[[int], None]
    ) -> None:
        self._plan, self._run, self._writer, self._advance = plan, run, writer, advance
        self._places: dict[Where, StreamPlace] = {}
        self._gathered = _Gathered()

    def write(self, wheres: Sequence[Where]) -> dict[Where, StreamPlace]:
        """Write these runs; where each went.

        Raises:
            UnreadableFile: the disk does not give back what was accepted.
            Stopped: somebody asked to stop.
        """
        ahead = self._ahead(wheres)
        try:
            for where in wheres:
                self._run.check()
                if self._of(where).kind is RunKind.TRANSCODED:
                    stored, recipe = next(ahead)
                    self._gather(where, stored, recipe)
                else:
                    self._flush()
                    self._as_it_is(where)
            self._flush()
        finally:
            ahead.close()
        return self._places

    def _of(self, where: Where) -> Run:
        index, run = where
        return self._plan.instances[index].split.runs[run]

    def _ahead(self, wheres: Sequence[Where]) -> Generator[tuple[bytes, bytes | None]]:
        """The transcoded runs, in order; some are made before they are asked for."""
        waiting: deque[Future[tuple[bytes, bytes | None]]] = deque()
        jobs = (where for where in wheres if self._of(where).kind is RunKind.TRANSCODED)
        try:
            while True:
                for index, run in itertools.islice(jobs, 2 * self._run.workers - len(waiting)):
                    instance = self._plan.instances[index]
                    waiting.append(self._run.pool.submit(_transcoded, instance, instance.split.runs[run]))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _gather(self, where: Where, stored: bytes, recipe: bytes | None) -> None:
        self._gathered.parts.append((where, stored, recipe))
        self._gathered.size += len(stored)
        if self._gathered.size >= _GATHERED:
            self._flush()
        self._advance(self._of(where).length)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, _Gathered()
        if not gathered.parts:
            return
        stream = self._writer.add_stream(gathered.size)
        data = b"".join(stored for _, stored, _ in gathered.parts)
        for start in range(0, len(data), MAX_CHUNK):
            self._writer.add_chunk(stream, start, data[start : start + MAX_CHUNK])
        at = 0
        for where, stored, recipe in gathered.parts:
            self._places[where] = StreamPlace(stream, at, len(stored), recipe)
            at += len(stored)

    def _as_it_is(self, where: Where) -> None:
        run = self._of(where)
        stream = self._writer.add_stream(run.length)
        with SpooledRanges(self._plan.instances[where[0]].path) as file:
            for start in range(0, run.length, MAX_CHUNK):
                self._run.check()
                chunk = file.read(run.offset + start, min(MAX_CHUNK, run.length - start))
                self._writer.add_chunk(stream, start, chunk)
                self._advance(len(chunk))
        self._places[where] = StreamPlace(stream, 0, run.length)


def _transcoded(instance: InstancePlan, run: Run) -> tuple[bytes, bytes | None]:
    """What to store of a codestream, and the recipe of its piece; None where it is stored as it is."""
    found: Codestream = instance.codestreams[run.offset]
    with SpooledRanges(instance.path) as file:
        data = file.read(run.offset, run.length)
    joined = b"".join(data[at - run.offset : at - run.offset + size] for at, size in found.fragments)
    try:
        stored, recipe = transcode(joined)
    except CodecError:
        return data, None
    if len(stored) + len(recipe) + _WORTH > len(data):
        return data, None
    return stored, piece_recipe(recipe, found.inserts)
