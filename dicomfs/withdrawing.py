"""Withdrawing: takes back an instance that was accepted provisionally, as if it had never come.

Such an instance is shown and readable as any other.  It stays for good once its bytes came a second time,
from anywhere, or were packed, or the file that it was taken from was quiet; also while it is held.  Until
then it goes with that file's bytes: no version and no name is left of it, only a number that serves no other
(docs/adr/0018-provisional-acceptance.md).
"""

from __future__ import annotations

from dicomfs.index.catalog import Catalog
from dicomfs.locks import locked
from dicomfs.model import ConflictClass, InstanceId
from dicomfs.paths import ArchivePaths
from dicomfs.spool import Spool


class Withdrawer:
    """Withdraws instances of one archive.  Takes turns with acceptance: one lock orders them."""

    def __init__(self, paths: ArchivePaths, catalog: Catalog, spool: Spool) -> None:
        self._lock, self._mark = paths.accept_lock, paths.decision_mark
        self._catalog, self._spool = catalog, spool

    def withdraw(self, instance: InstanceId) -> bool:
        """Take an instance back; False where it stays, as it is held or no longer provisional, or is gone.

        A packer that has it in hand leaves it out, as it does with what is forgotten.

        Raises:
            OSError, DicomfsError: it could not be withdrawn; it stays, or goes when the archive is opened.
        """
        with locked(self._lock):
            record = self._catalog.spooled(instance)
            if record is None or not self._catalog.is_provisional(instance):
                return False
            if self._catalog.hold_on(instance) is not None:
                return False
            shown = self._catalog.row(instance).version == 0
            self._mark.touch(0o600)
            with self._catalog.write() as writer:
                writer.forget([instance])
                heir = self._yielded(record.sop_instance_uid, instance) if shown else None
                if heir is not None:
                    writer.set_version(heir, 0, ConflictClass.NONE)
            with self._catalog.write_spool() as spooled:
                spooled.remove([instance])
            self._spool.release([(instance, record.sha256)])
            self._mark.unlink()
        return True

    def _yielded(self, uid: str, shown: InstanceId) -> InstanceId | None:
        """The latest of those that yielded to one that was shown; the journal alone says the same."""
        return max((one for one in self._catalog.by_uid(uid) if one != shown), default=None)
