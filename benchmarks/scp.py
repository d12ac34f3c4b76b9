"""Measures receiving: `dicomfs scp` into an archive and into a folder, beside DCMTK's `storescp`.

    python -m benchmarks.scp FOLDER... [--runs 5] [--senders 4] [--json]

DCMTK's `dcmsend` sends the same files to each, over one association and over several at once; rounds are
interleaved, medians are printed.  Nagle's algorithm is off in DCMTK's programs (``TCP_NODELAY=1``), which is
how they are fastest.  `storescp` keeps data sets bit by bit (``+B``) and syncs nothing; what writing the same
files and syncing each with its folder takes is measured beside it.  CPU is the server's, user and system.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.tables import print_table
from dicomfs.archive import Archive

_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
_START_SECONDS = 60


def files_under(folders: Sequence[Path]) -> list[Path]:
    """All files below some folders, by name."""
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def command_of(server: str, work: Path, port: int, senders: int) -> list[str]:
    """How a server is started; `work` is an empty folder."""
    if server == "storescp":
        program = shutil.which("storescp", path="/usr/bin:/usr/local/bin")
        assert program is not None, "DCMTK is not installed"
        # It serves one association at a time, unless it forks for each.
        forking = ["--fork"] if senders > 1 else []
        return [program, "+B", *forking, "-pdu", "131072", "-od", str(work), str(port)]
    command = [sys.executable, "-m", "dicomfs"]
    options = ["--ae-title", "BENCHMARK", "--port", str(port), "--address", "127.0.0.1"]
    if server == "dicomfs, archive":
        Archive.create(work / "archive").close()
        return [*command, "-a", str(work / "archive"), "scp", *options]
    return [*command, "scp", *options, "--into", str(work)]


@contextlib.contextmanager
def running(server: str, work: Path, senders: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server that listens: its port and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = command_of(server, work, port, senders)
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=quiet, stderr=quiet)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, f"{server} ended"
            assert time.monotonic() < deadline, f"{server} does not listen"
            time.sleep(0.05)
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """User and system time of a process and of its ended children."""
    text = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii")
    fields = re.sub(r"^.*\) ", "", text).split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def receive(server: str, files: Sequence[Path], senders: int, scratch: Path) -> tuple[float, float]:
    """Seconds that sending takes, and CPU seconds of the server."""
    work = Path(tempfile.mkdtemp(dir=scratch))
    with running(server, work, senders) as (port, process):
        before = cpu_seconds(process)
        command = ["dcmsend", "--quiet", "--no-halt", "-aec", "BENCHMARK", "127.0.0.1", str(port)]
        parts = [[*command, *map(str, files[number::senders])] for number in range(senders)]
        started = time.perf_counter()
        sending = [subprocess.Popen(part, env=_ENVIRONMENT) for part in parts]
        codes = [sender.wait() for sender in sending]
        seconds = time.perf_counter() - started
        assert not any(codes), f"dcmsend to {server} exited {codes}"
        used = cpu_seconds(process) - before
    shutil.rmtree(work)
    return seconds, used


def synced_writes(files: Sequence[Path], scratch: Path) -> float:
    """Seconds to write the same bytes one after the other, each synced with its folder."""
    contents = [path.read_bytes() for path in files]
    work = Path(tempfile.mkdtemp(dir=scratch))
    folder = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    started = time.perf_counter()
    for number, data in enumerate(contents):
        with (work / f"{number}.part").open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        (work / f"{number}.part").rename(work / f"{number}")
        os.fsync(folder)
    seconds = time.perf_counter() - started
    os.close(folder)
    shutil.rmtree(work)
    return seconds


def measure(files: Sequence[Path], runs: int, senders: int, scratch: Path) -> list[dict[str, object]]:
    """One row per number of associations and server."""
    servers = ("storescp", "dicomfs, folder", "dicomfs, archive")
    measured: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for _ in range(runs):
        for count in sorted({1, senders}):
            for server in servers:
                measured.setdefault((count, server), []).append(receive(server, files, count, scratch))
        measured.setdefault((0, "synced writes"), []).append((synced_writes(files, scratch), 0.0))
    total = sum(path.stat().st_size for path in files)
    medians = {key: statistics.median(seconds for seconds, _ in found) for key, found in measured.items()}
    return [
        {
            "associations": count or "",
            "server": server,
            "mb_s": round(total / 1e6 / medians[count, server], 1),
            "instances_s": round(len(files) / medians[count, server]),
            "to_storescp": round(medians[count or 1, "storescp"] / medians[count, server], 2),
            "cpu_ms_each": round(statistics.median(used for _, used in found) / len(files) * 1e3, 2),
        }
        for (count, server), found in measured.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--work", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    files = files_under(options.folders)
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        rows = measure(files, options.runs, options.senders, Path(scratch))
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print_table(rows)


if __name__ == "__main__":
    main()
