"""``incoming/`` against a plain directory: whatever a client does, both say and hold the same.

The calls are those that FUSE makes, without a kernel in between; the packer runs meanwhile, caches are
emptied, the process dies and another one takes over.  What was closed as a whole DICOM file is an instance
from then on, whatever becomes of its name; what was closed before it was whole is one as long as its bytes
are there, or for ever once it was quiet or packed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicomfs import system_calls
from dicomfs.archive import Archive
from dicomfs.dicom.attributes import attributes
from dicomfs.dicom.part10 import scan
from dicomfs.incoming import release
from dicomfs.packs import PackSource
from dicomfs.reconstruct import Reconstructor
from tests import samples
from tests.archives import contents
from tests.clients import Client

SAMPLES = [*samples.ct_series(3, 8, 8), samples.structured_report(), b"no instance" * 40]
SIZE = max(map(len, SAMPLES))
NAMES = st.sampled_from(["a", "b", "c"])
OFFSETS = st.one_of(st.integers(0, SIZE), st.sampled_from([0, 1, 128, 132]))
LENGTHS = st.one_of(st.integers(0, SIZE + 100), st.sampled_from([0, 1, SIZE]))
DATA = st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from(SAMPLES))
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
SETTINGS = "[archive]\nminimum_free_bytes = 0\n[pack]\nquiet_seconds = 0\n"


def memory() -> Path | None:
    """A folder where syncing costs nothing; None where it keeps no extended attributes (Linux before 6.6)."""
    folder = Path("/dev/shm")
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            os.setxattr(file.name, "user.test", b"")
    except OSError:
        return None
    return folder


MEMORY = memory()


@pytest.fixture(autouse=True, scope="module")
def no_waiting() -> Iterator[None]:
    """Nobody writes while the packer looks: it need not wait for a tick of the clock."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(release, "SETTLED_SECONDS", 0.0)
        yield


@dataclass
class Opened:
    """A file that is open on both sides."""

    ours: int
    plain: int
    writes: bool


