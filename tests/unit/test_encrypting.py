"""Encryption that is switched on later: nothing lost, nothing plain left, reading goes on throughout."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomfs import config
from dicomfs.archive import Archive
from dicomfs.encrypting import EncryptReport
from dicomfs.errors import UsageError
from dicomfs.format.version import SECTION_MAGIC
from dicomfs.model import ObjectKey
from dicomfs.progress import NullProgress
from dicomfs.recovery import recover
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.switching import SwitchingTier
from tests import samples
from tests.archives import contents, digests, flip, rows, write_sources
from tests.sealed_tiers import Killed
from tests.tiered import FILES, LABORATORY, copied, copy_all, copy_of, evict_all, two_tiers

MORE = [data.replace(b"Head routine", b"Head Routine") for data in FILES[:2]]


def with_key(root: Path) -> None:
    """Name a key in the settings of a plain archive; its tier stays one that may be plain."""
    path = root / "archive" / config.FILE_NAME
    settings = config.load(root / "archive")
    keys = config.KeySettings(file=str(root / "key"))
    Archive.create(root / "for its key", {}, root / "key").close()
    path.write_text(config.template(dict(settings.tiers), keys), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A packed archive, everything on the local tier and plain in the laboratory too; a key is set."""
    with copied(tmp_path) as archive:
        archive.snapshots().make(NullProgress())
    with_key(tmp_path)
    return tmp_path


def opened(root: Path) -> Archive:
    return Archive.open(root / "archive")


def encrypt(archive: Archive, stop: threading.Event | None = None) -> EncryptReport:
    return archive.encryption().run(LABORATORY, NullProgress(), stop)


def stored(root: Path) -> set[str]:
    """Names of all files of the laboratory, but who owns it and what proves that it is mounted."""
    folder = root / LABORATORY
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith((".dicomfs-tier", "owner/", ".tmp/"))}


def is_plain(name: str) -> bool:
    kind, _, rest = name.partition("/")
    return kind != "keyring" and len(rest.rpartition("/")[2]) in (16, 64)


def plain_objects(root: Path) -> list[Path]:
    """Files that begin as objects in plain bytes do, whatever they are called."""
    files = [path for path in (root / LABORATORY).rglob("*") if path.is_file()]
    return [path for path in files if path.read_bytes().startswith(SECTION_MAGIC)]


def test_nothing_plain_is_left_and_everything_reads_back(root: Path) -> None:
    before = stored(root)
    assert all(map(is_plain, before))
    assert len(plain_objects(root)) == len(before)
    with opened(root) as archive:
        report = encrypt(archive)
        assert (report.objects, report.left, report.stopped) == (len(before), [], False)
        after = stored(root)
        assert not any(map(is_plain, after))
        assert plain_objects(root) == []
        assert len([name for name in after if not name.startswith("keyring/")]) == len(before)
        assert encrypt(archive).objects == 0
        assert archive.verify(deep=True).problems == []
        evict_all(archive)
        assert contents(archive) == digests(FILES)
    settings = root / "archive" / config.FILE_NAME
    settings.write_text(settings.read_text().replace("plaintext = true\n", ""))
    with opened(root) as archive:
        assert contents(archive) == digests(FILES)
        archive.import_paths([write_sources(root / "more", MORE)])
        archive.pack()
        copy_all(archive)
    assert not any(map(is_plain, stored(root)))
    shutil.rmtree(root / "archive")
    assert recover(root / "again", (root / LABORATORY).as_uri(), root / "key").problems == []
    with Archive.open(root / "again") as again:
        assert contents(again) == digests([*FILES, *MORE])


