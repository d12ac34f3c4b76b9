"""Measures what headers cost: bytes per instance, everything counted, and the time to read one.

    python -m benchmarks.headers FOLDER [--together | --split N] [--json]

Each folder below FOLDER is a series, or several; its header packs are written as the packer writes them.
``blocks`` are the header bytes, ``all`` is the whole header pack: SHA-256 (32 bytes an instance), mtimes,
UIDs, places, names and framing included, with no text shared.  Peers get the header bytes alone: each through
zstd -19, all together through zstd -19 --long=27 and xz -9e.  ``ms/block`` is the time of decoding a block,
``ms first`` that of one header from a pack just opened, ``ms each`` that of one header when all are read in
order; CPU time, best of three.
``--together`` packs all folders as one batch; ``--split`` cuts every series in N, once as series of N studies
and once as series of one.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import zstandard

from dicomfs.archive import Archive
from dicomfs.format.header import HeaderPackReader, HeaderPackWriter, SeriesPart, needed_features
from dicomfs.model import PackKind, is_text_pack
from dicomfs.packs import PackSource

_Parts = list[tuple[SeriesPart, list[bytes]]]
_RUNS = 3
_COLUMNS = "folder|instances|raw|zstd alone|zstd joint|xz joint|blocks|all|ms/block|ms first|ms each"


@dataclass(frozen=True)
class Row:
    """One folder."""

    folder: str
    instances: int
    raw: float
    """Bytes per instance, as all that follow."""
    alone: float
    zstd: float
    xz: float
    blocks: float
    all: float
    block_ms: float
    first_ms: float
    read_ms: float
    pack_ms: float


def parts_of(folder: Path, work: Path) -> _Parts:
    """Tables and header bytes of a folder, as an archive packs them."""
    found: _Parts = []
    with Archive.create(work) as archive:
        archive.import_paths([folder])
        archive.pack("fast")
        source = PackSource(archive.tier)
        for key, _ in archive.tier.list(PackKind.HEADER.prefix):
            reader = source.headers(key)
            for number, summary in enumerate(reader.parts):
                part = reader.part(number)
                packs = {key: digest for key, digest in part.packs.items() if not is_text_pack(key)}
                headers = [reader.header(number, row) for row in range(summary.rows)]
                found.append((replace(part, packs=packs), headers))
    return found


def _range(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def packed(parts: _Parts) -> bytes:
    """A header pack of these parts."""
    file = io.BytesIO()
    writer = HeaderPackWriter(file, bytes(16), needed_features([part for part, _ in parts]))
    for part, headers in parts:
        writer.add_part(part, headers)
    writer.finish()
    return file.getvalue()


def best(work: Callable[[], object]) -> float:
    """Milliseconds of CPU time, the least of three runs."""
    times = []
    for _ in range(_RUNS):
        started = time.thread_time()
        work()
        times.append(1000 * (time.thread_time() - started))
    return min(times)


def measure(folder: str, parts: _Parts) -> Row:
    """Pack and read back the headers of a folder, beside its peers."""
    headers = [header for _, each in parts for header in each]
    count, joint = len(headers), b"".join(headers)
    started = time.thread_time()
    pack = packed(parts)
    pack_ms = 1000 * (time.thread_time() - started)
    reader = HeaderPackReader(_range(pack), len(pack), folder)
    blocks = range(reader.block_count)
    if (
        b"".join(reader.header(n, row) for n, (_, each) in enumerate(parts) for row in range(len(each)))
        != joint
    ):
        raise SystemExit(f"{folder}: other header bytes come back")
    decode_ms = best(lambda: [reader.block(number) for number in blocks])
    alone = zstandard.ZstdCompressor(level=19)
    long = zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=True)
    return Row(
        folder=folder,
        instances=count,
        raw=len(joint) / count,
        alone=sum(len(alone.compress(header)) for header in headers) / count,
        zstd=len(zstandard.ZstdCompressor(compression_params=long).compress(joint)) / count,
        xz=len(lzma.compress(joint, preset=9 | lzma.PRESET_EXTREME)) / count,
        blocks=sum(reader.stored_bytes(number) for number in blocks) / count,
        all=len(pack) / count,
        block_ms=decode_ms / len(blocks),
        first_ms=best(lambda: HeaderPackReader(_range(pack), len(pack), folder).header(0, 0)),
        read_ms=decode_ms / count,
        pack_ms=pack_ms / count,
    )


def cut(parts: _Parts, count: int, *, one_study: bool) -> _Parts:
    """Each series as so many, of one study or of several; other UIDs of the series in the headers, too."""
    found: _Parts = []
    for part, headers in parts:
        length = len(headers) // count
        for piece in range(count if length else 0):
            run = slice(piece * length, (piece + 1) * length)
            uid = f"{part.series.uid[:-2]}{10 + piece}"
            study = replace(part.study, number=part.study.number + (0 if one_study else len(found)))
            series = replace(part.series, number=part.series.number + len(found), study=study.number, uid=uid)
            renamed = [header.replace(part.series.uid.encode(), uid.encode()) for header in headers[run]]
            found.append((replace(part, study=study, series=series, entries=part.entries[run]), renamed))
    return found


def report(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [
        f"|{_COLUMNS}|",
        "|---" * (1 + _COLUMNS.count("|")) + "|",
    ]
    for row in rows:
        sizes = (row.raw, row.alone, row.zstd, row.xz, row.blocks, row.all)
        times = (row.block_ms, row.first_ms, row.read_ms)
        cells = [
            row.folder,
            str(row.instances),
            *(f"{size:.1f}" for size in sizes),
            *(f"{ms:.2f}" for ms in times),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure every folder below the one named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--split", type=int, metavar="N")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    every: _Parts = []
    with tempfile.TemporaryDirectory() as work:
        for folder in sorted(path for path in options.folder.iterdir() if path.is_dir()):
            parts = parts_of(folder, Path(work) / folder.name)
            every += parts
            if options.split:
                for one_study, of in ((False, "studies"), (True, "series")):
                    some = cut(parts, options.split, one_study=one_study)
                    rows.append(measure(f"{folder.name}, {options.split} {of}", some))
            elif not options.together:
                rows.append(measure(folder.name, parts))
    if options.together:
        rows.append(measure("all together", every))
    print(json.dumps([vars(row) for row in rows], indent=1) if options.json else report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
