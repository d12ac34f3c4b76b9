"""``incoming/`` as a mount serves it: names, open files, and what closing one sets off.

Wires the parts and owns what concerns more than one of them: when a file is taken into the archive, and what
is noted about it then.  A file that cannot be taken stays as it was written.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from dicomfs import marks, system_calls
from dicomfs.errors import DicomfsError
from dicomfs.incoming.files import Files
from dicomfs.incoming.inodes import InodeTable, Known, path_of
from dicomfs.incoming.intake import Intake, Taken, Verdict
from dicomfs.incoming.quiet import QuietWatch
from dicomfs.incoming.stubs import Stubs, only_zeros
from dicomfs.incoming.tree import Change, Names
from dicomfs.incoming.waiting import WaitingList
from dicomfs.marks import State
from dicomfs.model import InstanceId

FOLDER_MODE = 0o770
"""Owner and group write; who else may is for the administrator to say, by chmod(1) on the mount."""

_log = logging.getLogger(__name__)


def prepare(folder: Path, uid: int, gid: int) -> None:
    """Make the folder beneath ``incoming/`` where there is none, for this owner.  Raises OSError."""
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700)
    os.chown(folder, uid, gid)
    folder.chmod(FOLDER_MODE)


class Incoming:
    """The writable tree of one mount.  Any thread may call it."""

    def __init__(
        self, folder: Path, intake: Intake, stubs: Stubs, waiting: WaitingList, quiet_seconds: float
    ) -> None:
        """Raises OSError: the folder cannot be served."""
        self._folder, self._intake, self._waiting = folder, intake, waiting
        self._quiet_seconds = quiet_seconds
        self.inodes = InodeTable(folder)
        self.names = Names(self.inodes, stubs.touch, self._give_up)
        self.files = Files(self.inodes, stubs, self._settle, self._give_up)
        self._watch = QuietWatch(self._look, self._untaken, quiet_seconds)

    def start(self) -> None:
        """Begin to look after what was not taken yet."""
        self._watch.start()

    def change(self, number: int, handle: int | None, size: int | None, change: Change) -> Known:
        """Change length and attributes of an inode; what stat(2) shows afterwards."""
        if size is not None:
            self.files.truncate(number, handle, size)
            self._watch_later(number)
            if change == Change():
                return self.names.attributes(number)
        return self.names.change(number, change)

    def flush(self, handle: int) -> None:
        """A client closed a descriptor of a file that it wrote: a whole Part 10 file is taken now.

        One that is cut short is taken provisionally, and made durable as the file it is.  What has no name
        any more is left alone.

        Raises:
            OSError, DicomfsError: it could not be taken; it stays, and is tried again when it is quiet.
        """
        opened = self.files.take_changed(handle)
        try:
            if not os.fstat(opened.descriptor).st_nlink:
                return
            taken = self._intake.take(opened.descriptor, quiet=False)
            self._note(opened.number, opened.descriptor, taken)
            if taken.verdict is Verdict.ACCEPTED:
                return
            if taken.verdict is Verdict.PART:
                os.fsync(opened.descriptor)
        except (OSError, DicomfsError):
            self._watch_later(opened.number)
            raise
        self._watch_later(opened.number)

    def release(self, handle: int) -> None:
        """The last descriptor of a handle is closed; a mapping may have written after the flush."""
        opened = self.files.release(handle)
        if opened is not None and opened.changed:
            self._watch_later(opened.number)

    def free_inodes(self) -> int:
        """How many files and folders the file system beneath still takes.  Raises OSError."""
        return os.statvfs(self._folder).f_favail

    def close(self) -> None:
        """Close all that is open."""
        self._watch.stop()
        self.files.close()
        self._intake.close()
        self.inodes.close()

    def _watch_later(self, number: int) -> None:
        try:
            self._watch.watch(number, self.inodes.handle(number))
        except OSError:
            _log.debug("inode %d was forgotten before it was quiet", number)

    def _note(self, number: int, descriptor: int, taken: Taken) -> None:
        """Note on a file what became of it.  Raises OSError."""
        if taken.instance is not None:
            self._settle(number, descriptor, taken.instance, provisional=taken.verdict is Verdict.PART)
        elif _state(descriptor) is State.WRITTEN and not only_zeros(descriptor):
            # Were the mark left, what a backup makes of the file later would pass for what a client wrote.
            marks.remove_mark(descriptor)
            if self.files.are_changed(number):
                marks.set_written(descriptor)

    def _settle(
        self, number: int, descriptor: int, instance: InstanceId, *, provisional: bool = False
    ) -> None:
        """Note that a file holds an instance's bytes, unless it was written since."""
        try:
            marks.set_mark(descriptor, instance, provisional=provisional)
        except OSError as problem:
            # It is accepted all the same, and keeps its bytes; the next mount looks at it again.
            _log.debug("inode %d not marked: %s", number, problem.strerror)
            if provisional:
                self._withdraw(instance)
            return
        if self.files.are_changed(number):
            self._give_up(descriptor)
            marks.set_written(descriptor)
            return
        if provisional and not os.fstat(descriptor).st_nlink:
            self._give_up(descriptor)
            return
        handle = self.inodes.handle_of(descriptor)
        if handle:
            self._waiting.add(handle)

    def _give_up(self, where: marks.Where) -> None:
        """A file's bytes are about to change, or nobody can reach them any more.  Raises OSError."""
        mark = marks.read_mark(where)
        if mark is not None and mark.state is State.PROVISIONAL and mark.instance is not None:
            self._withdraw(mark.instance)

    def _withdraw(self, instance: InstanceId) -> None:
        try:
            self._intake.withdraw(instance)
        except (OSError, DicomfsError) as problem:
            # Too much is kept, nothing is lost: no reason to refuse what the client wants.
            _log.warning(
                "instance %d/%d not withdrawn, it stays: %s", instance.series, instance.position, problem
            )

    def _look(self, number: int, handle: bytes) -> float | None:
        """Take a file that is quiet.  Raises OSError, DicomfsError."""
        if self.files.are_writing(number):
            return self._quiet_seconds
        try:
            descriptor = self.inodes.open_again(number, handle)
        except OSError:
            return None  # nobody links it any more
        try:
            status = os.fstat(descriptor)
            if status.st_nlink == 0 or not stat.S_ISREG(status.st_mode):
                return None
            system_calls.lock_shared(descriptor)
            if _is_settled(descriptor, status):
                return None
            mark = marks.read_mark(descriptor)
            age = time.time() - max(status.st_mtime, status.st_ctime)
            if 0 <= age < self._quiet_seconds:
                return self._quiet_seconds - age
            taken = self._intake.take(descriptor, quiet=True)
            if taken.verdict is not Verdict.PART and mark is not None and taken.instance != mark.instance:
                self._give_up(descriptor)
            self._note(number, descriptor, taken)
            return self._quiet_seconds if taken.verdict is Verdict.PART else None
        finally:
            os.close(descriptor)

    def _untaken(self) -> Iterator[tuple[int, bytes]]:
        """What an earlier mount left: files without a mark; those with one are listed to become stubs."""
        for folder, _, names in os.walk(self._folder):
            for name in names:
                try:
                    found = self._left(Path(folder, name))
                except OSError:
                    continue  # it went away meanwhile
                if found is not None:
                    yield found

    def _left(self, path: Path) -> tuple[int, bytes] | None:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            handle = self.inodes.handle_of(descriptor)
            if not stat.S_ISREG(status.st_mode) or not status.st_size or not handle:
                return None
            if not _is_settled(path_of(descriptor), status):
                return status.st_ino, handle
            if status.st_blocks:
                self._waiting.add(handle)
            return None
        finally:
            os.close(descriptor)


def _is_settled(where: marks.Where, status: os.stat_result) -> bool:
    return marks.read_reference(where, status.st_size) is not None or _state(where) is State.ACCEPTED


def _state(where: marks.Where) -> State | None:
    mark = marks.read_mark(where)
    return None if mark is None else mark.state
