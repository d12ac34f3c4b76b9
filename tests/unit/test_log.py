"""Logging: one line an event, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from dicomfs import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("dicomfs")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def logged(as_json: bool, level: int = logging.INFO) -> list[str]:
    stream = io.StringIO()
    log.set_up(level, as_json=as_json, stream=stream)
    logger = logging.getLogger("dicomfs.test")
    logger.info("placed an object", extra={"key": "pixel/ab", "size": 7, "note": "two\nlines"})
    logger.debug("detail")
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("failed")
    return stream.getvalue().splitlines()


def test_key_value_lines_hold_the_fields_and_never_break() -> None:
    first, second = logged(as_json=False)
    assert 'event="placed an object" key=pixel/ab size=7 note="two\\nlines"' in first
    assert "level=error" in second
    assert "ValueError: boom" in second


def test_json_lines_hold_the_same_fields() -> None:
    first, second = (json.loads(line) for line in logged(as_json=True))
    assert (first["event"], first["key"], first["size"]) == ("placed an object", "pixel/ab", 7)
    assert "ValueError: boom" in second["exception"]


def test_the_level_decides_what_is_shown() -> None:
    assert len(logged(as_json=True, level=logging.DEBUG)) == 3
    assert len(logged(as_json=True, level=logging.WARNING)) == 1
