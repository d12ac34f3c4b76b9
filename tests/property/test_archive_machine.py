"""A whole archive against a dictionary of bytes, through any order of importing, packing and rebuilding."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicomfs.archive import Archive
from dicomfs.packing import repack
from dicomfs.recovery import recover
from dicomfs.vfs import ROOT_INODE, Tree
from tests import samples

SIDE = 12
"""Rows and columns of an image."""
SERIES = st.integers(0, 1)
SLICES = st.integers(0, 3)
_FILES = [samples.ct_series(4, SIDE, SIDE, seed) for seed in (0, 1)]
_OTHERS = [
    samples.structured_report(),
    samples.encapsulated([b"\xff\xd8one\xff\xd9", b"\xff\xd8two\xff\xd9"]),
    *samples.odd_files().values(),
]
_JUNK = list(samples.junk().values())


def changed(data: bytes, how: int) -> bytes:
    """Another file under the same UID: other words, other pixels, cut short, or surplus bytes."""
    if how == 0:
        return data.replace(b"Head routine", b"Head Routine")
    if how == 1:
        return data[:-9] + bytes(byte ^ 0x55 for byte in data[-9:])
    return data[:-20] if how == 2 else data + b"surplus"


@pytest.fixture(autouse=True, scope="module")
def always_gains() -> Iterator[None]:
    """Small samples hardly gain from any profile: move them all the same."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(repack, "LEAST_GAIN", -1e9)
        patched.setattr(repack, "_LEAST_HALVINGS", -1e9)
        yield


class ArchiveMachine(RuleBasedStateMachine):
    """Every accepted byte string has one place, one inode number and its own bytes, whatever happens."""

    @initialize()
    def create(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dicomfs-"))
        self.root = self.folder / "archive"
        self.archive = Archive.create(self.root)
        self.model: dict[str, bytes] = {}
        self.inodes: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.imports = 0

    @rule(series=SERIES, numbers=st.sets(SLICES, min_size=1))
    def import_slices(self, series: int, numbers: set[int]) -> None:
        self._import([_FILES[series][number] for number in sorted(numbers)])

    @rule(data=st.sampled_from(_OTHERS))
    def import_another_kind(self, data: bytes) -> None:
        self._import([data])

    @rule(series=SERIES, number=SLICES, hows=st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True))
    def import_conflicts(self, series: int, number: int, hows: list[int]) -> None:
        self._import([changed(_FILES[series][number], how) for how in hows])

    @rule(data=st.sampled_from(_JUNK))
    def import_what_is_no_instance(self, data: bytes) -> None:
        report = self.archive.import_paths([self._write([data])])
        assert (report.taken, len(report.not_taken)) == (0, 1)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def import_again(self, data: st.DataObject) -> None:
        known = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        report = self.archive.import_paths([self._write([known])])
        assert (report.taken, report.already) == (0, 1)

    @rule(profile=st.sampled_from(["fast", "dense"]))
    def pack(self, profile: str) -> None:
        waiting = self.archive.catalog.counts().spool_instances
        report = self.archive.pack(profile)
        assert (report.instances, report.failed) == (waiting, [])
        assert self.archive.catalog.counts().spool_instances == 0

    @rule()
    def reopen(self) -> None:
        self.archive.close()
        self.archive = Archive.open(self.root)

    @rule()
    def reopen_after_a_reboot(self) -> None:
        self.archive.close()
        (self.root / "index" / "boot").write_text("another boot", encoding="ascii")
        self.archive = Archive.open(self.root)

    @precondition(lambda self: self.model)
    @rule(profile=st.sampled_from(["fast", "dense", "archive"]))
    def repack(self, profile: str) -> None:
        report = self.archive.repack(profile)
        assert (report.failed, report.stopped) == ([], False)
        assert self.archive.catalog.intents() == []

    @precondition(lambda self: self.model)
    @rule(lose_the_index=st.booleans())
    def recover_in_place(self, lose_the_index: bool) -> None:
        self.archive.close()
        if lose_the_index:
            shutil.rmtree(self.root / "index")
        report = recover(self.root, (self.root / "local").as_uri())
        assert (report.problems, report.instances) == ([], len(self.model))
        self.archive = Archive.open(self.root)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), start=st.integers(0, 3000), length=st.integers(0, 3000))
    def read_a_range(self, data: st.DataObject, start: int, length: int) -> None:
        digest = data.draw(st.sampled_from(sorted(self.model)))
        reader = self._tree().open(self.inodes[digest])
        assert reader.read(start, length) == self.model[digest][start : start + length]
        reader.close()

    @rule(deep=st.booleans())
    def verify(self, deep: bool) -> None:
        report = self.archive.verify(deep=deep)
        assert (report.problems, report.notes, report.instances) == ([], [], len(self.model))

    @invariant()
    def every_file_has_one_place_one_number_and_its_bytes(self) -> None:
        shown = self._shown()
        assert shown.keys() == self.model.keys()
        for digest, (path, inode) in shown.items():
            assert self.inodes.setdefault(digest, inode) == inode
            # A file may move between patients/ and versions/, never to another name.
            assert self.names.setdefault(digest, _name(path)) == _name(path)

    def teardown(self) -> None:
        self.archive.close()
        shutil.rmtree(self.folder)

    def _import(self, files: list[bytes]) -> None:
        new = {hashlib.sha256(data).hexdigest(): data for data in files}
        fresh = new.keys() - self.model.keys()
        report = self.archive.import_paths([self._write(list(new.values()))])
        assert report.not_taken == []
        assert (report.taken, report.already) == (len(fresh), len(new) - len(fresh))
        self.model |= new

    def _write(self, files: list[bytes]) -> Path:
        self.imports += 1
        source = self.folder / f"source{self.imports}"
        source.mkdir()
        for number, data in enumerate(files):
            (source / str(number)).write_bytes(data)
        return source

    def _tree(self) -> Tree:
        return Tree(self.archive.catalog, self.archive.reconstructor, self.archive.status)

    def _shown(self) -> dict[str, tuple[str, int]]:
        """SHA-256 of what is read -> path and inode number, of every file found by listing and lookup."""
        tree = self._tree()
        shown: dict[str, tuple[str, int]] = {}
        waiting = [(name, tree.lookup(ROOT_INODE, name.encode()).inode) for name in ("patients", "versions")]
        while waiting:
            path, inode = waiting.pop()
            for entry in tree.listing(inode).entries:
                below = f"{path}/{entry.name.decode()}"
                assert tree.lookup(inode, entry.name) == entry.attributes
                if entry.attributes.is_folder:
                    waiting.append((below, entry.attributes.inode))
                    continue
                reader = tree.open(entry.attributes.inode)
                digest = hashlib.sha256(reader.read(0, reader.size)).hexdigest()
                reader.close()
                assert digest not in shown, f"{below} and {shown[digest][0]}"
                shown[digest] = below, entry.attributes.inode
        return shown


def _name(path: str) -> str:
    """The folders and the name of an instance, wherever it is shown: ``1.dcm`` is version 1 of its folder."""
    return "/".join(path.split("/")[1:5])


TestArchive = ArchiveMachine.TestCase
TestArchive.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
