"""Packs that tiers hold in a profile of their own, after recovery and after the death of who moves them."""

from __future__ import annotations

import contextlib
import shutil

import pytest

from dicomfs.archive import Archive
from dicomfs.index.writer import CatalogWriter as IndexWriter
from dicomfs.journal import Journal
from dicomfs.packing import seal
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from dicomfs.tiers.folder import FolderTier
from tests.archives import contents, digests, numbers, objects, tree
from tests.tiered import EXTERNAL, FILES, LABORATORY, write_settings
from tests.twins import DENSE, pixels, profiles, require_sound

# recovering


@pytest.mark.parametrize("missing", ["", "local", EXTERNAL])
def test_what_is_a_twin_and_what_is_left_is_found_from_any_tier(both: Archive, missing: str) -> None:
    root, shown = both.paths.root, (tree(both), numbers(both))
    both.close()
    tiers = {"local": root / "local", EXTERNAL: root.parent / EXTERNAL}
    source = EXTERNAL if missing == "local" else "local"
    if missing:
        shutil.rmtree(tiers[missing] / "pixel")
    assert recover(root, tiers[source].as_uri()).problems == []
    with Archive.open(root) as archive:
        assert (tree(archive), numbers(archive)) == shown
        wanted = {"local": {""}, EXTERNAL: {"dense"}} if missing == EXTERNAL else {"local": {"fast"}}
        wanted = wanted | {EXTERNAL: {"dense"}}
        for name in {missing} & wanted.keys():
            del wanted[name]
        assert profiles(archive) == wanted
        assert archive.catalog.intents() == []
        require_sound(archive)


def test_what_a_move_left_behind_is_no_twin(both: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("dicomfs.repacker.end_intents", lambda *_: None)
        assert both.repack("archive").moved == len(pixels(both))
    left = len(objects(both, "pixel"))
    both.close()
    assert recover(both.paths.root, both.paths.local_tier.as_uri()).problems == []
    with Archive.open(both.paths.root) as archive:
        assert profiles(archive) == {"local": {"archive"}, EXTERNAL: {"dense"}}
        archive.pack()
        assert len(objects(archive, "pixel")) == left // 2
        require_sound(archive)


# a process that dies


class _Killed(BaseException):
    """The process is gone."""


class _Life:
    """Ends before a step: between two that last, nothing lasts."""

    def __init__(self, ends_at: int) -> None:
        self._left = ends_at

    def step(self) -> None:
        if self._left == 0:
            raise _Killed
        self._left -= 1

    def before(self, patched: pytest.MonkeyPatch, owner: type, name: str) -> None:
        original = getattr(owner, name)

        def mortal(*arguments: object) -> object:
            self.step()
            return original(*arguments)

        patched.setattr(owner, name, mortal)


def _moved_to_the_dense_tier(archive: Archive) -> None:
    tiering = archive.tiering()
    packs = [record for record in tiering.objects() if record.key.startswith("pixel/")]
    tiering.copy(EXTERNAL, packs[:1], NullProgress())
    tiering.evict("local", tiering.objects(), NullProgress())


def test_whenever_a_process_dies_that_moves_packs_all_is_there_and_the_next_ends_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.close()
    root, ends_at = archive.paths.root.parent, 0
    monkeypatch.setattr(Journal, "ship", lambda *_: 0)
    while True:
        at = root / f"killed at {ends_at}"
        at.mkdir()
        for name in ("archive", LABORATORY, EXTERNAL):
            shutil.copytree(root / name, at / name)
        write_settings(at, tiers=DENSE)
        with monkeypatch.context() as patched, Archive.open(at / "archive") as mortal:
            life = _Life(ends_at)
            for owner, step in (
                (FolderTier, "put"),
                (FolderTier, "delete"),
                (seal.Staging, "write_pack"),
                (IndexWriter, "finish"),
            ):
                life.before(patched, owner, step)
            with contextlib.suppress(_Killed):
                _moved_to_the_dense_tier(mortal)
                break
        recovered = shutil.copytree(at, root / f"recovered {ends_at}")
        write_settings(recovered, tiers=DENSE)
        assert recover(recovered / "archive", (recovered / "archive" / "local").as_uri()).problems == []
        for place in (recovered, at):
            with Archive.open(place / "archive") as found:
                assert contents(found) == digests(FILES)
                assert found.verify().problems == []
                _moved_to_the_dense_tier(found)
                found.collector().collect()
                found.collector().collect(now_ns=2**62)
                require_sound(found)
        ends_at += 1
    assert ends_at >= 5, "coding, putting, recording, evicting and deleting are steps"
