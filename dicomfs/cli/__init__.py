"""The ``dicomfs`` command: finds the command's module, runs it, turns errors into one line and an exit code.

Each command has its own module with a click command named ``command`` and no logic of its own.  Errors are
shown without a traceback; with ``--verbose`` a defect shows its own.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from dicomfs import __version__, log
from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode, exit_code
from dicomfs.cli.state import PathName, State
from dicomfs.errors import DicomfsError

_log = logging.getLogger(__name__)
_COMPLETING = "_DICOMFS_COMPLETE"
"""Set by the shell's completion script (click's convention)."""

COMMANDS = {
    "init": "init",
    "import": "import_",
    "scp": "scp",
    "pack": "pack",
    "repack": "repack",
    "mount": "mount",
    "umount": "umount",
    "status": "status",
    "ls": "ls",
    "stat": "stat",
    "tier": "tier",
    "forget": "forget",
    "hold": "hold",
    "gc": "gc",
    "scrub": "scrub",
    "heal": "heal",
    "verify": "verify",
    "snapshot": "snapshot",
    "recover": "recover",
    "estimate": "estimate",
    "key": "key",
    "completion": "completion",
}
"""Name of each command → its module in this package, in the order of a first use."""


class _Commands(click.Group):
    """Imports a command's module when it is asked for, so that each command loads only what it needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click decides the signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"dicomfs.cli.{COMMANDS[cmd_name]}").command
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "-a",
    "--archive",
    envvar="DICOMFS_ARCHIVE",
    type=PathName(),
    help="The archive's folder (or DICOMFS_ARCHIVE).",
)
@click.option("-v", "--verbose", count=True, help="Log more: once what happens, twice details.")
@click.option("--log-json", is_flag=True, help="Log JSON objects, one a line.")
@click.version_option(__version__, prog_name="dicomfs", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, archive: Path | None, verbose: int, log_json: bool) -> None:
    """Keep DICOM files in a compressed archive and give every one back byte for byte."""
    log.set_up((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)], as_json=log_json)
    ctx.obj = State(archive=archive, verbose=verbose, log_json=log_json)


def from_mount8(arguments: Sequence[str]) -> list[str]:
    """Translate how mount(8) calls a filesystem (``ARCHIVE MOUNTPOINT -o …``) into our own command line.

    A path has a slash and no command has one, so nothing typed for us is taken for that form.
    """
    if len(arguments) < 2 or "/" not in arguments[0] or arguments[0].startswith("-"):
        return list(arguments)
    source, mountpoint, *options = arguments
    # -n, -s, -f and -v are mount(8)'s own (no mtab, sloppy, fake, verbose) and say nothing to us.
    return ["-a", source, "mount", mountpoint, *(o for o in options if o not in ("-n", "-s", "-f", "-v"))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process when not given) and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(from_mount8(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more when it ends: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.PIPE_CLOSED
    return code


def _run(arguments: list[str]) -> int:
    """Run the command line; every error becomes a line and a code."""
    try:
        result = cli.main(arguments, prog_name="dicomfs", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        output.complain("interrupted")
        return ExitCode.INTERRUPTED
    except DicomfsError as error:
        output.complain(str(error))
        return exit_code(error)
    except SystemExit as ended:
        # click ends by itself in two cases: it has completed a word, or standard output is closed.
        if _COMPLETING not in os.environ:
            return ExitCode.PIPE_CLOSED
        return ended.code if isinstance(ended.code, int) else ExitCode.DONE
    except OSError as error:
        _log.debug("system error", exc_info=True)
        output.complain(output.problem(error))
        return ExitCode.STORAGE
    except Exception as error:
        _log.debug("defect", exc_info=True)
        output.complain(f"defect: {type(error).__name__}; run again with -vv and report what it shows")
        return ExitCode.INTERNAL
    return int(result) if isinstance(result, int) else ExitCode.DONE
