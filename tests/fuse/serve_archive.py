"""Serves an archive on disk: mount point, archive, options."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from dicomfs.mount import MountOptions, serve


def ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    mountpoint, archive, *options = sys.argv[1:]
    serve(Path(archive), Path(mountpoint), MountOptions.parse(options), ready)
