"""Looking at sources: which instances there are, without reading their pixels.

Owns what is opened: where there are very many files, some folders stand for all.  Decodes no samples.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from dicomfs.dicom.attributes import Attributes, attributes
from dicomfs.dicom.part10 import scan
from dicomfs.errors import NotTakenError
from dicomfs.estimating.model import FoundFile, FoundSeries, Survey
from dicomfs.progress import Progress
from dicomfs.sources import digest_of, opened, walk

MOST_FILES = 20_000
"""Files that are opened.  Of more, whole folders are chosen: the slices of a series mostly share one."""
_PEEK_BYTES = (256 << 10, 4 << 20)
"""How much of a file is looked at, and how much where that does not name its series."""
_READERS = 4

_Looked = tuple[FoundFile, Attributes, str] | NotTakenError | str


def survey(
    sources: Sequence[Path], progress: Progress, stop: threading.Event, most_files: int = MOST_FILES
) -> Survey:
    """Find the instances at and below ``sources``; ends early, with what it has, once ``stop`` is set."""
    found = Survey()
    progress.start(None, "listing")
    chosen = chosen_files(_listed(sources, found, progress, stop), most_files)
    progress.start(sum(size for _, size in chosen), "looking")
    series: dict[tuple[str, ...], FoundSeries] = {}
    known: dict[tuple[str, int], list[FoundFile]] = {}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="look") as pool:
        for at in range(0, len(chosen), 256):
            if stop.is_set():
                break
            some = chosen[at : at + 256]
            for (_, size), one in zip(some, pool.map(_look, some), strict=True):
                found.looked_files += 1
                found.looked_bytes += size
                _add(found, series, known, one)
                progress.advance(size)
    progress.done()
    found.series = list(series.values())
    return found


def _listed(
    sources: Sequence[Path], found: Survey, progress: Progress, stop: threading.Event
) -> Iterator[tuple[Path, int]]:
    for source in sources:
        for file in walk(source, None, found.unreadable.append):
            if stop.is_set():
                return
            found.files += 1
            found.bytes += file[1]
            progress.advance(file[1])
            yield file


def chosen_files(files: Iterable[tuple[Path, int]], most: int) -> list[tuple[Path, int]]:
    """All files, or ``most`` of some folders, chosen by the digests of their names: the same ones every time.

    Holds not much more than that many at a time, however many there are.
    """
    kept: list[tuple[int, int, list[tuple[Path, int]]]] = []
    count = 0
    for order, (folder, run) in enumerate(groupby(files, key=lambda file: file[0].parent)):
        some: list[tuple[Path, int]] = []
        for file in run:
            if len(some) < most:
                some.append(file)
        # The folder that comes last is on top, to be given up first.
        heapq.heappush(kept, (-_rank(folder), order, some))
        count += len(some)
        while count - len(kept[0][2]) >= most:
            count -= len(heapq.heappop(kept)[2])
    if count > most:
        rank, order, last = heapq.heappop(kept)
        kept.append((rank, order, last[: len(last) - (count - most)]))
    return [file for _, _, some in sorted(kept, key=lambda one: one[1]) for file in some]


def _rank(path: Path) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8], "big")


def _add(
    found: Survey,
    series: dict[tuple[str, ...], FoundSeries],
    known: dict[tuple[str, int], list[FoundFile]],
    one: _Looked,
) -> None:
    if isinstance(one, str):
        found.not_taken[one] += 1
    elif isinstance(one, NotTakenError):
        found.unreadable.append(one)
    else:
        file, described, syntax = one
        others = known.setdefault((file.uid, file.size), [])
        if any(_same(file.path, other.path) for other in others):
            found.repeated_files += 1
            found.repeated_bytes += file.size
            return
        others.append(file)
        a = described
        key = (a.issuer, a.patient_id, a.patient_name, a.study_uid, a.series_uid, a.modality, syntax)
        series.setdefault(key, FoundSeries(described, syntax)).files.append(file)


def _same(one: Path, other: Path) -> bool:
    try:
        with opened(one) as first, opened(other) as second:
            return digest_of(first) == digest_of(second)
    except (OSError, NotTakenError):
        return False


def _look(file: tuple[Path, int]) -> _Looked:
    path, _ = file
    try:
        with opened(path) as descriptor:
            status = os.fstat(descriptor)
            if not status.st_size:
                return "empty"
            for length in _PEEK_BYTES:
                found = scan(os.pread(descriptor, length, 0))
                described = attributes(found)
                if (described.sop_instance_uid and described.series_uid) or found.size == status.st_size:
                    break
    except NotTakenError as refusal:
        return refusal
    except OSError as problem:
        return NotTakenError(str(path), f"cannot be read: {problem.strerror}", "check its permissions")
    if not described.sop_instance_uid:
        return f"no SOP Instance UID ({found.note or 'not in the data set'})"
    instance = FoundFile(
        path,
        status.st_size,
        status.st_mtime_ns,
        described.sop_instance_uid,
        described.instance_number,
        status.st_size - found.pixel.value_offset if found.pixel is not None else 0,
    )
    return instance, described, found.syntax.uid
