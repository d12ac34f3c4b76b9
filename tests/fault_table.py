"""The table of faults in docs/durability.md, "Tiers": what fails, what is done meanwhile, what must hold.

Whatever fails: the command ends, with a declared error or a report; all files read back exactly from what is
left; and the same command again, then gc, leaves nothing wrong.  Which tier it is, is up to `Place`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import DicomfsError, TierError, TierFull, TransientTierError
from dicomfs.model import InstanceId, ObjectKey
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from dicomfs.scrubbing import Budget
from dicomfs.tier_set import LOCAL
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier
from tests import samples
from tests.archives import contents, digests, write_sources
from tests.tiered import copy_all, evict_all

FILES = samples.ct_series(2, 24, 24)
_YEAR = 366 * 86400 * 10**9


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Faults:
    """Counts the calls to the laboratory and harms the chosen one, or all from there on."""

    kind: str = ""
    at: int = -1
    calls: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, tier: Tier, call: str) -> bool:
        """Count a call; whether it is to be harmed."""
        if tier.name == LOCAL:
            return False
        with self.lock:
            number = len(self.calls)
            self.calls.append(call)
        lasting = self.kind in ("credentials expired", "unmounted", "killed", "slow")
        return number == self.at or (lasting and 0 <= self.at <= number)

    def before(self, call: str) -> None:
        """Raise what a failing call raises."""
        if self.kind == "killed":
            raise Killed
        if self.kind in ("error before", "unmounted", "credentials expired"):
            raise TierError("harmed", "", self.kind)
        if self.kind == "slow":
            raise TransientTierError("harmed", "", "timed out")
        if self.kind == "disk full" and call == "put":
            raise TierFull("harmed", "", "no space left")

    def read(self, data: bytes) -> bytes:
        """Harm what was read."""
        if self.kind == "truncated":
            return data[:-1]
        if self.kind == "wrong bytes":
            return data[:-1] + bytes((data[-1] ^ 1,)) if data else data
        return data


FAULTS = Faults()
KINDS = {
    "error before": ("put", "get", "get_range", "stat", "delete", "list"),
    "error after": ("put", "delete"),
    "slow": ("put", "get", "get_range", "stat", "delete", "list"),
    "truncated": ("get", "get_range"),
    "wrong bytes": ("get", "get_range"),
    "lost delete": ("delete",),
    "listing that lags": ("list",),
    "credentials expired": ("put", "get", "get_range", "stat", "delete", "list"),
    "disk full": ("put",),
    "unmounted": ("list", "stat", "put"),
    "killed": ("put", "delete", "get", "list"),
}
"""Fault -> calls that it can happen to."""


def install(kind: type[Tier], patched: pytest.MonkeyPatch, *, plain: bool = False) -> None:
    """Have the calls to every tier of a kind, but the local one, harmed as FAULTS says.

    On a ``plain`` one, looking whether there is a keyring before a put is taken for a part of the put.
    """
    put, get, get_range = kind.put, kind.get, kind.get_range
    stat, delete, listed = kind.stat, kind.delete, kind.list

    def harmed_put(self: Tier, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        due = _begin(self, "put")
        put(self, key, source, sha256)
        _answer(due, key)

    def harmed_get(self: Tier, key: ObjectKey) -> bytes:
        due = _begin(self, "get")
        data = get(self, key)
        return FAULTS.read(data) if due else data

    def harmed_get_range(self: Tier, key: ObjectKey, wanted: ByteRange) -> bytes:
        due = _begin(self, "get_range")
        data = get_range(self, key, wanted)
        return FAULTS.read(data) if due else data

    def harmed_stat(self: Tier, key: ObjectKey) -> ObjectStat:
        _begin(self, "stat")
        return stat(self, key)

    def harmed_delete(self: Tier, key: ObjectKey) -> None:
        due = _begin(self, "delete")
        if not (due and FAULTS.kind == "lost delete"):
            delete(self, key)
        _answer(due, key)

    def harmed_list(self: Tier, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        due = not (plain and prefix == "keyring") and _begin(self, "list")
        found = [*listed(self, prefix)]
        # Packs only: others that are not listed are another archive's look at the tier, or another key's.
        steady = prefix.startswith(("owner", "journal", "keyring"))
        return iter(found[:-1] if due and FAULTS.kind == "listing that lags" and not steady else found)

    for method in (harmed_put, harmed_get, harmed_get_range, harmed_stat, harmed_delete, harmed_list):
        patched.setattr(kind, method.__name__.removeprefix("harmed_"), method)


def _begin(tier: Tier, call: str) -> bool:
    due = FAULTS.due(tier, call)
    if due:
        FAULTS.before(call)
    return due


def _answer(due: bool, key: ObjectKey) -> None:
    if due and FAULTS.kind == "error after":
        raise TierError("harmed", key, "the answer was lost")


# what is done ------------------------------------------------------------------------------------------


def _copy(archive: Archive) -> None:
    tiering = archive.tiering()
    tiering.copy(remote(archive), tiering.objects(), NullProgress())


def _evict(archive: Archive) -> None:
    evict_all(archive)


def _evict_far(archive: Archive) -> None:
    evict_all(archive, remote(archive))


def _heal(archive: Archive) -> None:
    archive.scrubber().scrub(Budget(), NullProgress())


def _collect(archive: Archive) -> None:
    now = max((one.since_ns for one in archive.catalog.condemned()), default=10**18)
    archive.collector().collect(now_ns=now + _YEAR)


def _claim(archive: Archive) -> None:
    archive.claim(remote(archive))


def _read(archive: Archive) -> None:
    archive.promote_what_is_read()
    contents(archive)


def _forget(archive: Archive) -> None:
    found = [row.id for row in archive.catalog.rows(1) if row.id.position == 0]
    if found:
        archive.decisions().forget(found, "")


def _recover(archive: Archive) -> None:
    url = archive.settings.tiers[remote(archive)].url
    archive.close()
    recover(archive.paths.root, url)


OPERATIONS: dict[str, Callable[[Archive], None]] = {
    "copy": _copy,
    "evict": _evict,
    "evict far": _evict_far,
    "heal": _heal,
    "gc": _collect,
    "claim": _claim,
    "read and promote": _read,
    "forget": _forget,
    "recover": _recover,
}


def remote(archive: Archive) -> str:
    """The tier that is harmed."""
    (name,) = archive.tiers.remote
    return name


class Place(Protocol):
    """Where archives with one tier beside the local one are made and copied."""

    def make(self) -> Path:
        """The folder of a new archive: `archive` and what belongs to it."""
        ...

    def copy(self, start: Path, to: Path) -> Archive:
        """An archive that nobody has open, copied with its tier and opened."""
        ...

    def damage(self, folder: Path) -> None:
        """Flip a bit of every pack on the tier."""
        ...


def make_starts(place: Place, factory: Callable[[], Path]) -> dict[str, Path]:
    """An archive before each operation, to be copied; ``factory`` gives empty folders."""
    base = place.make()
    with Archive.open(base / "archive") as archive:
        archive.import_paths([write_sources(base / "in", FILES)])
        archive.pack()
    made = {"copy": base}
    for name in OPERATIONS:
        if name == "copy":
            continue
        made[name] = factory() / "top"
        with place.copy(base, made[name]) as archive:
            copy_all(archive, remote(archive))
            if name == "heal":
                place.damage(made[name])
            elif name == "gc":
                with archive.catalog.write() as writer:
                    for record in list(archive.catalog.objects()):
                        writer.remove_placement(record.key, remote(archive))
                archive.collector().collect(now_ns=10**18)
            elif name == "claim":
                archive.paths.holder.write_text("another folder\n", encoding="ascii")
            elif name == "read and promote":
                evict_all(archive)
    return made


def calls_of(place: Place, start: Path, folder: Path, operation: str) -> list[str]:
    """The calls to the tier where nothing fails."""
    FAULTS.__init__()  # type: ignore[misc]
    with place.copy(start, folder) as archive:
        FAULTS.calls.clear()
        OPERATIONS[operation](archive)
    return list(FAULTS.calls)


def some(calls: Sequence[int], turn: int, count: int) -> list[int]:
    """At most ``count`` of some calls, evenly spread; which ones changes with ``turn``."""
    if len(calls) <= count:
        return list(calls)
    step = len(calls) / count
    return sorted({calls[int(turn % step + number * step) % len(calls)] for number in range(count)})


def harm(place: Place, start: Path, top: Path, operation: str, kind: str, at: int) -> Iterator[str]:
    """What is wrong after an operation that was harmed at one call, or from there on."""
    archive = place.copy(start, top)
    url = archive.settings.tiers[remote(archive)].url
    FAULTS.__init__(kind, at)  # type: ignore[misc]
    try:
        OPERATIONS[operation](archive)
    except (DicomfsError, Killed):
        pass
    finally:
        archive.close()
        FAULTS.__init__()  # type: ignore[misc]
    if not (archive.paths.index / "catalog" / "data.mdb").exists():
        recover(archive.paths.root, url)
    with Archive.open(archive.paths.root) as left:
        expected = digests(FILES)
        if operation == "forget":
            gone = left.catalog.is_forgotten(InstanceId(1, 0))
            expected = digests(FILES[1:]) if gone else expected
        if contents(left) != expected:
            yield "what is left is not what was accepted"
    with Archive.open(archive.paths.root) as again:
        OPERATIONS[operation](again)
    with Archive.open(archive.paths.root) as whole:
        if operation == "forget":
            expected = digests(FILES[1:])
        _collect(whole)
        _collect(whole)
        if contents(whole) != expected:
            yield "not all comes back after the same again"
        report = whole.verify(deep=True)
        yield from report.problems
        yield from report.notes
        if any(not record.tiers for record in whole.catalog.objects()):
            yield "an object has no copy"