def test_texts_twins_and_what_waits_to_be_purged_are_encrypted_too(tmp_path: Path) -> None:
    files = [*FILES, *samples.long_headers("First^Patient", samples.protocol("scanner"))]
    with two_tiers(tmp_path, packing="dense") as archive:
        archive.import_paths([write_sources(tmp_path / "in", files)])
        archive.pack()
        copy_all(archive)
        archive.snapshots().make(NullProgress())
        gone = next(row.id for place, row in rows(archive) if "Other" not in place[0])
        archive.decisions().forget([gone], "asked to")
        kept = contents(archive)
    with_key(tmp_path)
    with opened(tmp_path) as archive:
        before = stored(tmp_path)
        assert {name.partition("/")[0] for name in before} >= {
            "text",
            "snapshot",
            "pixel",
            "header",
            "opaque",
        }
        assert any(one.twin_of for one in archive.catalog.objects())
        assert archive.catalog.tainted()
        assert (encrypt(archive).objects, plain_objects(tmp_path)) == (len(before), [])
        assert archive.purger().purge().left == []
        evict_all(archive)
        assert contents(archive) == kept
    shutil.rmtree(tmp_path / "archive")
    assert recover(tmp_path / "again", (tmp_path / LABORATORY).as_uri(), tmp_path / "key").problems == []
    with Archive.open(tmp_path / "again") as again:
        assert contents(again) == kept


def test_without_a_key_nothing_is_changed(tmp_path: Path) -> None:
    with copied(tmp_path) as archive:
        before = stored(tmp_path)
        with pytest.raises(UsageError, match="key"):
            encrypt(archive)
        assert stored(tmp_path) == before


def test_a_tier_that_is_encrypted_is_told_so(tmp_path: Path) -> None:
    with copied(tmp_path, plain=False) as archive, pytest.raises(UsageError, match="encrypted already"):
        encrypt(archive)


def test_who_opened_the_tier_before_reads_on_and_puts_no_plain_object_any_more(root: Path) -> None:
    with opened(root) as mounted:
        evict_all(mounted)
        with opened(root) as archive:
            encrypt(archive)
        assert contents(mounted) == digests(FILES)
        mounted.import_paths([write_sources(root / "more", MORE)])
        mounted.pack()
        copy_all(mounted)
        assert not any(map(is_plain, stored(root)))
        assert contents(mounted) == digests([*FILES, *MORE])


def test_stopped_the_next_run_goes_on_and_both_forms_are_read(root: Path) -> None:
    stop = threading.Event()
    count = len(stored(root))
    with opened(root) as archive:
        evict_all(archive)
        delete = FolderTier.delete

        def counted(tier: FolderTier, key: ObjectKey) -> None:
            delete(tier, key)
            stop.set()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(FolderTier, "delete", counted)
            report = encrypt(archive, stop)
        assert report.stopped
        assert 0 < report.objects < count
        assert contents(archive) == digests(FILES)
        assert archive.encryption().begun() == [LABORATORY]
        tier = archive.tiers[LABORATORY]
        assert isinstance(tier, SwitchingTier)
        assert len(list(tier.list(""))) == count + 1  # and its owner
        assert report.objects + encrypt(archive).objects == count
        assert contents(archive) == digests(FILES)


def test_a_half_switched_tier_can_be_recovered_from(root: Path) -> None:
    with opened(root) as archive:
        stop = threading.Event()
        with pytest.MonkeyPatch.context() as patched:
            delete = FolderTier.delete
            left = iter(range(2))

            def counted(tier: FolderTier, key: ObjectKey) -> None:
                delete(tier, key)
                if next(left, None) is None:
                    stop.set()

            patched.setattr(FolderTier, "delete", counted)
            one_at_a_time(archive)
            encrypt(archive, stop)
    assert len({is_plain(name) for name in stored(root)}) == 2
    shutil.rmtree(root / "archive")
    report = recover(root / "again", (root / LABORATORY).as_uri(), root / "key")
    assert report.problems == []
    assert any("tier encrypt laboratory" in remark for remark in report.remarks)
    with Archive.open(root / "again") as again:
        assert contents(again) == digests(FILES)
        again.claim(LABORATORY)
        assert encrypt(again).left == []
        assert not any(map(is_plain, stored(root)))
        assert contents(again) == digests(FILES)


def test_a_damaged_plain_object_is_replaced_from_another_tier(root: Path) -> None:
    damaged = next(path for path in sorted((root / LABORATORY / "pixel").rglob("*")) if path.is_file())
    flip(damaged, 100)
    with opened(root) as archive:
        assert encrypt(archive).left == []
        assert not any(map(is_plain, stored(root)))
        evict_all(archive)
        assert contents(archive) == digests(FILES)


