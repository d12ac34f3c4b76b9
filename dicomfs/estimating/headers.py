"""Headers of a series that is measured: table and header bytes as packing would store them, and their size.

Owns how many rows are coded, and what these say of the others.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from dicomfs.dicom.pixels import RunKind
from dicomfs.format.header import HeaderPackWriter, SeriesPart, needed_features
from dicomfs.model import CodedPiece, HeaderPiece, TranscodedPiece
from dicomfs.packing.build import Places, header_bytes, instance_entry
from dicomfs.packing.plan import BatchPlan

HEADER_ROWS, HEADER_BYTES = 192, 24 << 20
"""Headers of a series that are coded."""
_ARCHIVE = bytes(16)
_MARKS = {"patient": 1024, "study": 1024, "series": 1024}
_INDEX_DIGEST = 0x9E3779B97F4A7C15
_CODED = (CodedPiece, TranscodedPiece)


def series_part(plan: BatchPlan, places: Places) -> tuple[SeriesPart, list[bytes]]:
    """The table of a series and its header bytes, of not too many rows."""
    count, used = 0, 0
    for instance in plan.instances[:HEADER_ROWS]:
        used += sum(run.length for run in instance.split.runs if run.kind is RunKind.HEADER)
        if count and used > HEADER_BYTES:
            break
        count += 1
    entries = [instance_entry(plan, index, places) for index in range(count)]
    packs = {
        piece.pack: _INDEX_DIGEST
        for entry in entries
        for piece in entry.pieces
        if not isinstance(piece, HeaderPiece)
    }
    patient, study, series, _ = plan.series[0]
    part = SeriesPart(patient, study, series, 0, _MARKS, entries, packs)
    return part, [header_bytes(plan.instances[index], index, places) for index in range(count)]


def more_header_bytes(part: SeriesPart, headers: Sequence[bytes], instances: int, tried: float) -> float:
    """Bytes of header packs that the rows and codestreams beyond those in ``part`` take."""
    more, rows = 0.0, len(headers)
    if rows < instances:
        half = replace(part, entries=part.entries[: rows // 2])
        few = header_pack_bytes([(half, headers[: rows // 2])])
        more += (header_pack_bytes([(part, headers)]) - few) / (rows - rows // 2) * (instances - rows)
    if tried > 1:
        plain = [
            replace(one, pieces=tuple(p for p in one.pieces if not isinstance(p, _CODED)))
            for one in part.entries
        ]
        bare = [header[: one.header_length] for one, header in zip(plain, headers, strict=True)]
        without = header_pack_bytes([(replace(part, entries=plain), bare)])
        more += (header_pack_bytes([(part, headers)]) - without) * (tried - 1)
    return more


def header_pack_bytes(parts: Sequence[tuple[SeriesPart, Sequence[bytes]]]) -> int:
    """Size of a header pack of these parts."""
    writer = HeaderPackWriter(io.BytesIO(), _ARCHIVE, needed_features([part for part, _ in parts]))
    for part, headers in parts:
        writer.add_part(part, headers)
    return writer.finish().size
