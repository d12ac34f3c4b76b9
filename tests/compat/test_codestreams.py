"""Codestreams that were taken apart once come back for ever, by the product and from the format's text."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from dicomfs.codec.bitstream.base import Method
from dicomfs.codec.bitstream.registry import write_frame, write_transcoded
from dicomfs.model import PixelLayout
from tests.independent_codecs import Layout
from tests.independent_codestreams import make

_GOLDEN = sorted((Path(__file__).parent / "codestreams").glob("*.json"))


@pytest.mark.parametrize("path", _GOLDEN, ids=lambda path: path.stem)
def test_a_golden_codestream_is_made_again(path: Path) -> None:
    golden = json.loads(path.read_text())
    source, recipe = base64.b64decode(golden["source"]), base64.b64decode(golden["recipe"])
    method, size = golden["method"], golden["layout"]
    if size is None:
        made = [
            write_transcoded(method, source, recipe, golden["length"]),
            make(method, source, None, recipe),
        ]
    else:
        rows, columns, samples, bits = size
        layout = PixelLayout(rows, columns, samples, bits, bits, bits - 1, signed=False)
        plain = Layout(rows, columns, samples, bits, bits, bits - 1, 0)
        made = [write_frame(method, source, layout, recipe), make(method, source, plain, recipe)]
    for codestream in made:
        assert len(codestream) == golden["length"]
        assert hashlib.sha256(codestream).hexdigest() == golden["sha256"]


def test_every_method_has_golden_codestreams() -> None:
    assert {json.loads(path.read_text())["method"] for path in _GOLDEN} == set(Method)
