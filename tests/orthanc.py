"""Orthanc, a DICOM server with a storage folder of its own making, as a user of ``incoming/``."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = "/usr/sbin/Orthanc"
PATIENCE_SECONDS = 60.0


class Orthanc:
    """One server on a port of its own; its files and its SQLite index lie in ``folder``."""

    def __init__(self, folder: Path, work: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "StorageCompression": False,
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": False,
            "SyncStorageArea": True,
            "Plugins": [],
        }
        self._settings, self._log = work / "orthanc.json", work / "orthanc.log"
        self._settings.write_text(json.dumps(settings))

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, self._settings], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            try:
                self.ask("/system")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        """GET, or POST where there is a body."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", body, PATIENCE_SECONDS) as answer:
            return bytes(answer.read())

    def store(self, data: bytes) -> str:
        """Upload a file; the name that it has here."""
        answer: dict[str, Any] = json.loads(self.ask("/instances", data))
        assert answer["Status"] == "Success", answer
        return str(answer["ID"])

    def file(self, instance: str) -> bytes:
        """The file of an instance, as it was uploaded."""
        return self.ask(f"/instances/{instance}/file")
