"""Importing: walk folders, copy what carries a SOP Instance UID into the spool, list the rest.

Owns the reasons why a file is not taken.  How sources are found and copied is `sources`', what becomes of
files without a SOP Instance UID `kept_others`', numbers, names and durability are `accept`'s.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dicomfs.accept import Acceptor, Candidate, Outcome
from dicomfs.dicom.attributes import Attributes, attributes
from dicomfs.dicom.part10 import Scan, scan
from dicomfs.errors import NotTakenError
from dicomfs.index.catalog import Catalog
from dicomfs.kept_others import keep
from dicomfs.packing.spooled import file_bytes
from dicomfs.progress import Progress
from dicomfs.sources import copy_still, digest_of, opened, walk
from dicomfs.spool import Desk, Spool

_PEEK_BYTES = 1 << 20
"""How much of a file is looked at before it is copied: attributes come first in a data set."""
_BATCH_FILES = 10_000
_BATCH_BYTES = 4 << 30
"""Files and raw bytes accepted together; names within a batch do not depend on the order of the walk."""
_COPIERS = 4

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class ImportReport:
    """What an import did."""

    taken: int = 0
    already: int = 0
    conflicts: int = 0
    """Of those taken: new bytes under a SOP Instance UID that the archive knew."""
    bytes_taken: int = 0
    not_taken: list[NotTakenError] = field(default_factory=list)
    kept: int = 0
    """Files without a SOP Instance UID that were kept under ``incoming/imported/``."""


class Importer:
    """Imports files and folders into the archive at ``root``."""

    def __init__(
        self, root: Path, catalog: Catalog, spool: Spool, acceptor: Acceptor, reserve_bytes: int
    ) -> None:
        self._root, self._catalog, self._spool, self._acceptor = root, catalog, spool, acceptor
        self._reserve_bytes = reserve_bytes

    def run(
        self, sources: Sequence[Path], report: ImportReport, keep_in: Path | None, progress: Progress
    ) -> Iterator[None]:
        """Import; stops after each batch, when all that is counted in ``report`` is durable.

        ``keep_in`` is the folder that takes the files without a SOP Instance UID, if they are to be kept.
        """
        progress.start(None, "importing")
        desk = self._spool.desk()
        try:
            with ThreadPoolExecutor(_COPIERS, thread_name_prefix="import") as pool:
                for files in self._batched(sources, report):
                    self._batch(files, desk, pool, keep_in, report, progress)
                    yield
        finally:
            desk.close()
        progress.done()

    def _batch(
        self,
        files: Sequence[tuple[Path, Path]],
        desk: Desk,
        pool: ThreadPoolExecutor,
        keep_in: Path | None,
        report: ImportReport,
        progress: Progress,
    ) -> None:
        jobs = [(file, top, desk.new_path()) for file, top in files]
        candidates: list[Candidate] = []
        for (file, top, _), found in zip(
            jobs, pool.map(lambda job: self._take(job[0], job[2]), jobs), strict=True
        ):
            if isinstance(found, Candidate):
                candidates.append(found)
                progress.advance(found.size)
            elif found is None:
                report.already += 1
            elif keep_in is not None and isinstance(found, _NoInstance):
                self._keep(file, top, keep_in, desk.new_path(), report)
            else:
                report.not_taken.append(found)
        for candidate, (outcome, _) in zip(candidates, self._acceptor.accept(candidates), strict=True):
            if outcome is Outcome.ALREADY:
                report.already += 1
                candidate.temporary.unlink()
                continue
            report.taken += 1
            report.bytes_taken += candidate.size
            report.conflicts += outcome is Outcome.CONFLICT

    def _take(self, file: Path, temporary: Path) -> Candidate | NotTakenError | None:
        """Copy one file; None when the archive has its bytes already."""
        try:
            return self._copy(file, temporary)
        except NotTakenError as refusal:
            temporary.unlink(missing_ok=True)
            return refusal
        except OSError as problem:
            temporary.unlink(missing_ok=True)
            return _refusal(file, "read", problem)

    def _copy(self, file: Path, temporary: Path) -> Candidate | None:
        with opened(file) as source:
            before = os.fstat(source)
            if before.st_size == 0:
                raise _NoInstance(str(file), "is empty")
            peek = os.pread(source, _PEEK_BYTES, 0)
            guess = _identified(file, scan(peek), whole=before.st_size <= _PEEK_BYTES)
            if guess is not None and self._has(guess, source, before.st_size):
                return None
            self._check_space(file, before.st_size)
            digest = copy_still(file, source, temporary)
        with file_bytes(temporary) as data:
            described = _identified(file, scan(data), whole=True)
            size = len(data)
        assert described is not None
        return Candidate(temporary, size, temporary.stat().st_mtime_ns, digest, described)

    def _has(self, described: Attributes, descriptor: int, size: int) -> bool:
        """Whether its bytes are there, and to stay: what may be withdrawn is accepted once more."""
        uid = described.sop_instance_uid
        if not self._catalog.by_uid(uid):
            return False
        row = self._acceptor.find(uid, size, digest_of(descriptor))
        return row is not None and not self._catalog.is_provisional(row.id)

    def _check_space(self, file: Path, size: int) -> None:
        if shutil.disk_usage(self._spool.folder).free < size + self._reserve_bytes:
            raise NotTakenError(
                str(file),
                f"no space left in the archive: archive.minimum_free_bytes keeps {self._reserve_bytes} free",
                "make room, then import it again",
            )

    def _keep(self, file: Path, top: Path, keep_in: Path, temporary: Path, report: ImportReport) -> None:
        relative = Path(file.name) if file == top else file.relative_to(top)
        try:
            self._check_space(file, file.stat().st_size)
            keep(file, relative, keep_in, temporary)
        except NotTakenError as refusal:
            report.not_taken.append(refusal)
            return
        except OSError as problem:
            report.not_taken.append(_refusal(file, "kept", problem))
            return
        report.kept += 1

    def _batched(self, sources: Sequence[Path], report: ImportReport) -> Iterator[list[tuple[Path, Path]]]:
        """(file, the source it was found under) in groups of bounded number and size."""
        batch: list[tuple[Path, Path]] = []
        waiting = 0
        for source in sources:
            for file, size in walk(source, self._root, report.not_taken.append):
                batch.append((file, source))
                waiting += size
                if len(batch) >= _BATCH_FILES or waiting >= _BATCH_BYTES:
                    yield batch
                    batch, waiting = [], 0
        if batch:
            yield batch


def _refusal(file: Path, doing: str, problem: OSError) -> NotTakenError:
    if problem.errno in _FULL:
        return NotTakenError(str(file), "no space left in the archive", "make room, then import it again")
    return NotTakenError(
        str(file),
        f"cannot be {doing}: {problem.strerror}",
        "check its permissions and the disks it is copied between, then import it again",
    )


class _NoInstance(NotTakenError):
    """The file carries no SOP Instance UID."""


def _identified(file: Path, found: Scan, *, whole: bool) -> Attributes | None:
    """The attributes of an instance; None when a look at the whole file is needed to tell.

    Raises:
        _NoInstance: it is no instance.
    """
    described = attributes(found)
    if described.sop_instance_uid:
        return described
    if whole or found.note:
        raise _NoInstance(str(file), f"has no SOP Instance UID ({found.note or 'not in its data set'})")
    return None
