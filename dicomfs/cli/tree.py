"""Finds things of an archive without a mount: by their path in the tree, or by UID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicomfs.errors import NotFoundError
from dicomfs.vfs import ROOT_INODE, Tree
from dicomfs.vfs_types import Attributes

if TYPE_CHECKING:
    from dicomfs.archive import Archive
    from dicomfs.model import InstanceId


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
    series = catalog.series(instance.series)
    study = catalog.study(series.study)
    folders = f"{catalog.patient(study.patient).folder}/{study.folder}/{series.folder}"
    if row.version:
        return f"/versions/{folders}/{row.name.removesuffix('.dcm')}/{row.version}.dcm"
    return f"/patients/{folders}/{row.name}"
