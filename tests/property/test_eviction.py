"""Whatever the rules, the faults and the crashes: every instance has a proven copy at any time.

Real catalog, copies, rules, twins and journal; tiers in memory, on which any call may fail, lie, or be the
last of its process.  Only the coding of packs is played: a twin is other bytes that name their profile.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.codec.base import Profile
from dicomfs.config import Settings, TierSettings
from dicomfs.copies import Copies
from dicomfs.errors import DicomfsError, TransientTierError
from dicomfs.index.records import Family, ObjectRecord
from dicomfs.journal import Journal
from dicomfs.lifecycle_runs import Lifecycle
from dicomfs.lifecycle_settings import LifecycleSettings, RuleSettings
from dicomfs.model import ObjectKey
from dicomfs.pins import Pins
from dicomfs.progress import NullProgress
from dicomfs.recoding import Made, Recoding
from dicomfs.scrubbing import Budget, Scrubber
from dicomfs.tier_set import OpenTier, TierSet
from dicomfs.tiering import Tiering
from dicomfs.tiers.base import ByteRange, ObjectStat
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.wrapper import TierWrapper
from tests.catalogs import ARCHIVE_ID, make_catalog, part_row

MEMORY = Path("/dev/shm")  # hundreds of commits, and what a disk does is not the question here
TIERS = ("local", "laboratory", "external")
FAULTS = ("fails", "answer lost", "torn", "torn", "crash before", "crash after")
"""Torn is: other bytes are stored, other bytes are given, nothing is deleted."""
T = TypeVar("T")


class Crash(BaseException):
    """The process is gone."""


class Chaos:
    """Which calls of a process go wrong."""

    def __init__(self, faults: dict[tuple[str, int], str]) -> None:
        """Faults by kind of call and its number."""
        self._faults, self._calls, self._dead = faults, Counter[str](), False

    def call(self, what: str, tier: MemoryTier, key: str, work: Callable[[], T], torn: Callable[[], T]) -> T:
        """Do what a tier was asked for, or not."""
        fault = self._faults.get((what, self._calls[what]), "")
        self._calls[what] += 1
        if self._dead or fault == "crash before":
            self._dead = True
            raise Crash
        if fault == "fails":
            raise TransientTierError(tier.name, key, "fails")
        result = torn() if fault == "torn" else work()
        if fault == "crash after":
            self._dead = True
            raise Crash
        if fault == "answer lost":
            raise TransientTierError(tier.name, key, "answer lost")
        return result


def _flipped(data: bytes) -> bytes:
    """Other bytes than a torn put stores, too: a store that lies twice in one way cannot be found out."""
    return bytes((data[0] ^ 1,)) + data[1:]


class ChaosTier(TierWrapper):
    """A tier in memory, reached through chaos."""

    def __init__(self, memory: MemoryTier, chaos: Chaos) -> None:
        super().__init__(memory)
        self._memory, self._chaos = memory, chaos

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        def torn() -> None:
            data = source if isinstance(source, bytes) else source.read_bytes()
            self._memory._objects.setdefault(key, (data[::-1], 1))

        self._chaos.call("put", self._memory, key, lambda: self._memory.put(key, source, sha256), torn)

    def get(self, key: ObjectKey) -> bytes:
        def right() -> bytes:
            return self._memory.get(key)

        return self._chaos.call("get", self._memory, key, right, lambda: _flipped(right()))

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        def right() -> bytes:
            return self._memory.get_range(key, wanted)

        return self._chaos.call("get", self._memory, key, right, lambda: _flipped(right()))

    def stat(self, key: ObjectKey) -> ObjectStat:
        def right() -> ObjectStat:
            return self._memory.stat(key)

        return self._chaos.call("stat", self._memory, key, right, right)

    def delete(self, key: ObjectKey) -> None:
        self._chaos.call("delete", self._memory, key, lambda: self._memory.delete(key), lambda: None)


_DAYS = st.sampled_from(["never", 0.0])
_PACKING = st.sampled_from([None, "fast", "dense"])
_TIER = st.fixed_dictionaries(
    {},
    optional={
        "keep_days": _DAYS,
        "keep_used_days": st.sampled_from([0.0, 7.0]),
        "high_watermark": st.integers(0, 600),
    },
)
_RULE = st.builds(
    RuleSettings,
    kinds=st.sampled_from([[], ["header"], ["pixel"], ["header", "pixel"]]),
    modalities=st.sampled_from([[], ["CT"], ["MR"]]),
    copy_to=st.sampled_from([None, "laboratory", "external"]),
    evict_from=st.sampled_from(TIERS),
    evict_after_days=_DAYS,
    unused_days=st.just(0.0),
)


@st.composite
def _policies(draw: st.DrawFn) -> Settings:
    tiers = {}
    for name in TIERS:
        given: dict[str, Any] = draw(_TIER)
        if name != "local":
            given["copy_after_days"] = draw(_DAYS)
        given["packing"] = draw(_PACKING)
        tiers[name] = TierSettings(url=f"file:///{name}", plaintext=True, **given)
    lifecycle = LifecycleSettings(minimum_copies=draw(st.integers(1, 3)))
    return Settings(tiers=tiers, rules=draw(st.lists(_RULE, max_size=2)), lifecycle=lifecycle)


_CALLS = st.tuples(st.sampled_from(["put", "put", "get", "stat", "delete"]), st.integers(0, 3))
_CHAOS = st.dictionaries(_CALLS, st.sampled_from(FAULTS), max_size=5).map(Chaos)
_SERIES, _TIER_NAME, _MINIMUM = st.integers(1, 2), st.sampled_from(TIERS), st.integers(1, 2)
_STEP = st.one_of(
    st.tuples(st.just("apply"), _policies(), _CHAOS, st.booleans()),
    st.tuples(st.just("apply_in_peace"), _policies()),
    *[st.tuples(st.just("copy_all"), _TIER_NAME, _CHAOS, _MINIMUM, _PACKING)] * 2,
    *[st.tuples(st.just("evict_all"), _TIER_NAME, _CHAOS, _MINIMUM)] * 2,
    st.tuples(st.just("pack"), _SERIES),
    st.tuples(st.just("pin"), _SERIES, st.booleans()),
    *[st.tuples(st.just("lose"), st.integers(0, 99))] * 2,
    st.tuples(st.just("heal"), _TIER_NAME, _CHAOS),
    st.tuples(st.just("repack"), st.integers(0, 99), st.sets(_TIER_NAME)),
)


class PlayedCoder:
    """Makes twins of packs: no frames, but bytes of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def made(
        self, record: ObjectRecord, profile: Profile, stop: threading.Event, held: contextlib.ExitStack
    ) -> Made | None:
        """See Coder.made."""
        data = f"{profile.value} of {record.key}".encode()
        path = self._folder / f"twin {hashlib.sha256(data).hexdigest()}"
        path.write_bytes(data)
        return ObjectRecord(pixel_key(data), len(data), {}, profile.value, twin_of=record.key), path


