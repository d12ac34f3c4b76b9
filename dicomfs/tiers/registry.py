"""Which URL scheme is which tier, and what is wrapped around it: the one explicit list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from dicomfs.config import TierOptions
from dicomfs.errors import UsageError
from dicomfs.tiers.bandwidth import Bandwidth
from dicomfs.tiers.base import Tier
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.metered import MeteredTier
from dicomfs.tiers.retry import RetryingTier, RetryPolicy


def _folder(name: str, url: SplitResult, options: TierOptions, archive_id: bytes | None) -> Tier:
    path = Path(unquote(url.path))
    if url.netloc not in ("", "localhost") or not path.is_absolute() or url.query or url.fragment:
        raise UsageError("a folder tier's URL is file:///absolute/path")
    local = name == "local"
    bandwidth = Bandwidth(options.bandwidth)
    return FolderTier(name, path, local=local, archive_id=None if local else archive_id, bandwidth=bandwidth)


def _s3(name: str, url: SplitResult, options: TierOptions, _: bytes | None) -> Tier:
    from dicomfs.tiers.s3 import S3Tier  # noqa: PLC0415  its libraries take longer to load than most commands

    if not url.netloc or url.query or url.fragment or ":" in url.netloc or "@" in url.netloc:
        raise UsageError(
            "an object store's URL is s3://bucket/prefix; set an endpoint by AWS_ENDPOINT_URL_S3"
        )
    return S3Tier(name, url.netloc, unquote(url.path).strip("/"), options)


SCHEMES: dict[str, Callable[[str, SplitResult, TierOptions, bytes | None], Tier]] = {
    "file": _folder,
    "s3": _s3,
}
"""Factories by URL scheme; a new kind of tier is added here and nowhere else."""


def open_tier(
    name: str, url: str, options: TierOptions | None = None, *, archive_id: bytes | None = None
) -> Tier:
    """The tier at ``url`` under the name ``local``, ``laboratory`` or ``external``; touches nothing.

    With ``archive_id`` a folder other than the local one must hold this archive's sentinel (sentinel.py).
    Raises UsageError for an unknown scheme or an impossible URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"no tier URL: {error}") from error
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in sorted(SCHEMES))
        raise UsageError(f"unknown kind of tier {parts.scheme!r}; known are {known}")
    return SCHEMES[parts.scheme](name, parts, options or TierOptions(), archive_id)


@dataclass(frozen=True, slots=True)
class WrappedTier:
    """A tier to be used, and what was asked of it so far."""

    tier: Tier
    meter: MeteredTier


def open_wrapped_tier(
    name: str, url: str, options: TierOptions | None = None, *, archive_id: bytes | None = None
) -> WrappedTier:
    """As ``open_tier``, with retries, metering and the bandwidth limit, in the one order that is right.

    From the outside: retries, metering, the tier with its bandwidth.  Metering within the retries counts each
    attempt: a store bills it, and an error that a retry healed is one that an administrator should see.
    Bandwidth is shared by all attempts at the same time and belongs to the transfer itself (bandwidth.py), so
    that waiting for one's turn is neither a failure nor part of a store's time to answer.  Encryption goes
    outside of all of this: it happens once for an object, however often that is sent.
    """
    options = options or TierOptions()
    meter = MeteredTier(open_tier(name, url, options, archive_id=archive_id))
    return WrappedTier(RetryingTier(meter, RetryPolicy(deadline=options.retry_seconds)), meter)
