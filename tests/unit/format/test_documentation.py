"""docs/format.md agrees with the code."""

from __future__ import annotations

import io
import re
from pathlib import Path

from dicomfs.format.head import TRAILER_BYTES
from dicomfs.format.pack import PackReader, PackWriter
from dicomfs.format.version import MAJOR, MINOR, SECTION_MAGIC, TRAILER_MAGIC, Section
from dicomfs.model import PackKind
from tests.format_samples import ARCHIVE_ID, CountingReader

_PAGE = (Path(__file__).parents[3] / "docs" / "format.md").read_text()


def _example() -> bytes:
    dump = _PAGE.split("<!-- example: opaque pack -->")[1].split("\n\n")[0]
    return b"".join(bytes.fromhex(line) for line in re.findall(r"^ +[0-9a-f]{4}  ([0-9a-f ]+)$", dump, re.M))


def test_the_example_reads_as_the_page_says() -> None:
    pack = _example()
    reader = PackReader(CountingReader(pack), len(pack), "example")
    assert (reader.kind, reader.archive_id) == (PackKind.OPAQUE, ARCHIVE_ID)
    assert reader.read_stream(0, 0, 100) == b"hello dicom"


def test_the_example_is_what_the_writer_writes() -> None:
    file = io.BytesIO()
    writer = PackWriter(file, PackKind.OPAQUE, ARCHIVE_ID)
    writer.add_chunk(writer.add_stream(11), 0, b"hello dicom")
    writer.finish()
    assert file.getvalue() == _example()


def test_constants_on_the_page_are_those_of_the_code() -> None:
    assert _PAGE.startswith(f"# Format of packs and journal objects, version {MAJOR}.{MINOR}\n")
    assert f"`{SECTION_MAGIC.hex(' ')}`" in _PAGE
    assert f"`{TRAILER_MAGIC.hex(' ')}`" in _PAGE
    assert f"the last {TRAILER_BYTES} bytes" in _PAGE
    for kind in Section:
        assert f"| {kind.value} | {kind.name} |" in _PAGE
