"""What tiers charge: the prices that the settings give, else the public ones of the storage class.

Owns the list of list prices and what is counted: storage by month, requests, retrieval, traffic.  Estimates
for decisions, not bills: discounts, taxes, free tiers and least times of storage are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from dicomfs.config import Settings, TierSettings, folder_of
from dicomfs.index.records import ObjectRecord
from dicomfs.lifecycle_settings import LOCAL
from dicomfs.model import is_read_first

GB = 1e9
READ_BYTES, PART_BYTES = 8 << 20, 16 << 20
"""Of one request that reads a whole object, and of one that puts a part of a large one."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one storage class charges, in one currency."""

    storage_gb_month: float = 0.0
    put_1000: float = 0.0
    """Puts, copies and listings."""
    get_1000: float = 0.0
    retrieval_gb: float = 0.0
    """Of what is read, or restored, from classes that charge for it."""
    restore_1000: float = 0.0
    """Requests to restore."""
    traffic_gb: float = 0.0
    """Of what is read, on its way out of the store's network."""
    least_bytes: int = 0
    """Smaller objects are billed as if they had this size."""
    overhead_bytes: int = 0
    """Added to each object."""


FREE = Price()
LIST_PRICES = {
    "STANDARD": Price(0.023, 0.005, 0.0004),
    "STANDARD_IA": Price(0.0125, 0.01, 0.001, 0.01, least_bytes=128_000),
    "ONEZONE_IA": Price(0.01, 0.01, 0.001, 0.01, least_bytes=128_000),
    "GLACIER_IR": Price(0.004, 0.02, 0.01, 0.03, least_bytes=128_000),
    "GLACIER": Price(0.0036, 0.03, 0.0004, 0.01, 0.05, overhead_bytes=40_000),
    "DEEP_ARCHIVE": Price(0.00099, 0.05, 0.0004, 0.02, 0.1, overhead_bytes=40_000),
}
"""Amazon S3, us-east-1, first 50 TB, US dollars without tax, as publicly listed in 2025."""
LIST_CURRENCY = "USD"
RESTORED = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Classes that nothing can be read from before it is restored."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What moving objects costs; negative where it saves."""

    currency: str
    once: float = 0.0
    """Requests, retrieval, traffic."""
    monthly: float = 0.0
    """Storage."""
    listed: bool = False
    """Whether list prices are in it, which the settings did not replace."""
    unknown: tuple[str, ...] = ()
    """Tiers whose prices nobody knows: they are counted as nothing."""

    def __add__(self, other: Cost) -> Cost:
        unknown = tuple(sorted({*self.unknown, *other.unknown}))
        return Cost(
            self.currency,
            self.once + other.once,
            self.monthly + other.monthly,
            self.listed or other.listed,
            unknown,
        )


class Prices:
    """Works out costs for one archive's tiers."""

    def __init__(self, settings: Settings) -> None:
        self._tiers, self._currency = settings.tiers, settings.prices.currency

    def stored(self, tier: str, objects: Iterable[ObjectRecord]) -> Cost:
        """What these objects cost in a month on a tier, whether they are there or not."""
        return self._sum(self._stored(tier, one) for one in objects)

    def copied(self, tier: str, objects: Iterable[ObjectRecord]) -> Cost:
        """What it costs to bring objects to a tier, each from the nearest that has it, and to keep them."""
        return self._sum(self._copied(tier, one) for one in objects)

    def evicted(self, tier: str, objects: Iterable[ObjectRecord]) -> Cost:
        """What it saves that objects leave a tier; deleting is free."""
        found = self.stored(tier, objects)
        return Cost(found.currency, 0.0, -found.monthly, found.listed, found.unknown)

    def seconds(self, tier: str, objects: Iterable[ObjectRecord]) -> float | None:
        """How long bringing objects to a tier takes at the bandwidths that the settings allow; None without.

        What is put on a tier that is not local is read back, so it passes twice.
        """
        limits: dict[str, float] = {}
        for one in objects:
            for name, passes in ((tier, 0 if tier == LOCAL else 2), (self._nearest(one, tier), 1)):
                limits[name] = limits.get(name, 0.0) + passes * one.size
        times = [
            count / bandwidth
            for name, count in limits.items()
            if name in self._tiers and (bandwidth := self._tiers[name].bandwidth)
        ]
        return max(times, default=None)

    def _copied(self, tier: str, one: ObjectRecord) -> Cost:
        price, cost = self._price(tier, one)
        parts = math.ceil(one.size / PART_BYTES) + 2 if one.size > PART_BYTES else 1
        reads = math.ceil(one.size / READ_BYTES)
        once = parts * price.put_1000 / 1000
        if tier != LOCAL:
            # It is looked for first, and read back but from where that takes a restore.
            once += price.get_1000 / 1000
            settings = self._tiers.get(tier)
            if settings is not None and settings.read_back and self._class(settings, one) not in RESTORED:
                once += self._read(price, one, reads)
        source = self._nearest(one, tier)
        from_price, from_cost = self._price(source, one)
        once += self._read(from_price, one, reads)
        if source in self._tiers and self._class(self._tiers[source], one) in RESTORED:
            once += from_price.restore_1000 / 1000
        return self._stored(tier, one) + cost + from_cost + Cost(self._currency, once)

    @staticmethod
    def _read(price: Price, one: ObjectRecord, requests: int) -> float:
        return requests * price.get_1000 / 1000 + one.size / GB * (price.retrieval_gb + price.traffic_gb)

    def _stored(self, tier: str, one: ObjectRecord) -> Cost:
        price, cost = self._price(tier, one)
        billed = max(one.size, price.least_bytes) + price.overhead_bytes
        return cost + Cost(self._currency, 0.0, billed / GB * price.storage_gb_month)

    def _nearest(self, one: ObjectRecord, but: str) -> str:
        names = [name for name in (LOCAL, *self._tiers) if name in one.tiers and name != but]
        return names[0] if names else LOCAL

    def _price(self, tier: str, one: ObjectRecord) -> tuple[Price, Cost]:
        """The price for an object on a tier, and where it comes from, as a cost of nothing."""
        settings = self._tiers.get(tier)
        if settings is None:
            return FREE, Cost(self._currency)
        own = msgspec.structs.asdict(settings.prices)
        given = {name: value for name, value in own.items() if value is not None}
        if given or folder_of(settings.url) is not None:
            # Who gives prices gives all that are not nothing.
            return Price(**given), Cost(self._currency)
        listed = LIST_PRICES.get(self._class(settings, one))
        if listed is None or settings.endpoint is not None or self._currency != LIST_CURRENCY:
            return FREE, Cost(self._currency, unknown=(tier,))
        return listed, Cost(self._currency, listed=True)

    @staticmethod
    def _class(settings: TierSettings, one: ObjectRecord) -> str:
        if settings.storage_class is None or is_read_first(one.key):
            return "STANDARD"
        return settings.storage_class

    def _sum(self, costs: Iterable[Cost]) -> Cost:
        return sum(costs, Cost(self._currency))
