"""Whether a new pack can take the place of another: every file that has frames in it is read from it.

Read by the code that serves reads, from the device, and compared with the SHA-256 that was taken when the
file was accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing

from dicomfs.errors import MismatchError
from dicomfs.format.pack import PackReader
from dicomfs.frames import FrameReader
from dicomfs.index.catalog import Catalog
from dicomfs.model import HeaderPiece, ObjectKey
from dicomfs.packing.run import PackRun
from dicomfs.packing.seal import Staged
from dicomfs.packs import PackSource
from dicomfs.reconstruct import PackedReader
from dicomfs.tiers.base import Tier

_CACHE_BYTES = 96 << 20
_STEP = 4 << 20
_TOGETHER_BYTES = 8 << 20

User = tuple[ObjectKey, int]
"""Header pack, and a part of it whose instances have pieces in a pack."""
_Row = tuple[ObjectKey, int, int]


def users_of(catalog: Catalog, source: PackSource, names: Collection[ObjectKey]) -> list[User]:
    """Who refers to a pack by any of its names."""
    return [
        (header, part)
        for header in catalog.referring(names)
        for part in range(len(source.headers(header).parts))
        if not source.part(header, part).packs.keys().isdisjoint(names)
    ]


def compare(
    staged: Staged,
    old: PackReader,
    names: Collection[ObjectKey],
    users: Sequence[User],
    catalog: Catalog,
    tier: Tier,
    run: PackRun,
) -> None:
    """See that a staged pack can stand for the packs of these names.

    Raises:
        MismatchError: it cannot.
        Stopped: somebody asked to stop.
    """

    def placed(key: ObjectKey) -> ObjectKey:
        return staged.key if key in names or key == staged.key else catalog.placed(key)

    with (
        closing(PackSource.staged(tier, {staged.key: staged.path}, placed)) as source,
        closing(FrameReader(source, _CACHE_BYTES)) as frames,
    ):
        _compare(source, frames, staged.key, old, names, users, catalog, run)


def _compare(
    source: PackSource,
    frames: FrameReader,
    key: ObjectKey,
    old: PackReader,
    names: Collection[ObjectKey],
    users: Sequence[User],
    catalog: Catalog,
    run: PackRun,
) -> None:
    shape = [(stack.layout, stack.frames) for stack in old.stacks]
    if [(stack.layout, stack.frames) for stack in source.object(key).stacks] != shape:
        raise MismatchError("stacks of the new pack")

    def check(rows: Sequence[_Row]) -> None:
        for row in rows:
            run.check()
            _require_exact(source, frames, *row)

    for _ in run.pool.map(check, _together(source, catalog, names, users)):
        pass
    if not users:
        _decode_all(frames, key, old, run)


def _require_exact(source: PackSource, frames: FrameReader, header: ObjectKey, part: int, row: int) -> None:
    table = source.part(header, part)
    reader = PackedReader(table, row, source.header_bytes(header, part, row), frames, source)
    digest = hashlib.sha256()
    for offset in range(0, reader.size, _STEP):
        digest.update(reader.read(offset, _STEP))
    if digest.digest() != reader.sha256:
        position = table.entries[row].position
        raise MismatchError(f"instance {table.series.number}/{position} from the new pack")


def _decode_all(frames: FrameReader, key: ObjectKey, old: PackReader, run: PackRun) -> None:
    """Where no file refers to a pack, the digests of its own frames are all there is."""
    for number, stack in enumerate(old.stacks):
        for frame in range(stack.frames):
            run.check()
            for one in frames.slices(key, number, frame, 0, stack.layout.frame_bytes):
                frames.fetch(one.unit)


def _together(
    source: PackSource, catalog: Catalog, names: Collection[ObjectKey], users: Sequence[User]
) -> Iterator[list[_Row]]:
    """Rows with pieces in the pack, in the order of their frames, about a segment at a time."""
    for header, part in users:
        entries = source.part(header, part).entries
        rows: list[_Row] = []
        size = 0
        # Those that were forgotten may need packs that are gone.
        known = [row for row in catalog.places_in(header).get(part, []) if row < len(entries)]
        for row in sorted(known, key=lambda row: entries[row].order):
            pieces = entries[row].pieces
            if not any(piece.pack in names for piece in pieces if not isinstance(piece, HeaderPiece)):
                continue
            rows.append((header, part, row))
            size += entries[row].size
            if size >= _TOGETHER_BYTES:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows
