"""Serves a MemoryArchive at a mount point and changes it by commands on standard input, one a line.

Answers each command with one line on standard output; ``ready`` is the first line.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

from dicomfs import mount
from dicomfs.mount import MountOptions, serve_archive
from tests.mount_fakes import MemoryArchive


def obey(archive: MemoryArchive, command: str, *words: str) -> None:
    catalog, reconstructor = archive.catalog, archive.reconstructor
    match command, words:
        case "add", (name,):
            catalog.add(name)
        case "supersede", (name,):
            catalog.supersede(name)
        case "forget", ():
            catalog.forgetful = True
        case "trouble", (name, kind):
            row = catalog.row_named(9, name)
            assert row is not None
            reconstructor.troubles[row.id] = reconstructor.kinds[kind]
        case "held", ():
            assert reconstructor.held.wait(30)
        case "hang-listing", ():
            catalog.listing_hangs = True
        case "listing-held", ():
            assert catalog.listing_held.wait(30)
        case "release", ():
            reconstructor.release.set()
        case "break", ():
            catalog.row_named = None  # type: ignore[method-assign,assignment]  # the handler meets a TypeError
        case _:
            raise ValueError(command)


def main(mountpoint: str, count: int, options: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    archive = MemoryArchive([f"{number:06d}.dcm" for number in range(1, count + 1)])

    def listen() -> None:
        for line in sys.stdin:
            obey(archive, *line.split())
            sys.stdout.write("done\n")
            sys.stdout.flush()

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        threading.Thread(target=listen, daemon=True).start()

    mount.GRACE_SECONDS = 2.0
    serve_archive(archive, "/srv/archive, one", Path(mountpoint), MountOptions.parse(options), ready)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
