"""What all commands share: which archive, and the options in front of the command's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from dicomfs.archive import Archive


@dataclass(frozen=True, slots=True)
class State:
    """The options in front of the command's name."""

    archive: Path | None = None
    verbose: int = 0
    log_json: bool = False

    def archive_path(self) -> Path:
        """Return the archive's folder, absolute.  Raises UsageError when none was named."""
        if self.archive is None:
            raise UsageError("which archive? Name its folder with -a FOLDER or in DICOMFS_ARCHIVE")
        return self.archive.absolute()


class PathName(click.ParamType[Path]):
    """A path that is not looked at: click's own asks the file, and behind a dead mount that hangs."""

    name = "path"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002  click decides the signature
        return value if isinstance(value, Path) else Path(str(value))

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  click decides the signature
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


pass_state = click.make_pass_decorator(State)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@contextmanager
def opened(state: State) -> Iterator[Archive]:
    """Open the archive for one command.  Raises UsageError, CatalogError."""
    from dicomfs.archive import Archive  # noqa: PLC0415  keeps --help and umount free of the heavy libraries

    with Archive.open(state.archive_path()) as archive:
        yield archive
