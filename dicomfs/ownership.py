"""Whose a tier is: the one archive that may write and delete there.

Two folders may hold the same archive, the original and one recovered from its tiers; both on one prefix would
delete what the other needs.  So each tier that is not the archive's own folder carries owner objects,
numbered by epoch: the highest one that is whole tells the holder.  Who wants to take over writes the next
number.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicomfs.errors import ObjectExists, TierError, UsageError
from dicomfs.model import ObjectKey
from dicomfs.paths import write_durably
from dicomfs.tiers.base import Tier

PREFIX = "owner"
_FORMAT = "dicomfs owner"
_REMEMBERED_SECONDS = 60.0
"""How long a look at the owner holds: an archive that lost a tier deletes nothing there after this time."""


@dataclass(frozen=True, slots=True)
class Owner:
    """What an owner object says."""

    epoch: int
    archive_id: bytes
    holder: str
    """Of the archive folder: a copy of the archive elsewhere has another one."""


def holder_of(path: Path) -> str:
    """The identity of an archive folder, made at first use; not to be copied with the archive."""
    try:
        found = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        found = ""
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(
            f"{path}: cannot be read: {problem}; remove it and claim the tiers again"
        ) from problem
    if not found:
        found = secrets.token_hex(16)
        write_durably(path, found + "\n")
    return found


class Ownership:
    """The owner of one tier.  Thread-safe."""

    def __init__(
        self, raw: Tier, archive_id: bytes, holder: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``raw`` is the tier without encryption: who has no key must see whose it is."""
        self._raw, self._archive_id, self._holder, self._clock = raw, archive_id, holder, clock
        self._seen: float | None = None
        self._lock = threading.Lock()

    def current(self) -> Owner | None:
        """The owner, or None for a tier that nobody has used.

        Raises:
            TierError: the tier cannot be asked, or what it says cannot be read.
        """
        latest = max((key for key, _ in self._raw.list(PREFIX)), default=None)
        if latest is None:
            return None
        try:
            document = json.loads(self._raw.get(latest))
            owner = Owner(
                int(latest.rsplit("/", 1)[1], 16), bytes.fromhex(document["archive"]), str(document["holder"])
            )
        except (ValueError, KeyError, TypeError) as problem:
            raise TierError(
                self._raw.name, latest, "says nothing of an owner; `dicomfs tier claim`"
            ) from problem
        return owner

    def require(self) -> None:
        """See that this archive may write here; a tier that nobody has used becomes its own.

        Raises:
            UsageError: it belongs to another archive, or to another folder of this one.
            TierError: the tier cannot be asked.
        """
        with self._lock:
            if self._seen is not None and self._clock() - self._seen < _REMEMBERED_SECONDS:
                return
            owner = self.current() or self._take(1)
            self._refuse_others(owner)
            if owner.holder != self._holder:
                raise UsageError(
                    f"tier {self._raw.name} is in the hands of another copy of this archive; when that one "
                    f"is given up, take it over with `dicomfs tier claim {self._raw.name}`"
                )
            self._seen = self._clock()

    def claim(self) -> Owner:
        """Take the tier over from another folder that held this archive.

        Raises:
            UsageError: it belongs to another archive.
            TierError: the tier cannot be asked or written.
        """
        with self._lock:
            owner = self.current()
            if owner is not None:
                self._refuse_others(owner)
                if owner.holder == self._holder:
                    return owner
            taken = self._take(1 if owner is None else owner.epoch + 1)
            if taken.holder != self._holder:
                raise UsageError(f"tier {self._raw.name} was claimed by somebody else at the same moment")
            self._seen = self._clock()
            return taken

    def _refuse_others(self, owner: Owner) -> None:
        if owner.archive_id != self._archive_id:
            raise UsageError(
                f"tier {self._raw.name} belongs to another archive ({owner.archive_id.hex()}): "
                "give each archive a folder or prefix of its own"
            )

    def _take(self, epoch: int) -> Owner:
        """Write an epoch's object unless there is one; who it says is the owner now."""
        key = ObjectKey(f"{PREFIX}/{epoch:016x}")
        document = {
            "format": _FORMAT,
            "version": 1,
            "archive": self._archive_id.hex(),
            "holder": self._holder,
        }
        data = (json.dumps(document) + "\n").encode()
        with contextlib.suppress(ObjectExists):  # another one was faster: what lies there counts
            self._raw.put(key, data, hashlib.sha256(data).hexdigest())
        found = self.current()
        if found is None:
            raise TierError(self._raw.name, key, "is not there after it was put")
        return found
