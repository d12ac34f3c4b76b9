"""An archive in memory for tests of the tree and of the mount: names, bytes, and misbehaviour on request.

Owns small stand-ins for the catalog and the reconstructor; every byte follows from the instance's id, so
another process can tell what a file must hold.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from dicomfs.errors import DamagedError, MismatchError, NotFoundError, TransientTierError
from dicomfs.index.records import ROOT, Change, Counts
from dicomfs.model import ConflictClass, InstanceId, InstanceRow, Level, PatientNode, SeriesNode, StudyNode

SIZE = 300_000
"""Bytes of a file; not a multiple of 512, and more than one read of the kernel."""
MTIME_NS = 1_500_000_000_123_456_789
CHANGED_NS = 1_600_000_000_000_000_001
PATIENT, STUDY, SERIES = "P1 Doe^Jane 0a1b2c3d", "20200102 Head 11111111", "3 T1 22222222"
FOLDER = f"{PATIENT}/{STUDY}/{SERIES}"


def content(instance: InstanceId, size: int = SIZE) -> bytes:
    """The bytes of an instance."""
    return random.Random(f"{instance.series}/{instance.position}").randbytes(size)


class MemoryCatalog:
    """One patient, one study, one series, and what tests add to it."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self.patient_nodes = [PatientNode(7, "", "P1", "Doe^Jane", PATIENT)]
        self.study_nodes = [StudyNode(8, 7, "1.2.8", "20200102", "Head", STUDY)]
        self.series_nodes = [SeriesNode(9, 8, "1.2.9", "MR", "3", "T1", SERIES)]
        self.instances: list[InstanceRow] = []
        self.feed: list[Change] = []
        self.forgetful = False
        self.listing_held, self.listing_released = threading.Event(), threading.Event()
        self.listing_hangs = False
        self.reader_checks = self.scans = 0
        for name in names:
            self.add(name)

    def add(self, name: str, size: int = SIZE, version: int = 0) -> InstanceId:
        """Accept one more instance."""
        with self._lock:
            instance = InstanceId(9, len(self.instances))
            uid = f"1.2.9.{instance.position}"
            row = InstanceRow(instance, name, uid, size, MTIME_NS, b"", version, ConflictClass.NONE, False)
            self.instances.append(row)
            self.feed.append(Change(Level.SERIES, 9, None))
            return instance

    def supersede(self, name: str) -> InstanceId:
        """Accept another version under a name: the newer one is shown, the older one goes to versions/."""
        with self._lock:
            versions = [row for row in self.instances if row.name == name and row.version]
            for at, row in enumerate(self.instances):
                if row.name == name and row.version == 0:
                    self.instances[at] = replace(row, version=len(versions) + 1)
        instance = self.add(name)
        self.feed.append(Change(Level.SERIES, 9, name))
        return instance

    def patients(self) -> list[PatientNode]:
        return list(self.patient_nodes)

    def studies(self, patient: int) -> list[StudyNode]:
        return [node for node in self.study_nodes if node.patient == patient]

    def series_of(self, study: int) -> list[SeriesNode]:
        return [node for node in self.series_nodes if node.study == study]

    def study(self, number: int) -> StudyNode:
        return next(node for node in self.study_nodes if node.number == number)

    def series(self, number: int) -> SeriesNode:
        return next(node for node in self.series_nodes if node.number == number)

    def child(self, level: Level, parent: int, folder: str) -> int | None:
        nodes: Sequence[PatientNode | StudyNode | SeriesNode]
        match level:
            case Level.PATIENT:
                nodes = self.patient_nodes
            case Level.STUDY:
                nodes = self.studies(parent)
            case Level.SERIES:
                nodes = self.series_of(parent)
        return next((node.number for node in nodes if node.folder == folder), None)

    def changed_ns(self, level: int, number: int) -> int:
        known = {(ROOT, 0), (Level.PATIENT, 7), (Level.STUDY, 8), (Level.SERIES, 9)}
        if (level, number) not in known:
            raise NotFoundError("folder", f"{level}/{number}")
        return CHANGED_NS + len(self.feed)

    def rows(self, series: int) -> Sequence[InstanceRow]:
        self.scans += 1
        if self.listing_hangs:
            self.listing_held.set()
            self.listing_released.wait()
        return sorted((row for row in self.instances if row.id.series == series), key=lambda row: row.name)

    def row(self, instance: InstanceId) -> InstanceRow:
        for row in self.instances:
            if row.id == instance:
                return row
        raise NotFoundError("instance", str(instance))

    def row_named(self, series: int, name: str, version: int = 0) -> InstanceRow | None:
        wanted = (series, name, version)
        return next((row for row in self.instances if (row.id.series, row.name, row.version) == wanted), None)

    def parts(self, series: int) -> Sequence[object]:
        return self.rows(series)

    def spooled_series(self) -> list[int]:
        return sorted({row.id.series for row in self.instances if row.spooled})

    def versioned_series(self) -> list[int]:
        return sorted({row.id.series for row in self.instances if row.version})

    def last_change(self) -> int:
        return len(self.feed)

    def changes_since(self, mark: int) -> list[Change] | None:
        return None if self.forgetful else self.feed[mark:]

    def reader_check(self) -> int:
        self.reader_checks += 1
        return 0

    def counts(self) -> Counts:
        return Counts(1, 1, 1, len(self.instances), sum(row.size for row in self.instances), 0, 0)


