"""RetryingTier: the one place where a failed call to a tier is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dicomfs.errors import TransientTierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import ByteRange, ObjectStat, Tier, TierUsage
from dicomfs.tiers.wrapper import TierWrapper

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on.  The defaults are guesses: a NAS fail-over takes some 10 s."""

    first_pause: float = 0.1
    """Seconds before the second attempt; doubled each time."""
    longest_pause: float = 5.0
    """Seconds."""
    deadline: float = 30.0
    """Seconds after the first attempt; no attempt begins later."""


class RetryingTier(TierWrapper):
    """Tries again after TransientTierError until the policy's deadline, then raises the last one.

    Other errors pass at once.  Pauses are shortened at random by up to a half, so that several readers of a
    recovering tier do not come back together.  ``list`` starts anew only before its first element: an
    interrupted listing is the caller's to repeat.  Blocks the calling thread while it waits.
    """

    def __init__(
        self,
        inner: Tier,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self._policy = policy or RetryPolicy()
        self._sleep = sleep
        self._clock = clock

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        """See Tier.put."""
        self._retry(lambda: self._inner.put(key, source, sha256))

    def get(self, key: ObjectKey) -> bytes:
        """See Tier.get."""
        return self._retry(lambda: self._inner.get(key))

    def get_range(self, key: ObjectKey, wanted: ByteRange) -> bytes:
        """See Tier.get_range."""
        return self._retry(lambda: self._inner.get_range(key, wanted))

    def stat(self, key: ObjectKey) -> ObjectStat:
        """See Tier.stat."""
        return self._retry(lambda: self._inner.stat(key))

    def restore(self, key: ObjectKey) -> None:
        """See Tier.restore."""
        self._retry(lambda: self._inner.restore(key))

    def delete(self, key: ObjectKey) -> None:
        """See Tier.delete."""
        self._retry(lambda: self._inner.delete(key))

    def erase(self, key: ObjectKey) -> None:
        """See Tier.erase."""
        self._retry(lambda: self._inner.erase(key))

    def list(self, prefix: str) -> Iterator[tuple[ObjectKey, ObjectStat]]:
        """See Tier.list."""

        def start() -> tuple[list[tuple[ObjectKey, ObjectStat]], Iterator[tuple[ObjectKey, ObjectStat]]]:
            listing = iter(self._inner.list(prefix))
            return [item for item in (next(listing, None),) if item is not None], listing

        first, rest = self._retry(start)
        yield from first
        yield from rest

    def usage(self) -> TierUsage:
        """See Tier.usage."""
        return self._retry(self._inner.usage)

    def open_local(self, key: ObjectKey) -> Path | None:
        """See Tier.open_local."""
        return self._retry(lambda: self._inner.open_local(key))

    def discard_temporaries(self, older_than: float) -> int:
        """See Tier.discard_temporaries."""
        return self._retry(lambda: self._inner.discard_temporaries(older_than))

    def _retry(self, call: Callable[[], T]) -> T:
        return retried(call, self._policy, self._sleep, self._clock)


def retried(
    call: Callable[[], T],
    policy: RetryPolicy,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What ``call`` returns, tried again after TransientTierError as the policy says; raises the last one."""
    pause = policy.first_pause
    end = clock() + policy.deadline
    while True:
        try:
            return call()
        except TransientTierError:
            if clock() + pause > end:
                raise
        # Spreads callers in time; no secret depends on it.
        sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
        pause = min(2 * pause, policy.longest_pause)
