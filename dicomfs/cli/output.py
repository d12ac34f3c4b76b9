"""What a person or a script sees: one result on standard output, everything else on standard error.

Owns tables, the one JSON document, human sizes and progress: bars, or lines.  Text from files (paths,
descriptions) is shown with control characters escaped: a name must not be able to drive the terminal.
"""

from __future__ import annotations

import errno
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from dicomfs.progress import Progress

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: int | float) -> str:
    """Return bytes for people, in powers of 1024 with three digits: ``1.50 MiB``."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 1000 or unit == _UNITS[-1]:
            break
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f} {unit}"


def share(part: int, whole: int) -> str:
    """Return `part` of `whole` in per cent; a dash when there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def printable(value: object) -> str:
    """Return the text with control characters and lone surrogates escaped."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def say(text: str) -> None:
    """Write one line of the result."""
    click.echo(printable(text))


def note(text: str) -> None:
    """Write one line beside the result, to standard error."""
    try:
        click.echo(printable(text), err=True)
    except OSError as error:
        # Standard error may be a file on a full disk: what was done counts, not what was said of it.
        if error.errno != errno.ENOSPC:
            raise


def complain(text: str) -> None:
    """Write an error: one line to standard error."""
    note(f"dicomfs: {text}")


def problem(error: Exception) -> str:
    """Return what an error says; for the system's, the file and what is wrong with it."""
    if not isinstance(error, OSError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def emit_json(document: object) -> None:
    """Write the one JSON document of the command."""
    click.echo(json.dumps(document, indent=2, default=str))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Write rows: aligned on a terminal, separated by tabs without a heading elsewhere.

    `right` names the columns of numbers.
    """
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(printable(cell) for cell in row))
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    Console(soft_wrap=False).print(grid)


class _BarProgress:
    """Draws a bar a task on standard error."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, total: int | None, what: str) -> None:
        self.done()
        self._task = self._bars.add_task(what, total=total)

    def advance(self, amount: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, amount)

    def done(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


LINE_SECONDS = 10.0
"""Between two lines of progress: a log stays readable, and short work writes none."""


class LineProgress:
    """Writes a line on standard error now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._total: int | None = None
        self._what = ""
        self._count = 0
        self._began = self._told = clock()

    def start(self, total: int | None, what: str) -> None:
        """Begin a task."""
        self._total, self._what, self._count = total, what, 0
        self._began = self._told = self._clock()

    def advance(self, amount: int) -> None:
        """Count, and write a line where one is due."""
        self._count += amount
        now = self._clock()
        if now - self._told >= LINE_SECONDS:
            self._told = now
            note(self._line(now - self._began))

    def done(self) -> None:
        """End the task."""
        self._what = ""

    def _line(self, seconds: float) -> str:
        rate = self._count / seconds
        if not self._total:
            return f"{self._what}: {size(self._count)}, {size(rate)}/s"
        left = max(0, self._total - self._count) / rate if rate else 0.0
        return (
            f"{self._what}: {share(self._count, self._total)}, {size(self._count)} of {size(self._total)},"
            f" {size(rate)}/s, {duration(left)} left"
        )


def duration(seconds: float) -> str:
    """Return a time for people, rounded up: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def progress() -> Iterator[Progress]:
    """Yield a listener that draws bars on a terminal, and writes a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield LineProgress()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _BarProgress(bars)
