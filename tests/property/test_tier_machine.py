"""Packer, linker, repack, copies, twins, eviction, gc, forgetting, purging and recovery, racing and crashing.

In any order, one within the other: no reference ever dangles, every accepted byte string comes back, and no
forgotten one does.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicomfs.archive import Archive
from dicomfs.index.env import Environment, WriteTxn
from dicomfs.model import InstanceId, ObjectKey
from dicomfs.packing import repack
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from dicomfs.scrubbing import Budget
from dicomfs.tiers.folder import FolderTier
from tests import samples
from tests.archives import contents, digests, rows
from tests.tiered import LABORATORY, two_tiers

MEMORY = Path("/dev/shm")
_FILES = [
    *samples.ct_series(3, 12, 12, patient="One^Patient"),
    # The same frames under other headers, to be stored once.
    *samples.ct_series(3, 12, 12, patient="Twin^Patient"),
    *samples.ct_series(2, 12, 12, 5, patient="Three^Patient"),
    samples.structured_report(),
]
FILES = st.sets(st.integers(0, len(_FILES) - 1), min_size=1, max_size=4)
EVENT = st.integers(0, 12)
_YEAR = 366 * 86400 * 10**9


class Crash(BaseException):
    """The process ends here, as far as anybody can tell."""


class _Events:
    """Tells of every put, delete and commit, before and after."""

    def __init__(self) -> None:
        self.watch: Callable[[str, str], None] = lambda _call, _key: None

    def install(self, patched: pytest.MonkeyPatch) -> None:
        put, delete, write = FolderTier.put, FolderTier.delete, Environment.write

        def watched_put(tier: FolderTier, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
            self.watch("put", key)
            put(tier, key, source, sha256)
            self.watch("put", key)

        def watched_delete(tier: FolderTier, key: ObjectKey) -> None:
            self.watch("delete", key)
            delete(tier, key)
            self.watch("delete", key)

        @contextmanager
        def watched_write(environment: Environment) -> Iterator[WriteTxn]:
            with write(environment) as txn:
                yield txn
                self.watch("commit", "")
            self.watch("commit", "")

        patched.setattr(FolderTier, "put", watched_put)
        patched.setattr(FolderTier, "delete", watched_delete)
        patched.setattr(Environment, "write", watched_write)


EVENTS = _Events()


@pytest.fixture(autouse=True, scope="module")
def watched() -> Iterator[None]:
    """Small samples hardly gain from any profile: move them all the same."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(repack, "LEAST_GAIN", -1e9)
        patched.setattr(repack, "_LEAST_HALVINGS", -1e9)
        EVENTS.install(patched)
        yield


