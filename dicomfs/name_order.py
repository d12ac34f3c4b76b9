"""Which instances follow one another in name order: what a reader of a series reads next.

Owns that order, kept until the catalog changes: making it takes a scan of the series, and a reader of a long
series asks once a file.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dicomfs.model import InstanceId
from dicomfs.vfs_types import TreeCatalog

SERIES_KEPT = 4
"""Series whose order is kept; as many readers go on side by side without scanning again."""


@dataclass(frozen=True, slots=True)
class _Order:
    """The shown instances of a series, by name."""

    names: Sequence[str]
    ids: Sequence[InstanceId]


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read at one change number."""

    change: int
    orders: Mapping[int, _Order] = field(default_factory=dict)
    """By series, the one scanned last at the end."""


class NameOrder:
    """The order of names, read again when the catalog has changed.

    Any thread may call it: its cache is an immutable value replaced by one assignment.
    """

    def __init__(self, catalog: TreeCatalog) -> None:
        self._catalog = catalog
        self._known = _Known(-1)

    def following(self, instance: InstanceId, count: int) -> list[InstanceId]:
        """The next shown instances of the series, at most ``count``.  Raises NotFoundError."""
        name = self._catalog.row(instance).name
        order = self._order(instance.series)
        start = bisect.bisect_right(order.names, name)
        return list(order.ids[start : start + count])

    def _order(self, series: int) -> _Order:
        change = self._catalog.last_change()  # before the rows: they may be newer than it says
        known = self._known
        orders = known.orders if known.change == change else {}
        order = orders.get(series)
        if order is None:
            shown = [row for row in self._catalog.rows(series) if row.version == 0]
            order = _Order([row.name for row in shown], [row.id for row in shown])
            kept = list(orders.items())[1 - SERIES_KEPT :]
            self._known = _Known(change, {**dict(kept), series: order})
        return order
