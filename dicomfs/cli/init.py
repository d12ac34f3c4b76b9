"""``dicomfs init``: makes an archive."""

from __future__ import annotations

from pathlib import Path

import click

from dicomfs.archive import Archive
from dicomfs.cli import output
from dicomfs.cli.exit_codes import ExitCode
from dicomfs.cli.state import PathName, State, pass_state


@click.command("init")
@click.option("--laboratory", type=PathName(), metavar="DIR", help="A folder of the institution's store.")
@click.option("--external", metavar="URL", help="An object store: s3://BUCKET/PREFIX.")
@click.option(
    "--key-file", type=PathName(), metavar="FILE", help="What encrypts other tiers; made if there is none."
)
@pass_state
def command(state: State, laboratory: Path | None, external: str | None, key_file: Path | None) -> int:
    """Make an empty archive in the folder named by -a, which must be new or empty.

    Further tiers are written into its dicomfs.toml, where more can be said of them; objects go there with
    `dicomfs tier copy`.  They are encrypted: keep the key file in a safe place, too, nothing opens them
    without.
    """
    path = state.archive_path()
    urls: dict[str, str] = {}
    if laboratory is not None:
        urls["laboratory"] = laboratory.absolute().as_uri()
    if external is not None:
        urls["external"] = external
    with Archive.create(path, urls, key_file):
        output.note(f"archive made in {path}")
    return ExitCode.DONE
