"""Which packs hold frames that came before: a sparse index from fingerprints to packs.

Of each stack a few frames are listed, one in sixteen by its fingerprint and at least one; whether the frames
beside them are there as well is seen in the pack's own index.  So the table takes one or two bytes a frame.
Owns one LMDB environment that may be deleted at any time: the packer lists again what is missing, and what is
found here is compared byte by byte before anything relies on it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dicomfs.errors import CatalogError
from dicomfs.index.env import Environment
from dicomfs.index.keys import Part, Table, pack_object_key, unpack_object_key
from dicomfs.model import ObjectKey

ENVIRONMENT = "frames"
_ADD = "FrameIndex.add"
_PACKS = "pixel and burned packs"
PACKS = Table("packs", ENVIRONMENT, (("number", Part.U40),), "object", _ADD, _PACKS)
NUMBERS = Table("numbers", ENVIRONMENT, (("object", Part.TAIL),), "number u40", _ADD, _PACKS)
FINGERPRINTS = Table(
    "fingerprints",
    ENVIRONMENT,
    (("first byte of the fingerprint", Part.U8),),
    "4 more bytes of it, number of the pack u40",
    _ADD,
    _PACKS,
    duplicates=True,
)
FRAME_TABLES = (PACKS, NUMBERS, FINGERPRINTS)
_KEPT = 4
_ONE_IN = 16


def sampled(fingerprints: Iterable[int]) -> set[int]:
    """Those of the frames of a stack that are listed: one in sixteen, and the two smallest of all.

    Two, because of the frames that are one value throughout, which have a fingerprint in a pack's index and
    none where frames are looked up, a stack mostly has the same one over and over.
    """
    distinct = set(fingerprints)
    return {one for one in distinct if one % _ONE_IN == 0} | set(heapq.nsmallest(2, distinct))


class FrameIndex:
    """The index of one archive in ``folder``; made where there is none.  Any thread may use it."""

    def __init__(self, folder: Path) -> None:
        try:
            self._env = Environment(folder, FRAME_TABLES, create=True)
        except CatalogError:
            for name in ("data.mdb", "lock.mdb"):
                (folder / name).unlink(missing_ok=True)
            self._env = Environment(folder, FRAME_TABLES, create=True)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def packs(self) -> set[ObjectKey]:
        """The packs that are listed."""
        with self._env.read() as txn:
            return {unpack_object_key(short) for short, _ in txn.scan(NUMBERS)}

    def add(self, key: ObjectKey, fingerprints: Iterable[int]) -> None:
        """List a pack with fingerprints (64 bits) of some of its frames; the second time nothing happens."""
        with self._env.write() as txn:
            short = pack_object_key(key)
            if txn.get(NUMBERS, short) is not None:
                return
            last = txn.last(PACKS)
            number = 1 + (PACKS.numbers(last[0])[0] if last is not None else 0)
            txn.put(PACKS, PACKS.pack(number), short)
            txn.put(NUMBERS, short, PACKS.pack(number))
            pairs = ((one.to_bytes(8, "big"), PACKS.pack(number)) for one in set(fingerprints))
            txn.put_duplicates(
                FINGERPRINTS, sorted((raw[:1], raw[1 : 1 + _KEPT] + place) for raw, place in pairs)
            )

    def find(self, fingerprints: Iterable[int]) -> list[ObjectKey]:
        """Packs that may hold frames with these fingerprints, the one with the most of them first."""
        hits: Counter[bytes] = Counter()
        with self._env.read() as txn:
            for one in fingerprints:
                raw = one.to_bytes(8, "big")
                found = txn.duplicates(FINGERPRINTS, raw[:1], raw[1 : 1 + _KEPT])
                hits.update(value[_KEPT:] for value in found)
            places = [(txn.get(PACKS, number), count) for number, count in hits.items()]
        known = sorted((-count, short) for short, count in places if short is not None)
        return [unpack_object_key(short) for _, short in known]