class TierMachine(RuleBasedStateMachine):
    """An archive with two tiers, one of which wants packs of its own, against a set of digests."""

    @initialize()
    def create(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dicomfs-", dir=MEMORY))
        self.archive = two_tiers(self.folder, packing="dense")
        self.root = self.folder / "archive"
        self.model: dict[str, bytes] = {}
        self.turn = 0
        self.unsure: list[tuple[InstanceId, str]] = []

    # what happens

    def accept(self, numbers: set[int]) -> None:
        self.turn += 1
        source = self.folder / f"source{self.turn}"
        source.mkdir()
        for number in numbers:
            (source / str(number)).write_bytes(_FILES[number])
        assert self.archive.import_paths([source]).not_taken == []
        self.model |= {hashlib.sha256(_FILES[n]).hexdigest(): _FILES[n] for n in numbers}

    def pack(self) -> None:
        assert self.archive.pack().failed == []

    def repack(self) -> None:
        assert self.archive.repack("dense" if self.turn % 2 else "fast").failed == []
        self.turn += 1

    def copy(self, to: str) -> None:
        tiering = self.archive.tiering()
        assert tiering.copy(to, tiering.objects(), NullProgress()).failed == []

    def evict(self, tier: str) -> None:
        tiering = self.archive.tiering()
        tiering.evict(tier, tiering.objects(), NullProgress())

    def collect(self, later: int) -> None:
        now = max((one.since_ns for one in self.archive.catalog.condemned()), default=10**18)
        report = self.archive.collector().collect(now_ns=now + later)
        assert report.failed == []

    def purge(self) -> None:
        assert self.archive.purger().purge().left == []
        assert self.archive.catalog.tainted() == set()

    def snapshot(self) -> None:
        report = self.archive.snapshots().make(NullProgress())
        assert (report.left_out, report.failed) == ([], [])

    def heal(self) -> None:
        report = self.archive.scrubber().scrub(Budget(), NullProgress())
        assert (report.damaged, report.unreachable) == ([], {})

    def forget(self, number: int) -> None:
        digest = hashlib.sha256(_FILES[number]).hexdigest()
        found = [row.id for _, row in rows(self.archive) if row.sha256_start.hex() == digest[:16]]
        if found:
            try:
                assert self.archive.decisions().forget(found, "").unshipped == []
            finally:
                self.unsure.append((found[0], digest))
            self.model.pop(digest, None)

    STEPS: dict[str, Callable[[TierMachine], None]] = {  # noqa: RUF012
        "pack": pack,
        "repack": repack,
        "copy": lambda self: self.copy(LABORATORY),
        "warm": lambda self: self.copy("local"),
        "evict": lambda self: self.evict("local"),
        "evict far": lambda self: self.evict(LABORATORY),
        "gc": lambda self: self.collect(0),
        "gc a year later": lambda self: self.collect(_YEAR),
        "purge": lambda self: self.purge(),
        "snapshot": lambda self: self.snapshot(),
        "heal": heal,
        "forget": lambda self: self.forget(0),
        "forget a twin": lambda self: self.forget(3),
    }
    OUTER = ("pack", "repack", "copy", "warm", "purge")
    INNER = ("copy", "warm", "evict", "evict far", "gc", "gc a year later", "forget", "forget a twin")

    @rule(numbers=FILES, packed=st.booleans())
    def import_files(self, numbers: set[int], packed: bool) -> None:
        self.accept(numbers)
        if packed:
            self.pack()

    @rule(name=st.sampled_from(sorted(STEPS)))
    def do(self, name: str) -> None:
        self.STEPS[name](self)

    @rule(outer=st.sampled_from(OUTER), inner=st.sampled_from(INNER), at=st.integers(0, 5))
    def do_within(self, outer: str, inner: str, at: int) -> None:
        """Another process does something just before or after a put."""
        lock = threading.Lock()
        seen = []

        def watch(call: str, key: str) -> None:
            # Where no lock is held that the other one needs.
            if call == "put" and key.count("/") == 2 and lock.acquire(blocking=False):
                seen.append(key)
                if len(seen) == at + 1:
                    EVENTS.watch = lambda _call, _key: None
                    try:
                        self.STEPS[inner](self)
                    finally:
                        EVENTS.watch = watch
                lock.release()

        EVENTS.watch = watch
        try:
            self._tolerant(outer)
        finally:
            EVENTS.watch = lambda _call, _key: None

    def _tolerant(self, outer: str) -> None:
        """What was taken away meanwhile fails to be copied, and nothing else."""
        tiering = self.archive.tiering()
        if outer == "copy":
            tiering.copy(LABORATORY, tiering.objects(), NullProgress())
        elif outer == "warm":
            tiering.copy("local", tiering.objects(), NullProgress())
        elif outer == "purge":
            self.archive.purger().purge()
        else:
            self.archive.pack() if outer == "pack" else self.archive.repack("dense")

    @rule(name=st.sampled_from(sorted(STEPS)), at=EVENT)
    def crash(self, name: str, at: int) -> None:
        """The process ends before or after a put, a delete or a commit; the next one goes on."""
        count = 0
        lock = threading.Lock()

        def watch(_call: str, _key: str) -> None:
            nonlocal count
            with lock:
                count += 1
                dead = count > at
            if dead:
                raise Crash

        self.unsure.clear()
        EVENTS.watch = watch
        with contextlib.suppress(Crash):
            self.STEPS[name](self)
        EVENTS.watch = lambda _call, _key: None
        self.archive.close()
        self.archive = Archive.open(self.root)
        for instance, digest in self.unsure:
            if self.archive.catalog.is_forgotten(instance):
                self.model.pop(digest, None)

    @precondition(lambda self: self.model)
    @rule(lose_the_index=st.booleans(), far=st.booleans())
    def recover(self, lose_the_index: bool, far: bool) -> None:
        self.archive.close()
        if lose_the_index:
            shutil.rmtree(self.root / "index")
        if far and not any((self.folder / LABORATORY).glob("journal/*")):
            far = False
        url = (self.folder / LABORATORY if far else self.root / "local").as_uri()
        assert recover(self.root, url).problems == []
        self.archive = Archive.open(self.root)

    # what is true all the time

    @invariant()
    def every_byte_string_comes_back_and_nothing_dangles(self) -> None:
        assert contents(self.archive) == digests(self.model)
        assert self.archive.verify().problems == []

    def teardown(self) -> None:
        EVENTS.watch = lambda _call, _key: None
        self.archive.close()
        shutil.rmtree(self.folder)


TestTiers = TierMachine.TestCase
TestTiers.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
