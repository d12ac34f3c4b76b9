"""``dicomfs heal``: bad copies replaced; see `dicomfs.cli.scrub`."""

from __future__ import annotations

from dicomfs.cli.scrub import heal as command

__all__ = ["command"]
