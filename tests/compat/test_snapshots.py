"""A snapshot that an earlier version wrote is read for ever, here and by who knows docs/format.md alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dicomfs.format.snapshot import SnapshotReader
from tests.independent_snapshots import read_snapshot

_HERE = Path(__file__).parent / "snapshots"
DATA = (_HERE / "1.snapshot").read_bytes()
EXPECTED = json.loads((_HERE / "1.json").read_text())


def told(reader: SnapshotReader) -> dict[str, Any]:
    """What a snapshot says, as JSON has it."""
    headers = {}
    for key in list(reader.keys()):
        facts = reader.header(key)
        assert facts is not None
        headers[key] = {
            "size": facts.size,
            "parts": [
                {
                    "folders": [part.patient.folder, part.study.folder, part.series.folder],
                    "series": part.series.number,
                    "part": part.part,
                    "high water": part.high_water,
                    "needed": sorted(part.needed),
                    "rows": [
                        [
                            *(one.position, one.name_level, one.instance_number, one.sop_instance_uid),
                            *(one.size, one.mtime_ns, one.order, one.sha256.hex()),
                        ]
                        for one in part.entries
                    ],
                }
                for part in facts.parts
            ],
        }
    return {
        "archive": reader.archive_id.hex(),
        "about": [reader.about.time_ns, reader.about.writer, reader.about.sequence, reader.about.headers],
        "journal": {str(number): data.hex() for number, data in reader.journal()},
        "headers": headers,
        "stand-ins": {one.key: [one.size, one.profile, list(one.stands_for)] for one in reader.stand_ins()},
    }


def test_the_golden_snapshot_says_what_it_was_made_from() -> None:
    assert hashlib.sha256(DATA).hexdigest() == EXPECTED["object"], "golden objects never change"
    reader = SnapshotReader(lambda offset, length: DATA[offset : offset + length], len(DATA), "golden")
    assert told(reader) == EXPECTED["contents"]


def test_the_independent_reader_reads_the_golden_snapshot() -> None:
    found, expected = read_snapshot(DATA), EXPECTED["contents"]
    assert found.archive.hex() == expected["archive"]
    assert list(found.about) == expected["about"]
    assert {str(number): data.hex() for number, data in found.journal.items()} == expected["journal"]
    assert {key: [size, profile, names] for key, (size, profile, names) in found.stand_ins.items()} == (
        expected["stand-ins"]
    )
    for key, (size, parts) in found.headers.items():
        wanted = expected["headers"][key]
        assert size == wanted["size"]
        for part, other in zip(parts, wanted["parts"], strict=True):
            assert [[*row[:7], row[7].hex()] for row in part["rows"]] == other["rows"]
            assert sorted(part["needed"]) == other["needed"]
            assert [part["patient"][-1], part["study"][-1], part["series"][-1]] == other["folders"]
    assert found.headers.keys() == expected["headers"].keys()
