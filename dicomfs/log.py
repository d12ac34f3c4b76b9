"""Logging set-up: one line an event, as key=value text or as JSON.

Owns the format and where the lines go.  Events carry the product's own numbers (series, position, object
keys, sizes), never patient attributes; that is up to those who log.  Extra fields are given with
``extra={...}`` and come out as their own keys.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BARE = re.compile(r"[^\s\"=\\]+")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what one line tells, in its order."""
    fields: dict[str, object] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": record.getMessage(),
    }
    fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if record.exc_info:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _quoted(value: object) -> str:
    """Return `value` bare where that is unambiguous, else as a JSON string: a line never breaks."""
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class KeyValueFormatter(logging.Formatter):
    """``time=… level=… logger=… event="…" key=value``, one line an event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return " ".join(f"{key}={_quoted(value)}" for key, value in _fields(record).items())


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the keys of `KeyValueFormatter`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json.dumps(_fields(record), ensure_ascii=False, default=str)


def set_up(level: int = logging.WARNING, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Send everything logged at `level` and above to `stream` (standard error), replacing earlier set-ups."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else KeyValueFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("dicomfs").setLevel(level)