def test_a_damaged_plain_object_that_nobody_else_has_is_told_and_stays(root: Path) -> None:
    damaged = next(path for path in sorted((root / LABORATORY / "pixel").rglob("*")) if path.is_file())
    with opened(root) as archive:
        evict_all(archive)
        flip(damaged, 100)
        report = encrypt(archive)
        assert [damaged.name in key for key, _ in report.left] == [True]
        assert "no other tier has it" in report.left[0][1]
    assert [name for name in stored(root) if is_plain(name)] == [str(damaged.relative_to(root / LABORATORY))]


def test_a_damaged_snapshot_is_removed(root: Path) -> None:
    damaged = next(path for path in (root / LABORATORY / "snapshot").rglob("*") if path.is_file())
    flip(damaged, damaged.stat().st_size // 2)
    with opened(root) as archive:
        assert encrypt(archive).left == []
        assert not any(map(is_plain, stored(root)))
        assert list(archive.tiers[LABORATORY].list("snapshot")) == []


def test_what_a_put_that_died_left_behind_is_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = root / LABORATORY / ".tmp" / ("0" * 32)
    rest.write_bytes((root / LABORATORY / min(stored(root))).read_bytes())
    with opened(root) as archive:
        encrypt(archive)
        assert plain_objects(root) == [rest], "it may be a put that is under way"
        monkeypatch.setattr("dicomfs.encrypting.LEFT_BEHIND_SECONDS", -1)
        encrypt(archive)
        assert plain_objects(root) == []


def test_what_is_nothing_of_an_archive_stays_and_is_told(root: Path) -> None:
    (root / LABORATORY / "notes").write_text("of an administrator")
    with opened(root) as archive:
        assert [key for key, _ in encrypt(archive).left] == ["notes"]
    assert (root / LABORATORY / "notes").exists()


def test_what_is_forgotten_meanwhile_does_not_come_back_encrypted(root: Path) -> None:
    with opened(root) as archive:
        gone = [row.id for place, row in rows(archive) if "Other" in place[0]]
        put = FolderTier.put
        done = threading.Event()

        def forgetting(tier: FolderTier, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
            put(tier, key, source, sha256)
            if tier.name == LABORATORY and len(key) == 105 and not done.is_set():  # an encrypted pack
                done.set()
                archive.decisions().forget(gone, "asked to")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(FolderTier, "put", forgetting)
            one_at_a_time(archive)
            encrypt(archive)
        assert done.is_set()
        left = {key for key, _ in archive.tiers[LABORATORY].list("") if key.startswith(("pixel", "header"))}
        assert left <= {one.key for one in archive.catalog.objects()}


def one_at_a_time(archive: Archive) -> None:
    """Let no two objects be replaced at the same time: then the calls have an order."""
    tier = archive.tiers[LABORATORY]
    assert isinstance(tier, SwitchingTier)
    traits = replace(tier.traits, connections=1)
    tier.__class__ = type("OneAtATime", (SwitchingTier,), {"traits": property(lambda _: traits)})


@contextlib.contextmanager
def _watched(tell: Callable[[], None]) -> Iterator[None]:
    """Tells before and after everything durable that encryption does."""
    put, delete = FolderTier.put, FolderTier.delete

    def watched_put(tier: FolderTier, key: ObjectKey, source: Path | bytes, sha256: str) -> None:
        tell()
        put(tier, key, source, sha256)
        tell()

    def watched_delete(tier: FolderTier, key: ObjectKey) -> None:
        tell()
        delete(tier, key)
        tell()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FolderTier, "put", watched_put)
        patched.setattr(FolderTier, "delete", watched_delete)
        yield


def test_killed_at_any_step_loses_nothing(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with opened(root) as archive:
        evict_all(archive)
    steps, fatal = 0, 0

    def tell() -> None:
        nonlocal steps
        steps += 1
        if steps == fatal:
            raise Killed

    trial, last = 0, 0
    while not last:
        fatal, steps = 1 + 3 * trial if trial else 2, 0
        place = tmp_path_factory.mktemp("killed") / "top"
        copy_of(root, place).close()
        with opened(place) as archive, _watched(tell):
            one_at_a_time(archive)
            try:
                encrypt(archive)
                last = steps
            except Killed:
                pass
        with opened(place) as archive:
            assert contents(archive) == digests(FILES)
            assert encrypt(archive).left == []
            assert not any(map(is_plain, stored(place)))
            assert contents(archive) == digests(FILES)
        shutil.rmtree(place)
        trial += 1
    assert last > 30