def _stray() -> None:
    raise ValueError(PATIENT)


def _mismatch() -> None:
    raise MismatchError("frame 0")


def _damaged() -> None:
    raise DamagedError("pixel/00", "bad digest")


def _cold() -> None:
    raise TransientTierError("external", "pixel/00", "no answer")


class MemoryReconstructor:
    """Readers over computed bytes.  ``troubles`` maps instances to what a read of them runs into."""

    def __init__(self, catalog: MemoryCatalog) -> None:
        self.catalog = catalog
        self.ready: set[InstanceId] = set()
        self.prefetched: list[InstanceId] = []
        self.held = threading.Event()
        self.release = threading.Event()
        self.troubles: dict[InstanceId, Callable[[], object]] = {}
        self.kinds: dict[str, Callable[[], object]] = {
            "stray": _stray,
            "mismatch": _mismatch,
            "damaged": _damaged,
            "cold": _cold,
            "hang": self._hang,
            "spin": self._spin,
        }

    def open(self, instance: InstanceId) -> MemoryReader:
        return MemoryReader(self, instance, self.catalog.row(instance).size)

    def prefetch(self, instance: InstanceId) -> None:
        self.prefetched.append(instance)

    def _hang(self) -> None:
        self.held.set()
        self.release.wait()

    def _spin(self) -> None:
        """Work hard for a long time, mostly without the interpreter's lock, as a decoder does."""
        self.held.set()
        data = bytes(1 << 26)
        for _ in range(1000):
            hashlib.sha256(data).digest()


class MemoryReader:
    """One instance's bytes."""

    def __init__(self, owner: MemoryReconstructor, instance: InstanceId, size: int) -> None:
        self.owner, self.instance, self.size = owner, instance, size
        self.closed = False

    def read(self, offset: int, length: int) -> bytes:
        self.owner.troubles.get(self.instance, int)()
        return content(self.instance, self.size)[offset : offset + length]

    def read_ready(self, offset: int, length: int) -> bytes | None:
        if self.instance in self.owner.ready:
            return content(self.instance, self.size)[offset : offset + length]
        return None

    def info(self) -> dict[str, object]:
        digest = hashlib.sha256(content(self.instance, self.size)).hexdigest()
        return {
            "sha256": digest,
            "codec": "ffv1",
            "tier": "local",
            "residency": "packed",
            "stored_bytes": self.size // 3,
            "ratio": 3.0,
        }

    def dicom_value(self, keyword: str) -> str | None:
        return {"PatientName": "Doe^Jane", "LongText": "x" * 70_000}.get(keyword)

    def close(self) -> None:
        self.closed = True


class MemoryArchive:
    """What a mount needs of an archive, in memory."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.catalog = MemoryCatalog(names)
        self.reconstructor = MemoryReconstructor(self.catalog)

    def status(self) -> dict[str, object]:
        return {"instances": len(self.catalog.instances)}

    def usage(self) -> tuple[int, int]:
        return 1 << 40, 1 << 39
