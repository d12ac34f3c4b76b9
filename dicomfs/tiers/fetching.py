"""Whole objects of a tier: fetched into a file without a name, and the digest of what the tier gave.

Owns that a full disk of ours is told as that.  What the digest has to be is the caller's to say.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dicomfs.errors import TierFull
from dicomfs.lifecycle_settings import LOCAL
from dicomfs.model import ObjectKey
from dicomfs.tiers.base import Tier, pieces_of


@contextlib.contextmanager
def unnamed_file(folder: Path, what: str = "") -> Iterator[tuple[int, Path]]:
    """A descriptor of a file that goes with the process, and a path to it; ``what`` it is for.

    Raises TierFull.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed below
    except OSError as problem:
        raise TierFull(LOCAL, what, f"{folder}: {problem.strerror}") from problem
    with file:
        yield file.fileno(), Path(f"/proc/self/fd/{file.fileno()}")


def fetch_into(descriptor: int, tier: Tier, key: ObjectKey, size: int) -> str:
    """Write an object of this size to a new file; the SHA-256 of what came, as hex digits.

    Raises:
        TierError: the tier failed.
        TierFull: there is no room for it here.
    """
    digest = hashlib.sha256()
    with open(descriptor, "wb", buffering=0, closefd=False) as file:
        for piece in pieces_of(tier, key, size):
            digest.update(piece)
            rest = memoryview(piece)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError as problem:
                raise TierFull(LOCAL, key, f"cannot be fetched: {problem.strerror}") from problem
    return digest.hexdigest()


def digest_of(tier: Tier, key: ObjectKey, size: int) -> str:
    """The SHA-256 of an object of this size, as hex digits; "" for another size.

    Raises as `Tier.get_range` does.
    """
    digest = hashlib.sha256()
    for piece in pieces_of(tier, key, size):
        digest.update(piece)
    return digest.hexdigest() if tier.stat(key).size == size else ""
