"""File names within one series: who has which, and what the next one gets.

A name belongs to a SOP Instance UID and never changes: the first file of a UID fixes it, another UID never
shares it.  Derived from the rows of the catalog, so a rebuilt index gives the same names.
"""

from __future__ import annotations

from collections.abc import Iterable

from dicomfs.instance_names import instance_name
from dicomfs.model import InstanceRow


class SeriesNames:
    """The names taken in a series, and the highest version number behind each."""

    def __init__(self, rows: Iterable[InstanceRow]) -> None:
        self._taken: set[str] = set()
        self._by_uid: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        for row in rows:
            self._taken.add(row.name)
            self._by_uid[row.sop_instance_uid] = row.name
            self._versions[row.name] = max(self._versions.get(row.name, 0), row.version)

    def take(self, uid: str, number: int | None) -> tuple[str, int, int | None]:
        """The name of an instance: (name, level, number it is made from); taken from now on."""
        known = self._by_uid.get(uid)
        if known is not None:
            number = _number_of(known)
        for level in range(3):
            name = instance_name(number, uid, level)
            if name == known or (known is None and name not in self._taken):
                self._taken.add(name)
                self._by_uid[uid] = name
                return name, level, number
        raise AssertionError("hashes of three lengths collide")

    def next_version(self, name: str) -> int:
        """The number under which the next superseded file of this name is shown; taken from now on."""
        self._versions[name] = self._versions.get(name, 0) + 1
        return self._versions[name]


def _number_of(name: str) -> int | None:
    stem = name.split(".", 1)[0].split("-", 1)[0]
    return None if stem == "x" else int(stem)
