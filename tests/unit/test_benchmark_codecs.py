"""The comparison of codecs: everything that is measured is lossless, and the tables say what was measured."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.codecs import Row, means, measured, tables, write_csv
from benchmarks.peers import PEERS, REFERENCE
from tests import samples
from tests.archives import write_sources

OURS = ["fast", "dense", "archive", "pack fast", "pack dense", "pack archive"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What all codecs make of a short series, of an enhanced file, and of what has no pixels."""
    files = [*samples.ct_series(6, 48, 40), samples.enhanced_mr(4, 32, 32), samples.structured_report()]
    folder = write_sources(tmp_path_factory.mktemp("benchmark") / "series", files)
    return measured(folder, 1 << 20, [])


def test_every_codec_takes_its_part_and_is_lossless(rows: list[Row]) -> None:
    assert [row.codec for row in rows] == [peer.name for peer in PEERS] + OURS
    taken = {row.codec for row in rows if not row.note}
    assert {row.note for row in rows} <= {"", "not taken"}
    assert taken >= {REFERENCE, "JPEG-LS", "HTJ2K", "zstd -19", "FFV1", *OURS}
    assert {row.raw_bytes for row in rows if not row.note} == {6 * 48 * 40 * 2 + 4 * 32 * 32 * 2}
    assert all(0 < row.coded_bytes < row.raw_bytes and row.decode_s > 0 for row in rows if not row.note)


def test_no_more_is_taken_of_a_folder_than_was_asked_for(tmp_path: Path) -> None:
    folder = write_sources(tmp_path / "series", samples.ct_series(6, 48, 40))
    frame = 48 * 40 * 2
    found = measured(folder, 3 * frame + 5, [REFERENCE])
    assert [row.codec for row in found] == [REFERENCE, *OURS]
    assert {row.raw_bytes for row in found} == {3 * frame}


def test_tables_and_csv_tell_what_was_measured(rows: list[Row], tmp_path: Path) -> None:
    reference = next(mean for mean in means(rows) if mean.codec == REFERENCE)
    assert (reference.to_reference, reference.folders) == (1.0, 1)
    text = list(tables(rows))
    assert f"| {REFERENCE} | 1 | {reference.ratio:.3f} | 1.000 |" in "\n".join(text)
    assert text[-1].startswith(f"| series | {rows[0].raw_bytes / 1e6:.1f} | {reference.ratio:.3f} |")
    write_csv(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["codec"] for row in read] == [row.codec for row in rows]
    assert [int(row["coded_bytes"]) for row in read] == [row.coded_bytes for row in rows]
