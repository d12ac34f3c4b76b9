"""Reading an object from the nearest tier that has it, and bringing nearer what is read.

A tier among tiers to those who read packs: they name an object and get bytes.  Owns which copy is asked, what
happens when it fails, and what is promoted.  Who finds bytes to be wrong says so (`doubt`): then copies are
proven by their names, and bad ones replaced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from dicomfs.copies import Copies, is_intact, name_digest
from dicomfs.errors import (
    DicomfsError,
    FormatError,
    ObjectCold,
    ObjectDamaged,
    ObjectNotFound,
    TierError,
    TransientTierError,
)
from dicomfs.index.records import Family, ObjectRecord
from dicomfs.model import ObjectKey
from dicomfs.partial import PartialObjects
from dicomfs.restores import Restores
from dicomfs.tier_set import LOCAL, TierSet
from dicomfs.tiers.base import ByteRange, ObjectStat
from dicomfs.tiers.wrapper import TierWrapper

logger = logging.getLogger(__name__)

PROMOTE_SHARE = 0.25
"""Share of an object that has to be read from afar before all of it is brought nearer: one slice is not
enough."""
_PROMOTED_AT_ONCE = 2
_WAITING = 64
_REST_SECONDS = 1.0
"""How long a tier that failed is not asked again: those who waited with the one that found out get the error,
too.  As long a pack that could not be had is passed over for a twin."""
_BAD_SECONDS = 600.0
"""How long a pack whose bad copy could not be replaced is passed over for a twin."""

Lookup = Callable[[ObjectKey], ObjectRecord | None]
"""Size and placements of an object; None where nothing is known of it."""
Relatives = Callable[[ObjectKey], Family | None]
"""The pack that a key is read by, with its twins; None where nothing is known of it."""


class NearestCopy(TierWrapper):
    """The objects of an archive, wherever they lie.  Thread-safe; what is written goes to the local tier."""

    def __init__(
        self,
        tiers: TierSet,
        lookup: Lookup,
        copies: Copies,
        partial: PartialObjects,
        may_promote: Callable[[int], bool],
        clock: Callable[[], float] = time.monotonic,
        cold_wait_seconds: float = 0.0,
        relatives: Relatives | None = None,
    ) -> None:
        """``may_promote`` says, by the size of an object, whether to and whether there is room.

        Without ``relatives``, nothing has twins.  Reading what has to be restored from a cold storage class
        first fails after ``cold_wait_seconds``.
        """
        super().__init__(tiers.local)
        self._tiers, self._lookup, self._copies, self._partial = tiers, lookup, copies, partial
        self._may_promote, self._clock = may_promote, clock
        self._relatives = relatives or self._alone
        self._resting: dict[str, tuple[float, TierError]] = {}
        self._avoided: dict[ObjectKey, tuple[float, DicomfsError]] = {}
        self._wishes: OrderedDict[ObjectKey, str] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._restores = Restores(cold_wait_seconds, self._closed, clock)

    def close(self) -> None:
        """Bring nothing nearer any more; what is on its way is given up at the next piece."""
        self._closed.set()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    # packs and their twins

    def choose(self, key: ObjectKey) -> ObjectKey:
        """The object to read for a key: of a family the nearest that did not fail a moment ago."""
        family = self._relatives(key)
        if family is None:
            return key
        members = sorted(family.members, key=self._distance)
        return next((one.key for one in members if self._problem(one.key) is None), members[0].key)

    def _alone(self, key: ObjectKey) -> Family | None:
        record = self._lookup(key)
        return None if record is None else Family((record,))

    def _distance(self, record: ObjectRecord) -> int:
        names = self._tiers.names
        return min((names.index(name) for name in record.tiers if name in names), default=len(names))

    def _others(self, key: ObjectKey) -> list[ObjectKey]:
        """The rest of the family that an object is in."""
        family = self._relatives(key)
        return [] if family is None else [one.key for one in family.members if one.key != key]

    def _is_near(self, key: ObjectKey) -> bool:
        """Whether the local tier has one of the family."""
        family = self._relatives(key)
        return family is not None and LOCAL in family.tiers

    def _problem(self, key: ObjectKey) -> DicomfsError | None:
        """Why an object is passed over."""
        until, problem = self._avoided.get(key, (0.0, None))
        return problem if self._clock() < until else None

    def _avoid(self, key: ObjectKey, problem: DicomfsError, seconds: float = _REST_SECONDS) -> DicomfsError:
        """Pass over an object for a while; the problem, in the name of that object."""
        if isinstance(problem, TierError):
            problem.key = key
        self._avoided[key] = (self._clock() + seconds, problem)
        return problem

    # what differs from the local tier

    def get(self, key: ObjectKey) -> bytes:
        """See Tier.get."""
        return self.get_range(key, ByteRange(0, self.stat(key).size))

    def stat(self, key: ObjectKey) -> ObjectStat:
        """Size of an object: from the catalog where no local copy tells it, without asking a remote tier."""
        record = self._lookup(key)
        if record is None or set(record.tiers) <= {LOCAL}:
            try:
                return self._tiers.local.stat(key)
            except TierError as problem:
                raise self._avoid(key, problem) from problem
        return ObjectStat(record.size, max(record.tiers.values()))

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """The bytes of the range from the nearest tier that gives them.

        Where all that is left of it is cold, a restore is begun, and waited for as long as readers may.

        Raises:
            ObjectNotFound: no tier has the object.
            ObjectCold: it is being restored.
            TierError, FormatError: what the last tier asked said, where no tier gives it.
        """
        record = self._lookup(key)
        names = self._candidates(record)
        telling: DicomfsError | None = None
        cold = ""
        for name in names:
            try:
                return self._from(name, key, wanted, record)
            except ObjectCold:
                cold = cold or name
                continue
            except (TierError, FormatError) as problem:
                telling = telling if isinstance(problem, ObjectNotFound) else problem
                reason = str(problem)
            if len(names) > 1:
                logger.warning("no copy from here", extra={"tier": name, "object": key, "reason": reason})
        # A tier that is down may have a copy that costs nothing: it is waited for, not paid for.
        lost = telling is None or isinstance(telling, ObjectNotFound | ObjectDamaged | FormatError)
        if not cold or not lost:
            raise self._avoid(key, telling or ObjectNotFound(names[-1], key))
        self._prefer_twins(cold, key)
        self._restores.begin(self._tiers[cold], key)
        if not self._restores.wait(self._tiers[cold], key):
            raise ObjectCold(cold, key, restoring=True)
        return self._from(cold, key, wanted, record)

    def _prefer_twins(self, cold: str, key: ObjectKey) -> None:
        """Raise an error rather than restore what a twin may have for nothing, now or in a moment."""
        problems = [self._problem(other) for other in self._others(key)]
        if None in problems:
            raise self._avoid(key, ObjectCold(cold, key, restoring=False))
        for problem in problems:
            if isinstance(problem, TransientTierError):
                raise problem

    def _candidates(self, record: ObjectRecord | None) -> Sequence[str]:
        if record is None or not record.tiers:
            return [LOCAL]
        return [name for name in self._tiers.names if name in record.tiers] or [LOCAL]

    def _from(self, name: str, key: ObjectKey, wanted: ByteRange, record: ObjectRecord | None) -> bytes:
        if name == LOCAL or record is None:
            return self._tiers.local.get_range(key, wanted)
        self._require_awake(name)
        try:
            thawed = self._restores.require_thawed(self._tiers[name], key)
            found = self._partial.of(self._tiers[name], key, record.size)
            data = found.read(wanted.offset, wanted.length)
        except TransientTierError as problem:
            self._resting[name] = (self._clock() + _REST_SECONDS, problem)
            raise
        enough = thawed or found.complete or found.fetched >= PROMOTE_SHARE * record.size
        if LOCAL not in record.tiers and enough and not self._is_near(key):
            self._wish(key, name, asked=False)
        return data

    def _require_awake(self, name: str) -> None:
        until, problem = self._resting.get(name, (0.0, None))
        if problem is not None and self._clock() < until:
            raise TransientTierError(name, problem.key, "failed a moment ago")

    # bringing nearer

    def warm(self, keys: Collection[ObjectKey]) -> None:
        """Bring objects to the local tier in the background; restore those that are cold.

        Raises:
            TierError: a restore cannot be begun.
        """
        for key in keys:
            key = self.choose(key)
            record = self._lookup(key)
            if record is None or self._is_near(key):
                continue
            name = self._candidates(record)[0]
            if self._tiers[name].stat(key).cold:
                self._restores.begin(self._tiers[name], key)
            else:
                self._wish(key, name, asked=True)

    def _wish(self, key: ObjectKey, name: str, *, asked: bool) -> None:
        with self._lock:
            if self._closed.is_set() or key in self._wishes or len(self._wishes) >= _WAITING:
                return
            self._wishes[key] = name
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_PROMOTED_AT_ONCE, thread_name_prefix="promote")
            self._pool.submit(self._promote, key, name, asked=asked)

    def _promote(self, key: ObjectKey, name: str, *, asked: bool) -> None:
        try:
            self._bring(key, name, asked=asked)
        except DicomfsError as problem:
            logger.warning("not promoted", extra={"object": key, "tier": name, "reason": str(problem)})
        finally:
            with self._lock:
                self._wishes.pop(key, None)

    def _bring(self, key: ObjectKey, name: str, *, asked: bool) -> None:
        record = self._lookup(key)
        if record is None or self._is_near(key) or not (asked or self._may_promote(record.size)):
            return
        found = self._partial.of(self._tiers[name], key, record.size)
        if not found.fill(self._closed.is_set):
            return
        if found.sha256() != name_digest(key):
            self.doubt([key])
            return
        self._copies.place_file(record, found.path(), LOCAL)
        self._partial.forget(key)
        logger.info("promoted", extra={"object": key, "tier": name})

    # when bytes are wrong

    def doubt(self, keys: Collection[ObjectKey]) -> bool:
        """Prove the copies that these objects are read from, replace bad ones; whether one was.

        A bad copy that is the only one stays where it is; the next time a twin is read in its place.
        """
        return any([self._doubted(key) for key in keys])

    def _doubted(self, key: ObjectKey) -> bool:
        record = self._lookup(key)
        has_twins = bool(self._others(key))
        if record is None or (len(record.tiers) < 2 and not has_twins):
            return False
        name = self._candidates(record)[0]
        self._partial.forget(key)
        try:
            if is_intact(self._tiers[name], key, record.size):
                return False
            self._copies.heal(key, name)
        except DicomfsError as problem:
            facts = {"object": key, "tier": name, "reason": str(problem)}
            logger.error("a bad copy could not be replaced", extra=facts)  # noqa: TRY400
            self._avoid(key, problem, _BAD_SECONDS)
            return has_twins
        return True
