"""``dicomfs scp``: receives from modalities over the DICOM network."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicomfs import config, log
from dicomfs.cli.state import PathName, State, opened, pass_state
from dicomfs.cli.stopping import asked_by_signals

if TYPE_CHECKING:
    from dicomfs.store_sink import Sink

_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 1.0


@click.command("scp")
@click.option("--ae-title", required=True, help="What we are called, 1 to 16 characters.")
@click.option("--port", required=True, type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option("--address", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104
@click.option("--into", type=PathName(), help="Store plain files below this folder, not into the archive.")
@click.option("--require-called", is_flag=True, help="Reject who calls another AE title.")
@click.option(
    "--reserve", type=click.IntRange(0), help="Bytes to keep free (else archive.minimum_free_bytes)."
)
@click.option(
    "--max-associations", default=16, show_default=True, type=click.IntRange(1, 1000), help="At once."
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds of silence after which an association is aborted.",
)
@pass_state
def command(  # noqa: PLR0913, PLR0917  one an option
    state: State,
    ae_title: str,
    port: int,
    address: str,
    into: Path | None,
    require_called: bool,
    reserve: int | None,
    max_associations: int,
    timeout: float,
) -> None:
    """Receive instances over the DICOM network (C-STORE, C-ECHO) until SIGTERM or Ctrl-C.

    What is answered with success survives a power cut.  Every storage SOP class and transfer syntax is taken
    as it comes.  Listens on all addresses: allow the modalities in the firewall, nobody else.
    """
    from dicomfs.network.model import NodeSettings  # noqa: PLC0415  as heavy as the archive itself
    from dicomfs.scp import serving  # noqa: PLC0415

    # Unlike other commands this one says what it does: nobody waits for its result.
    log.set_up(logging.DEBUG if state.verbose > 1 else logging.INFO, as_json=state.log_json)
    settings = NodeSettings(ae_title, port, address, require_called, max_associations, timeout)
    with _sink(state, into) as (sink, default_reserve):
        reserve_bytes = default_reserve if reserve is None else reserve
        with asked_by_signals() as stop, serving(sink, settings, reserve_bytes, _PATIENCE_SECONDS):
            # A signal that the system hands to another thread would not end a wait without a limit.
            while not stop.wait(_LOOK_SECONDS):
                pass


@contextlib.contextmanager
def _sink(state: State, into: Path | None) -> Iterator[tuple[Sink, int]]:
    """Where files go, and the free space to keep there when no other is asked for."""
    if into is not None:
        from dicomfs.store_sink import FolderSink  # noqa: PLC0415

        settings = config.Settings() if state.archive is None else config.load(state.archive_path())
        yield FolderSink(into), settings.archive.minimum_free_bytes
        return
    from dicomfs.archive_sink import ArchiveSink  # noqa: PLC0415

    with opened(state) as archive:
        yield ArchiveSink(archive), archive.settings.archive.minimum_free_bytes
