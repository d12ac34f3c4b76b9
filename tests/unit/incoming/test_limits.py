"""Limits that protect: a map, a disk or a quota that is full refuses before anything is acknowledged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dicomfs.archive import Archive
from dicomfs.errors import CatalogFull
from dicomfs.incoming import intake
from dicomfs.index import pair
from tests import samples
from tests.archives import contents, digests
from tests.clients import Client

SMALL_MAP = 96 << 10


@pytest.mark.parametrize("name", ["SPOOL_MAP_BYTES", "CATALOG_MAP_BYTES"])
def test_a_full_map_of_the_index_refuses_and_all_goes_on_after_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Archive.create(tmp_path / "archive").close()
    settings = "[archive]\nminimum_free_bytes = 0\n[pack]\nquiet_seconds = 0\n"
    (tmp_path / "archive" / "dicomfs.toml").write_text(settings)
    files = [data for seed in range(40) for data in samples.ct_series(4, 8, 8, seed, patient=f"P{seed}^Q")]
    with monkeypatch.context() as small:
        small.setattr(pair, name, SMALL_MAP)
        with Archive.open(tmp_path / "archive") as archive:
            client = Client(archive)
            kept: list[bytes] = []
            refused = b""
            for number, data in enumerate(files):
                try:
                    client.put(f"{number}.dcm", data)
                except CatalogFull:
                    refused = data
                    break
                kept.append(data)
            assert refused, "the map was never full"
            # Reads go on, of the file that was refused, too.
            assert contents(archive) == digests(kept)
            assert client.get(f"{len(kept)}.dcm") == refused
            client.close()
    with Archive.open(tmp_path / "archive") as archive:
        client = Client(archive)
        client.settle()
        assert contents(archive) == digests([*kept, refused])
        assert archive.verify().problems == []
        client.close()


def test_a_quota_that_is_reached_refuses_and_the_file_is_taken_later(
    archive: Archive, client: Client, slices: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def over_quota(*_: object) -> bytes:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    client.put("first.dcm", slices[0])
    with monkeypatch.context() as limited:
        limited.setattr(intake, "copy_still", over_quota)
        with pytest.raises(OSError) as caught:
            client.put("a.dcm", slices[1])
    assert caught.value.errno == errno.EDQUOT
    assert contents(archive) == digests(slices[:1])
    assert client.get("a.dcm") == slices[1]
    assert list((archive.paths.spool / "tmp").glob("*/*.part")) == []
    client.settle()
    assert contents(archive) == digests(slices[:2])