class IncomingMachine(RuleBasedStateMachine):
    """Every call has the same outcome on both sides, and leaves the same names and bytes."""

    @initialize()
    def create(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dicomfs-", dir=MEMORY))
        self.plain = self.folder / "plain"
        self.plain.mkdir()
        self.root = self.folder / "archive"
        Archive.create(self.root).close()
        (self.root / "dicomfs.toml").write_text(SETTINGS)
        self.opened: list[Opened] = []
        self.accepted: set[str] = set()
        self._mount()

    def _mount(self) -> None:
        self.archive = Archive.open(self.root)
        self.client = Client(self.archive)

    def _both(self, ours: Callable[[], object], plain: Callable[[], object]) -> object:
        """Do the same on both sides; what came out, the same on both."""
        outcomes: list[object] = []
        for call in (ours, plain):
            try:
                outcomes.append(call())
            except OSError as problem:
                outcomes.append(problem.errno)
        assert outcomes[0] == outcomes[1]
        return outcomes[0]

    @rule(name=NAMES, data=st.sampled_from(SAMPLES), over=st.booleans())
    def write_whole(self, name: str, data: bytes, over: bool) -> None:
        """What ``cp`` does."""
        if (self.plain / name).exists():
            with self.client.opened(name, os.O_WRONLY | os.O_TRUNC) as handle:
                self.client.files.write(handle, 0, data)
        else:
            self.client.put(name, data)
        (self.plain / name).write_bytes(data)
        self._note(name)

    @precondition(lambda self: len(self.opened) < 3)
    @rule(name=NAMES, flags=st.sampled_from([os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC]))
    def open(self, name: str, flags: int) -> None:
        handle: list[int] = []
        writes = flags != os.O_RDONLY
        self._both(
            lambda: handle.append(self.client.files.open(self.client.number(name), flags)),
            lambda: handle.append(os.open(self.plain / name, flags)),
        )
        if handle:
            self.opened.append(Opened(handle[0], handle[1], writes))

    @precondition(lambda self: any(one.writes for one in self.opened))
    @rule(data=st.data(), offset=OFFSETS, written=DATA)
    def write(self, data: st.DataObject, offset: int, written: bytes) -> None:
        one = data.draw(st.sampled_from([one for one in self.opened if one.writes]))
        self._both(
            lambda: self.client.files.write(one.ours, offset, written),
            lambda: os.pwrite(one.plain, written, offset),
        )

    @precondition(lambda self: any(one.writes for one in self.opened))
    @rule(data=st.data(), size=LENGTHS)
    def cut_what_is_open(self, data: st.DataObject, size: int) -> None:
        one = data.draw(st.sampled_from([one for one in self.opened if one.writes]))
        number = self.client.files._open[one.ours].number
        self.client.files.truncate(number, one.ours, size)
        os.ftruncate(one.plain, size)

    @precondition(lambda self: self.opened)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.opened))
        self.opened.remove(one)
        status = os.fstat(one.plain)
        held = self.client.files.is_changed(one.ours) and status.st_nlink
        for other in self.opened:
            if os.path.sameopenfile(other.plain, one.plain) and self.client.files.is_changed(other.ours):
                held = False  # and is one when that is closed
        written = os.pread(one.plain, status.st_size, 0)
        self.client.shut(one.ours)
        os.close(one.plain)
        uid = attributes(scan(written)).sop_instance_uid if written[128:132] == b"DICM" else ""
        if held and uid:
            digest = hashlib.sha256(written).digest()
            assert self.archive.acceptor().find(uid, len(written), digest) is not None

    @rule(name=NAMES, size=LENGTHS)
    def truncate(self, name: str, size: int) -> None:
        self._both(
            lambda: self.client.files.truncate(self.client.number(name), None, size),
            lambda: os.truncate(self.plain / name, size),
        )

    @rule(name=NAMES, new=NAMES, flags=st.sampled_from([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE]))
    def rename(self, name: str, new: str, flags: int) -> None:
        top, folder = self.client.top, os.open(self.plain, os.O_RDONLY)
        self._both(
            lambda: self.client.incoming.names.rename(top, name.encode(), top, new.encode(), flags),
            lambda: system_calls.rename(folder, name.encode(), folder, new.encode(), flags),
        )
        os.close(folder)

    @rule(name=NAMES)
    def unlink(self, name: str) -> None:
        self._both(
            lambda: self.client.incoming.names.unlink(self.client.top, name.encode()),
            (self.plain / name).unlink,
        )

    @rule(name=NAMES, new=NAMES)
    def link(self, name: str, new: str) -> None:
        def ours() -> None:
            self.client.incoming.names.link(self.client.number(name), self.client.top, new.encode())

        self._both(ours, lambda: os.link(self.plain / name, self.plain / new))

    @rule()
    def pack(self) -> None:
        assert self.archive.pack("fast").failed == []
        assert self.archive.catalog.counts().spool_instances == 0

    @rule()
    def look_after_quiet_files(self) -> None:
        for number, handle in list(self.client.incoming._untaken()):
            self.client.incoming._look(number, handle)

    @rule()
    def evict_the_cache(self) -> None:
        """What was decoded is forgotten; the files that are open go on."""
        source = PackSource(self.archive.tier, self.archive.catalog.placed)
        fresh = Reconstructor(self.archive.catalog, self.archive.spool, source, 1 << 20)
        self.archive.reconstructor.close()
        self.archive.reconstructor = fresh
        self.client.incoming.files._stubs._open = fresh.open

    @rule(pack=st.booleans())
    def die_and_mount_again(self, pack: bool) -> None:
        """The process of the mount dies: no file is closed in order."""
        self.client.die()
        for one in self.opened:
            os.close(one.plain)
        self.opened = []
        self.archive.close()
        self._mount()
        self.client.settle()
        if pack:
            assert self.archive.pack("fast").failed == []

    @invariant()
    def nothing_is_left_of_what_went_before_it_was_accepted(self) -> None:
        held = {hashlib.sha256(path.read_bytes()).digest() for path in self.plain.iterdir()}
        catalog = self.archive.catalog
        records = [record for series in catalog.spooled_series() for record in catalog.spooled_of(series)]
        assert {record.sha256 for record in records if record.provisional} <= held

    def _note(self, name: str) -> None:
        data = (self.plain / name).read_bytes()
        if data in SAMPLES[:-1]:
            self.accepted.add(hashlib.sha256(data).hexdigest())

    @invariant()
    def names_and_bytes_are_the_same(self) -> None:
        names = {os.fsdecode(name) for name in self.client.incoming.names.names_in(self.client.top)}
        assert names == {path.name for path in self.plain.iterdir()}
        for name in names:
            known = self.client.incoming.names.lookup(self.client.top, name.encode())
            self.client.incoming.inodes.forget([(known.status.st_ino, 1)])
            status = (self.plain / name).stat()
            assert (known.status.st_size, known.status.st_nlink) == (status.st_size, status.st_nlink)
            assert self.client.get(name) == (self.plain / name).read_bytes()
        for one in self.opened:
            size = os.fstat(one.plain).st_size
            assert self.client.files.read(one.ours, 0, size + 1) == os.pread(one.plain, size + 1, 0)

    def teardown(self) -> None:
        for one in self.opened:
            self.client.shut(one.ours)
            os.close(one.plain)
        assert self.accepted <= contents(self.archive)
        self.client.close()
        self.archive.close()
        shutil.rmtree(self.folder)


TestIncoming = IncomingMachine.TestCase
TestIncoming.settings = settings(max_examples=500, stateful_step_count=15, deadline=None)
