"""`dicomfs scp` as a process, with DCMTK's programs as modalities."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from dicomfs.archive import Archive
from dicomfs.cli import main
from dicomfs.cli.exit_codes import ExitCode
from tests import samples
from tests.archives import read_whole, rows, write_sources
from tests.conftest import real_files
from tests.peers import Modality, Rejected, data_set
from tests.scp_processes import dcmtk, scp

CT = [data for seed in range(2) for data in samples.ct_series(6, 24, 24, seed=seed)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Archive.create(tmp_path / "archive").close()
    return tmp_path / "archive"


def sent_by(folder: Path) -> set[bytes]:
    return {
        data_set(path.read_bytes()) for path in folder.rglob("*") if path.is_file() and path.stat().st_size
    }


def test_dcmtk_stores_into_a_folder_and_sigterm_ends_it_in_order(tmp_path: Path) -> None:
    sources, into = write_sources(tmp_path / "src", CT), tmp_path / "in"
    into.mkdir()
    with scp(tmp_path / "log", "--into", into) as server:
        target = ("-aec", "ARCHIVE", "127.0.0.1", server.port)
        assert dcmtk("echoscu", *target).returncode == 0
        assert dcmtk("storescu", "-xe", *target, *sorted(sources.iterdir())).returncode == 0
        assert dcmtk("dcmsend", "+sd", *target, sources).returncode == 0
        assert server.end() == ExitCode.DONE
        lines = server.lines("association")
        assert [(line["calling"], line["end"], line["stored"], line["failed"]) for line in lines] == [
            ("ECHOSCU", "released", "0", "0"),
            ("STORESCU", "released", "12", "0"),
            ("DCMSEND", "released", "12", "0"),
        ]
        assert "Sample" not in server.text()
    assert sorted(path.name for path in into.iterdir()) == [".dicomfs-scp", "DCMSEND", "STORESCU"]
    stored = sorted(into.rglob("*.dcm"))
    assert len(stored) == 24
    for path in stored:
        read = pydicom.dcmread(path)
        assert path.stem == read.SOPInstanceUID == read.file_meta.MediaStorageSOPInstanceUID
        assert read.file_meta.SourceApplicationEntityTitle == path.parts[-3]
    assert {data_set(path.read_bytes()) for path in stored} >= sent_by(sources)


def test_into_the_archive_every_instance_is_there_at_once_and_exact_when_packed(
    tmp_path: Path, root: Path
) -> None:
    sources = write_sources(tmp_path / "src", CT)
    with scp(tmp_path / "log", archive=root) as server:
        senders = [
            threading.Thread(
                target=dcmtk, args=("dcmsend", "-aec", "ARCHIVE", "127.0.0.1", server.port, *part)
            )
            for part in (sorted(sources.iterdir())[number::3] for number in range(3))
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        with Archive.open(root) as archive:
            before = {row.name: read_whole(archive, row.id) for _, row in rows(archive)}
            shown = {data_set(read_whole(archive, row.id)) for _, row in rows(archive)}
            assert shown == {data_set(data) for data in CT}
            assert archive.pack().instances == len(CT)
            assert {data_set(read_whole(archive, row.id)) for _, row in rows(archive)} == shown
        assert len(before) == 6
        assert dcmtk("dcmsend", "+sd", "-aec", "ARCHIVE", "127.0.0.1", server.port, sources).returncode == 0
        with Archive.open(root) as archive:
            assert archive.status()["instances"] == len(CT)
            assert archive.verify(deep=True).problems == []
        assert server.end(signal.SIGINT) == ExitCode.DONE


@pytest.mark.parametrize("path", real_files("odd", every=6), ids=lambda path: path.name)
def test_real_odd_files_come_back_with_the_data_sets_that_were_sent(
    path: Path, odd: tuple[int, Path]
) -> None:
    port, into = odd
    raw = path.read_bytes()
    if raw[128:132] != b"DICM" or raw[132:140] != b"\2\0\0\0UL\4\0":
        data, syntax = raw, samples.EXPLICIT
    else:
        data = data_set(raw)
        syntax = str(pydicom.dcmread(path, stop_before_pixels=True, force=True).file_meta.TransferSyntaxUID)
    with Modality(port, [(samples.CT_IMAGE, [syntax])], calling="ODD") as peer:
        assert peer.store(data, instance="1.2.3").status == 0
    (stored,) = (found for found in into.glob("ODD/*/*.dcm") if data_set(found.read_bytes()) == data)
    meta = pydicom.dcmread(stored, specific_tags=[], force=True).file_meta
    assert str(meta.TransferSyntaxUID) == syntax
    stored.unlink()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server for many files."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "in").mkdir()
    with scp(folder / "log", "--into", folder / "in") as server:
        yield server.port, folder / "in"


def test_a_store_that_runs_when_sigterm_comes_is_finished(tmp_path: Path) -> None:
    with scp(tmp_path / "log", "--into", tmp_path) as server, Modality(server.port) as peer:
        peer.begin(b"a" * 1000, whole=False)
        ended = threading.Thread(target=server.end)
        ended.start()
        while "stopping" not in server.text():
            pass
        peer.send(1, 2, b"b")
        assert peer.response().status == 0
        ended.join()
        assert server.process.returncode == 0
    (stored,) = tmp_path.rglob("*.dcm")
    assert data_set(stored.read_bytes()) == b"a" * 1000 + b"b"


def test_options_bound_who_may_come(tmp_path: Path) -> None:
    options = ("--require-called", "--max-associations", "1")
    with scp(tmp_path / "log", "--into", tmp_path, *options) as server:
        with pytest.raises(Rejected, match=r"\(1, 1, 7\)"):
            Modality(server.port, called="OTHER")
        with Modality(server.port), pytest.raises(Rejected, match=r"\(2, 3, 2\)"):
            Modality(server.port)
    with (
        scp(tmp_path / "log", "--into", tmp_path, "--reserve", str(1 << 60)) as server,
        pytest.raises(Rejected, match=r"\(2, 3, 2\)"),
    ):
        Modality(server.port)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--ae-title", "", "--port", "0"], "AE title"),
        (["--ae-title", "A\\B", "--port", "0"], "AE title"),
        (["--ae-title", "A", "--port", "0", "--address", "192.0.2.1"], "cannot listen"),
        (["--ae-title", "A", "--port", "70000"], "70000"),
        (["--port", "0"], "--ae-title"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["scp", "--into", str(tmp_path), *arguments]) == ExitCode.USAGE
    assert message in capfd.readouterr().err


def test_without_a_folder_an_archive_must_be_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["scp", "--ae-title", "A", "--port", "0"]) == ExitCode.USAGE
    assert "which archive" in capfd.readouterr().err
