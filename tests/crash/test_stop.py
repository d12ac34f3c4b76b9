"""Long commands asked to stop: nothing is lost, nothing lies about, and the next run goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from tests import samples
from tests.archives import contents, digests, write_sources
from tests.crash.processes import PATIENCE_SECONDS, processor_seconds, start, wait_until

SERIES = 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive with more in its spool than is packed in a moment."""
    for number in range(SERIES):
        write_sources(tmp_path / "in" / str(number), series(number))
    with Archive.create(tmp_path / "archive") as archive:
        archive.import_paths([tmp_path / "in"])
    return tmp_path / "archive"


def series(number: int) -> list[bytes]:
    return samples.ct_series(24, 160, 160, seed=number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pack_ends_when_asked_and_goes_on_when_called_again(root: Path, number: signal.Signals) -> None:
    # The slowest profile: there must be much left to do when the signal comes.  Half of the time is starting.
    process = start(root, "pack", "--profile", "archive", "--json")
    wait_until(process, lambda: processor_seconds(process) > 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert "stopping" in err
    report = json.loads(out)
    assert report["stopped"]
    assert report["failed"] == []
    assert list((root / "staging").iterdir()) == []
    everything = digests([data for number in range(SERIES) for data in series(number)])
    with Archive.open(root) as archive:
        assert archive.catalog.counts().spool_instances == 24 * SERIES - report["instances"]
        assert archive.catalog.intents() == []
        assert contents(archive) == everything
        again = archive.pack()
        assert (again.instances, again.stopped) == (24 * SERIES - report["instances"], False)
        assert contents(archive) == everything
        verified = archive.verify(deep=True)
    assert (verified.problems, verified.notes) == ([], [])
