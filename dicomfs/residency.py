"""Where the bytes of an instance are now, and having them brought or kept near.

Answers without opening the instance: what has to be restored first cannot be opened.
"""

from __future__ import annotations

from collections.abc import Collection

from dicomfs.errors import DicomfsError
from dicomfs.index.catalog import Catalog
from dicomfs.index.records import ObjectRecord
from dicomfs.model import InstanceId, ObjectKey
from dicomfs.nearest import NearestCopy
from dicomfs.object_facts import objects_of
from dicomfs.packs import PackSource
from dicomfs.pins import Pins
from dicomfs.tier_set import LOCAL, TierSet

SPOOL = "spool"
UNREACHABLE, RESTORING, COLD = "unreachable", "restoring", "cold"
NOT_READABLE = (UNREACHABLE, RESTORING, COLD)
"""Residencies of what cannot be read now, the worst last."""


class Residency:
    """Of the instances of one archive.  Thread-safe; any call may ask a tier."""

    def __init__(
        self, catalog: Catalog, tiers: TierSet, source: PackSource, nearest: NearestCopy, pins: Pins
    ) -> None:
        self._catalog, self._tiers, self._source = catalog, tiers, source
        self._nearest, self._pins = nearest, pins

    def of(self, instance: InstanceId) -> dict[str, str]:
        """``tier``: the farthest that reading needs; ``residency``: the same, or why it cannot be read now.

        Raises:
            NotFoundError: the archive holds no such instance.
        """
        pin = "1" if instance.series in self._catalog.pinned_series() else "0"
        if not self._catalog.is_packed(instance):
            self._catalog.row(instance)
            return {"tier": SPOOL, "residency": LOCAL, "pin": pin}
        order = [*self._tiers.names, *NOT_READABLE]
        found = [self._place(key) for key in self.objects(instance)]
        tier = max((name for name, _ in found), key=order.index)
        return {"tier": tier, "residency": max((state for _, state in found), key=order.index), "pin": pin}

    def objects(self, instance: InstanceId) -> list[ObjectKey]:
        """The objects that a packed instance is read from.  Raises NotFoundError."""
        place = self._catalog.part_of(instance)
        try:
            packs = self._source.needs(place.header_key, place.part_index, [place.row])
        except DicomfsError:
            # Its header pack cannot be had now: it may need any of those that its part does.
            parts = self._catalog.needs(instance.series)
            at = place.header_key, place.part_index
            return next(keys for part, keys in parts.items() if (part.header_key, part.part_index) == at)
        return [place.header_key, *sorted({self._catalog.placed(key) for key in packs})]

    def set_pin(self, instance: InstanceId, *, pinned: bool) -> None:
        """Keep what the series of an instance needs on the local tier, or end that.

        Raises:
            TierError: the journal cannot be written.
        """
        if pinned:
            self._pins.pin([instance.series])
            self._warm(objects_of(self._catalog, [instance.series]))
        else:
            self._pins.unpin([instance.series])

    def warm(self, instance: InstanceId) -> None:
        """Have what an instance needs brought to the local tier, in the background.

        Raises:
            TierError: a restore cannot be begun.
        """
        if self._catalog.is_packed(instance):
            self._warm(self.objects(instance))

    def _warm(self, keys: Collection[ObjectKey]) -> None:
        self._nearest.warm(keys)
        for key in keys:
            self._source.note_used(key)

    def _place(self, key: ObjectKey) -> tuple[str, str]:
        """The nearest tier that has an object or a twin of it, and its state there."""
        family = self._catalog.family(key)
        found = [] if family is None else [(name, family.on(name)) for name in self._tiers.names]
        held = [(name, one) for name, one in found if one is not None]
        if not held:
            return LOCAL, UNREACHABLE  # lost, as the last recovery told
        if held[0][0] == LOCAL:
            return LOCAL, LOCAL
        states = [(name, self._state(name, one)) for name, one in held]
        return next((one for one in states if one[1] not in NOT_READABLE), states[0])

    def _state(self, name: str, record: ObjectRecord) -> str:
        try:
            found = self._tiers[name].stat(record.key)
        except DicomfsError:
            return UNREACHABLE
        if not found.cold:
            return name
        return RESTORING if found.restoring else COLD
