"""What a metered tier counts when the file that is put goes meanwhile."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dicomfs.model import ObjectKey
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.metered import MeteredTier


class _Taking(MemoryTier):
    """The source is deleted by another process as soon as it is put."""

    def put(self, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        super().put(key, source, sha256)
        if isinstance(source, Path):
            source.unlink()


def test_a_file_that_goes_once_it_is_put_was_put_and_counts(tmp_path: Path) -> None:
    data = b"seven77"
    source = tmp_path / "source"
    source.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    key = ObjectKey(f"pixel/{digest[:2]}/{digest}")
    tier = MeteredTier(_Taking())
    tier.put(key, source, digest)
    assert tier.get(key) == data
    assert (tier.meters()["put"].calls, tier.meters()["put"].payload_bytes) == (1, len(data))
