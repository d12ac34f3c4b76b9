"""Small catalogs for tests: one patient and study, series as needed, rows and spool records on demand."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dicomfs.index import Catalog, PartRow, SpooledRecord
from dicomfs.model import InstanceId, ObjectKey, PatientNode, SeriesNode, StudyNode

ARCHIVE_ID = b"0123456789abcdef"
PATIENT = PatientNode(1, "HOSP", "P1", "Doe^Jane", "P1 Doe Jane 0123abcd")
STUDY = StudyNode(1, 1, "1.2.3", "20240101", "CHEST", "20240101 CHEST 4567abcd")


def header_key(number: int) -> ObjectKey:
    """The key of some header pack."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return ObjectKey(f"header/{digest[:2]}/{digest}")


def series_node(number: int) -> SeriesNode:
    """A series of the one study."""
    return SeriesNode(
        number, 1, f"1.2.3.{number}", "CT", str(number), "AXIAL", f"{number} AXIAL {number:08x}"
    )


def uid(series: int, position: int) -> str:
    """SOP Instance UID of an instance."""
    return f"1.2.3.{series}.{position + 1}"


def digest(series: int, position: int) -> bytes:
    """SHA-256 of an instance."""
    return hashlib.sha256(f"{series} {position}".encode()).digest()


def part_row(series: int, position: int) -> PartRow:
    """The row of an instance: numbered from 1, slices against the order of acceptance."""
    return PartRow(
        position,
        position + 1,
        0,
        uid(series, position),
        1000 + position,
        10**18 + position,
        digest(series, position),
        -position,
    )


def spool_record(series: int, position: int) -> SpooledRecord:
    """The same instance while spooled."""
    row = part_row(series, position)
    return SpooledRecord(
        InstanceId(series, position),
        row.sop_instance_uid,
        row.number,
        row.name_level,
        row.size,
        row.mtime_ns,
        row.sha256,
    )


def make_catalog(folder: Path, series: int = 2) -> Catalog:
    """A new catalog with the patient, the study and this many empty series."""
    catalog = Catalog.create(folder, ARCHIVE_ID)
    add_nodes(catalog, series)
    return catalog


def add_nodes(catalog: Catalog, series: int = 2) -> None:
    """Adds the patient, the study and this many empty series."""
    with catalog.write() as writer:
        writer.add_patient(PATIENT)
        writer.add_study(STUDY)
        for number in range(1, series + 1):
            writer.add_series(series_node(number))


def spool(catalog: Catalog, series: int, *positions: int) -> None:
    """Puts instances on the spool's list."""
    with catalog.write_spool() as writer:
        for position in positions:
            writer.add(spool_record(series, position))


def commit(catalog: Catalog, series: int, *positions: int, header: int = 1) -> None:
    """Commits instances as the next part of a series."""
    with catalog.write() as writer:
        rows = [part_row(series, position) for position in positions]
        writer.commit_part(series, writer.next_part(series), header_key(header), 0, rows)


def unspool(catalog: Catalog, series: int, *positions: int) -> None:
    """Takes instances off the spool's list."""
    with catalog.write_spool() as writer:
        writer.remove([InstanceId(series, position) for position in positions])
