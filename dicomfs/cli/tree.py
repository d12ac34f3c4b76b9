"""Finds things of an archive without a mount: by their path in the tree, or by UID."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from dicomfs.errors import NotFoundError, UsageError
from dicomfs.index.inodes import InoKind, parse_ino
from dicomfs.model import INSTANCE_LEVEL, InstanceId, Level, Subject
from dicomfs.vfs import ROOT_INODE, Tree
from dicomfs.vfs_types import Attributes

if TYPE_CHECKING:
    from dicomfs.archive import Archive


def tree_of(archive: Archive) -> Tree:
    """Return the tree that a mount of the archive shows."""
    return Tree(archive.catalog, archive.reconstructor, archive.status)


def at(tree: Tree, path: str) -> Attributes:
    """Return what lies at a path of the tree.  Raises NotFoundError naming the path."""
    found = tree.attributes(ROOT_INODE)
    try:
        for name in path.split("/"):
            if name not in ("", "."):
                found = tree.lookup(found.inode, name.encode("utf-8", "surrogateescape"))
    except NotFoundError:
        raise NotFoundError("path in the tree", path) from None
    return found


def series_at(archive: Archive, path: str) -> set[int]:
    """Return the numbers of all series at and below a path of the tree.  Raises NotFoundError."""
    shown = tree_of(archive)
    found: set[int] = set()
    waiting = [at(shown, path).inode]
    while waiting:
        inode = waiting.pop()
        ino = None if inode == ROOT_INODE else parse_ino(inode)
        if ino is not None and ino.id is not None:
            found.add(ino.id.series)
        elif ino is not None and ino.level is Level.SERIES and ino.number is not None:
            found.add(ino.number)
        else:
            waiting += [entry.attributes.inode for entry in shown.listing(inode).entries]
    return found


def series_of(archive: Archive, selectors: Collection[str]) -> set[int]:
    """Return the numbers of all series at paths of the tree or of UIDs.  Raises NotFoundError."""
    found: set[int] = set()
    for selector in selectors:
        if "/" in selector:
            found |= series_at(archive, selector)
        else:
            found |= {instance.series for instance in instances_of(archive, selector)}
    return found


def subjects_of(archive: Archive, selectors: Collection[str]) -> list[Subject]:
    """Return what paths of the tree, or UIDs of any level, name.  Raises NotFoundError, UsageError."""
    found: list[Subject] = []
    for selector in selectors:
        found += [_subject_at(archive, selector)] if "/" in selector else _subjects_with(archive, selector)
    return sorted(set(found))


def _subject_at(archive: Archive, path: str) -> Subject:
    inode = at(tree_of(archive), path).inode
    ino = None if inode == ROOT_INODE else parse_ino(inode)
    if ino is not None and ino.kind is InoKind.INSTANCE and ino.id is not None:
        return Subject(INSTANCE_LEVEL, ino.id.series, ino.id.position)
    if ino is not None and ino.kind is InoKind.PATIENTS_FOLDER and ino.level and ino.number is not None:
        return Subject(ino.level, ino.number)
    raise UsageError(f"{path}: name a file, or a folder of a patient, study or series under /patients")


def _subjects_with(archive: Archive, uid: str) -> list[Subject]:
    catalog = archive.catalog
    found = [Subject(INSTANCE_LEVEL, one.series, one.position) for one in catalog.by_uid(uid)]
    if found:
        return found
    for patient in catalog.patients():
        for study in catalog.studies(patient.number):
            if study.uid == uid:
                found.append(Subject(Level.STUDY, study.number))
            else:
                series = catalog.series_of(study.number)
                found += [Subject(Level.SERIES, one.number) for one in series if one.uid == uid]
    if not found:
        raise NotFoundError("UID", uid)
    return found


def path_of_subject(archive: Archive, subject: Subject) -> str:
    """Return where a subject is shown."""
    if subject.level == INSTANCE_LEVEL:
        return path_of(archive, InstanceId(subject.number, subject.position))
    if subject.level == Level.SERIES:
        return path_of_series(archive, subject.number)
    if subject.level == Level.PATIENT:
        return f"/patients/{archive.catalog.patient(subject.number).folder}"
    study = archive.catalog.study(subject.number)
    return f"/patients/{archive.catalog.patient(study.patient).folder}/{study.folder}"


def instances_of(archive: Archive, uid: str) -> list[InstanceId]:
    """Return the instances with a SOP Instance UID, the shown one first.  Raises NotFoundError."""
    found = sorted(archive.catalog.by_uid(uid), key=lambda instance: archive.catalog.row(instance).version)
    if not found:
        raise NotFoundError("SOP Instance UID", uid)
    return found


def path_of(archive: Archive, instance: InstanceId) -> str:
    """Return the path of an instance in the tree."""
    catalog = archive.catalog
    row = catalog.row(instance)
    folders = _folders(archive, instance.series)
    if row.version:
        return f"/versions/{folders}/{row.name}/{row.version}.dcm"
    return f"/patients/{folders}/{row.name}"


def path_of_series(archive: Archive, series: int) -> str:
    """Return the path of a series in the tree."""
    return f"/patients/{_folders(archive, series)}"


def _folders(archive: Archive, number: int) -> str:
    series = archive.catalog.series(number)
    study = archive.catalog.study(series.study)
    return f"{archive.catalog.patient(study.patient).folder}/{study.folder}/{series.folder}"
