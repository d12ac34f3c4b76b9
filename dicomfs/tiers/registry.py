"""Which URL scheme is which tier: the one explicit list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from dicomfs.config import TierSettings
from dicomfs.errors import UsageError
from dicomfs.tiers.base import Tier
from dicomfs.tiers.folder import FolderTier


def _folder(name: str, url: SplitResult) -> Tier:
    path = Path(unquote(url.path))
    if url.netloc not in ("", "localhost") or not path.is_absolute() or url.query or url.fragment:
        raise UsageError("a folder tier's URL is file:///absolute/path")
    return FolderTier(name, path, local=name == "local")


SCHEMES: dict[str, Callable[[str, SplitResult], Tier]] = {"file": _folder}
"""Factories by URL scheme; a new kind of tier is added here and nowhere else."""


def open_tier(name: str, url: str) -> Tier:
    """The tier at ``url`` under the name ``local``, ``laboratory`` or ``external``; touches nothing.

    Raises UsageError for an unknown scheme or an impossible URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"no tier URL: {error}") from error
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in sorted(SCHEMES))
        raise UsageError(f"unknown kind of tier {parts.scheme!r}; known are {known}")
    return SCHEMES[parts.scheme](name, parts)


def open_wrapped_tier(name: str, settings: TierSettings) -> Tier:
    """The tier that settings describe."""
    return open_tier(name, settings.url)