def pixel_key(data: bytes) -> ObjectKey:
    """The key of a pack of these bytes."""
    digest = hashlib.sha256(data).hexdigest()
    return ObjectKey(f"pixel/{digest[:2]}/{digest}")


class Evictions:
    """An archive whose tiers are moved between while everything fails."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.catalog = make_catalog(self.folder / "index")
        self.memory = {name: MemoryTier(name) for name in TIERS}
        self.pinned: set[int] = set()
        self.packed = 0
        self.named: dict[ObjectKey, list[ObjectKey]] = {}
        """What header packs need, by the names that it had first."""
        self.pack(1)

    def close(self) -> None:
        self.catalog.close()
        shutil.rmtree(self.folder)

    def pack(self, series: int) -> None:
        """What the packer does once its objects lie on the local tier."""
        self.packed += 1
        keys = []
        for kind in ("pixel", "header"):
            data = f"{kind} {self.packed}".encode() * (self.packed + 3)
            digest = hashlib.sha256(data).hexdigest()
            keys.append(ObjectKey(f"{kind}/{digest[:2]}/{digest}"))
            self.memory["local"].put(keys[-1], data, digest)
        with self.catalog.write() as writer:
            for key in keys:
                writer.add_object(key, self.memory["local"].stat(key).size, "local", 1)
            writer.set_references(keys[1], keys[:1])
            self.named[keys[1]] = keys[:1]
            part = writer.next_part(series)
            writer.commit_part(series, part, keys[1], 0, [part_row(series, self.packed)])
            writer.set_needs(series, part, keys[:1])

    def apply(self, policy: Settings, chaos: Chaos, copies: bool) -> None:
        """Apply some rules while things go wrong."""
        self.survive(chaos, policy, lambda lifecycle, _: lifecycle.apply(NullProgress(), copies=copies))

    def apply_in_peace(self, policy: Settings) -> None:
        """Nothing goes wrong: then what is pinned is near, whatever the rules say."""
        self.survive(Chaos({}), policy, lambda lifecycle, _: lifecycle.apply(NullProgress()))
        needed = {
            key for number in self.pinned for keys in self.catalog.needs(number).values() for key in keys
        }
        for key in needed:
            held = self.catalog.find_held(key)
            assert held is not None
            assert "local" in held.tiers

    def copy_all(self, tier: str, chaos: Chaos, minimum: int, packing: Any) -> None:
        """By hand."""
        there = TierSettings(url=f"file:///{tier}", plaintext=True, packing=packing)
        policy = Settings(lifecycle=LifecycleSettings(minimum_copies=minimum), tiers={tier: there})
        self.survive(chaos, policy, lambda _, by: by.copy(tier, by.objects(), NullProgress()))

    def evict_all(self, tier: str, chaos: Chaos, minimum: int) -> None:
        """By hand."""
        policy = Settings(lifecycle=LifecycleSettings(minimum_copies=minimum))
        self.survive(chaos, policy, lambda _, by: by.evict(tier, by.objects(), NullProgress()))

    def pin(self, series: int, pinned: bool) -> None:
        """Pins are not what fails here."""
        pins = Pins(self.catalog, Journal(self.memory["local"], ARCHIVE_ID))
        if pinned:
            pins.pin([series])
            self.pinned.add(series)
        else:
            pins.unpin([series])
            self.pinned.discard(series)

    def lose(self, choice: int) -> None:
        """A copy vanishes behind our back; another one is still there, or nobody could help."""
        found = [
            (record.key, tier)
            for family in self.catalog.families()
            for record in family.members
            for tier in record.tiers
            if len(self.proven(family)) > 1
        ]
        if found:
            key, tier = sorted(found)[choice % len(found)]
            self.memory[tier].delete(key)

    def heal(self, tier: str, chaos: Chaos) -> None:
        """Read all that a tier has again, and replace what is bad."""
        tiers, copies = self.reached(chaos)
        scrubber = Scrubber(self.catalog, tiers, copies, ARCHIVE_ID)
        with contextlib.suppress(Crash, DicomfsError):
            scrubber.scrub(Budget(), NullProgress(), tier=tier)

    def repack(self, choice: int, kept: set[str]) -> None:
        """What moving a pack to another profile does once the new one lies where the old one does."""
        families = [family for family in self.catalog.families() if family.members[0].key.startswith("pixel")]
        old = sorted(families, key=lambda family: family.members[0].key)[choice % len(families)].members[0]
        data = f"moved {old.key}".encode()
        there = {"local", *(old.tiers.keys() - kept)}
        for tier in there:
            self.memory[tier].put(pixel_key(data), data, hashlib.sha256(data).hexdigest())
        with self.catalog.write() as writer:
            for tier in there:
                writer.add_object(pixel_key(data), len(data), tier, 1, "dense")
            writer.succeed(old.key, pixel_key(data), kept=kept - {"local"})

    def every_object_has_a_proven_copy(self) -> None:
        for family in self.catalog.families():
            assert self.proven(family), f"{family.members[0].key} is lost"
        assert self.catalog.broken_twins() == []
        for header, needed in self.named.items():
            assert self.catalog.references(header) == needed
            assert all(self.catalog.family(key) and self.catalog.is_used(key) for key in needed)

    def proven(self, family: Family) -> set[str]:
        """Tiers that are known to have a pack or a twin of it, and have it."""
        return {
            tier
            for record in family.members
            for tier in record.tiers
            if (held := self.memory[tier]._objects.get(record.key)) is not None
            and hashlib.sha256(held[0]).hexdigest() == record.key.rsplit("/", 1)[1]
        }

    def survive(self, chaos: Chaos, policy: Settings, work: Callable[[Lifecycle, Tiering], object]) -> None:
        """A process of its own, that ends or dies."""
        tiers, copies = self.reached(chaos)
        journal = Journal(self.memory["local"], ARCHIVE_ID)
        packing = {name: tier.packing for name, tier in policy.tiers.items() if tier.packing}
        place = Recoding(self.catalog, copies, PlayedCoder(self.folder), packing).place
        tiering = Tiering(self.catalog, tiers, copies, journal, policy.lifecycle.minimum_copies, place)
        with contextlib.suppress(Crash, DicomfsError):
            work(Lifecycle(self.catalog, tiers, tiering, policy), tiering)

    def reached(self, chaos: Chaos) -> tuple[TierSet, Copies]:
        """The tiers of a process."""
        local, *others = (ChaosTier(self.memory[name], chaos) for name in TIERS)
        opened = {other.name: lambda other=other: OpenTier(other, None) for other in others}
        tiers = TierSet(local, opened)
        return tiers, Copies(tiers, self.catalog, self.folder / "fetched", self.folder / "lock")


@settings(max_examples=60, deadline=None)
@given(st.lists(_STEP, min_size=8, max_size=16))
def test_every_object_has_a_proven_copy_at_any_time(steps: list[tuple[Any, ...]]) -> None:
    archive = Evictions()
    try:
        for name, *arguments in steps:
            getattr(archive, name)(*arguments)
            archive.every_object_has_a_proven_copy()
    finally:
        archive.close()
