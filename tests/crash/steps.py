"""What the crash tests let processes do with an archive, each step in a process of its own.

Steps take and give plain JSON values, because `tests.crash.server` runs them elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from dicomfs import marks
from dicomfs.archive import Archive
from dicomfs.forgetting import ForgetReport
from dicomfs.packing import repack as repacking
from dicomfs.packing import together
from dicomfs.recovery import recover
from dicomfs.vfs import ROOT_INODE, Tree
from tests.archives import rows
from tests.clients import Client

_YEAR = 366 * 86400 * 10**9
Shown = dict[str, list[object]]
"""Path in the tree -> [SHA-256, inode number, mtime in ns]."""


def create(root: str) -> None:
    """Make an archive."""
    Archive.create(Path(root)).close()


def import_files(root: str, source: str) -> list[int]:
    """Import a folder: [taken, already there, conflicts, not taken]."""
    with Archive.open(Path(root)) as archive:
        report = archive.import_paths([Path(source)])
    return [report.taken, report.already, report.conflicts, len(report.not_taken)]


def pack(root: str) -> list[str]:
    """Pack: what failed."""
    with Archive.open(Path(root)) as archive:
        return [reason for _, reason in archive.pack("fast").failed]


def pack_together(root: str) -> list[str]:
    """Pack, and pack again together whatever parts a study has: what failed."""
    together.DEPOSITS, together.CLASS_BITS = 2, 64
    with Archive.open(Path(root)) as archive:
        return [reason for _, reason in archive.pack("fast").failed]


def repack(root: str, profile: str) -> list[str]:
    """Move every pack of frames to a profile, whether it gains or not: what failed."""
    repacking.LEAST_GAIN = repacking._LEAST_HALVINGS = -1e9
    with Archive.open(Path(root)) as archive:
        return [reason for _, reason in archive.repack(profile).failed]


def profiles(root: str) -> list[str]:
    """The profiles of the packs of frames."""
    with Archive.open(Path(root)) as archive:
        found = archive.status()["pixel_bytes_by_profile"]
    assert isinstance(found, dict)
    return sorted(found)


def recover_in_place(root: str) -> list[str]:
    """Rebuild the index: problems."""
    return recover(Path(root), (Path(root) / "local").as_uri()).problems


def forget(root: str, patient: str) -> list[str]:
    """Forget all files of patients with this in their folder: what is left undone."""
    with Archive.open(Path(root)) as archive:
        found = [row.id for shown, row in rows(archive) if patient in shown[0]]
        report = archive.decisions().forget(found, "") if found else ForgetReport()
    return [reason for _, reason in (*report.unshipped, *report.left)]


def collect(root: str) -> list[str]:
    """Collect twice, long after: what failed."""
    with Archive.open(Path(root)) as archive:
        collector = archive.collector()
        reports = [collector.collect(now_ns=time.time_ns() + turn * _YEAR) for turn in range(2)]
    return [reason for report in reports for _, reason in report.failed] + reports[1].doubts


def forget_boot(root: str) -> None:
    """Make the next opening believe that the machine was started again."""
    (Path(root) / "index" / "boot").write_text("another boot", encoding="ascii")


def write_incoming(root: str, source: str) -> None:
    """A client writes the files of a folder one by one; each that was closed is noted beside the archive."""
    with Archive.open(Path(root)) as archive:
        client = Client(archive)
        for path in sorted(Path(source).iterdir()):
            client.put(path.name, path.read_bytes())
            with Path(root + ".closed").open("a", encoding="ascii") as closed:
                closed.write(path.name + "\n")
        client.close()


def rewrite_incoming(root: str) -> None:
    """A client writes into the first file, and empties the second."""
    with Archive.open(Path(root)) as archive:
        client = Client(archive)
        first, second, *_ = sorted(path.name for path in archive.paths.incoming.iterdir())
        with client.opened(first, os.O_WRONLY) as handle:
            client.files.write(handle, 0, b"x")
        with client.opened(second, os.O_WRONLY | os.O_TRUNC):
            pass
        client.close()


def abort_incoming(root: str) -> None:
    """A client empties the last file, as it does before it sends it anew."""
    with Archive.open(Path(root)) as archive:
        client = Client(archive)
        *_, last = sorted(path.name for path in archive.paths.incoming.iterdir())
        with client.opened(last, os.O_WRONLY | os.O_TRUNC):
            pass
        client.close()


def pack_incoming(root: str) -> list[str]:
    """What a mount does with quiet files, then pack: what failed."""
    with Archive.open(Path(root)) as archive:
        client = Client(archive)
        client.settle()
        client.close()
        return [reason for _, reason in archive.pack("fast").failed]


def look_incoming(root: str) -> dict[str, list[object]]:
    """Every file under incoming: SHA-256, whether it is a stub, its blocks on disk."""
    shown: dict[str, list[object]] = {}
    with Archive.open(Path(root)) as archive:
        client = Client(archive)
        for path in archive.paths.incoming.iterdir():
            status = path.stat()
            stub = marks.read_reference(path, status.st_size) is not None
            shown[path.name] = [hashlib.sha256(client.get(path.name)).hexdigest(), stub, status.st_blocks]
        client.close()
    return shown


def look(root: str) -> dict[str, object]:
    """Everything that shows: the tree, what verify says, what lies about."""
    with Archive.open(Path(root)) as archive:
        shown = tree_of(archive)
        verified = archive.verify(deep=True)
        waiting = archive.catalog.counts().spool_instances
        intents = len(archive.catalog.intents())
        instances = archive.catalog.counts().instances
    return {
        "tree": shown,
        "problems": verified.problems,
        "notes": verified.notes,
        "waiting": waiting,
        "intents": intents,
        "instances": instances,
        "left": list(left_over(Path(root))),
    }


def tree_of(archive: Archive) -> Shown:
    """Every file of the tree, found by listing and again by lookup, with its bytes as a reader gets them."""
    tree = Tree(archive.catalog, archive.reconstructor, archive.status)
    shown: Shown = {}
    waiting = [("", ROOT_INODE)]
    while waiting:
        path, inode = waiting.pop()
        for entry in tree.listing(inode).entries:
            below = f"{path}/{entry.name.decode()}"
            looked_up = tree.lookup(inode, entry.name)
            assert looked_up == entry.attributes, f"{below}: listed and looked up differ"
            if below == "/.dicomfs":
                continue
            if entry.attributes.is_folder:
                waiting.append((below, entry.attributes.inode))
                continue
            assert below not in shown, f"{below}: listed twice"
            reader = tree.open(entry.attributes.inode)
            data = reader.read(0, reader.size)
            reader.close()
            digest = hashlib.sha256(data).hexdigest()
            shown[below] = [digest, entry.attributes.inode, entry.attributes.mtime_ns]
    return shown


def left_over(root: Path) -> Iterator[str]:
    """Files and folders that no finished work leaves."""
    for folder in (root / "staging", root / "spool" / "tmp", root / "local" / ".tmp"):
        if folder.is_dir():
            yield from (str(path.relative_to(root)) for path in folder.iterdir() if path.name != "lock")
    for path in (root / "spool").iterdir():
        if path.name != "tmp":
            yield str(path.relative_to(root))
    for name in ("index.new", "index.old", "run/accepting", "run/deciding"):
        if (root / name).exists():
            yield name


def copy(root: str, to: str) -> None:
    """Copy an archive that nobody has open."""
    shutil.copytree(root, to, symlinks=True)


def finish(root: str, *sources: str) -> dict[str, object]:
    """What an administrator does after a crash: import and pack every source again, in turn; look."""
    for source in sources:
        import_files(root, source)
        assert pack(root) == []
    return look(root)


_STEPS = (
    *(create, import_files, pack, pack_together, repack, profiles, recover_in_place),
    *(forget, collect, forget_boot, look, finish, copy),
    *(write_incoming, rewrite_incoming, abort_incoming, pack_incoming, look_incoming),
)
STEPS = {step.__name__: step for step in _STEPS}
