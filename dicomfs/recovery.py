"""Recovering an archive from one of its tiers: which folder becomes what, then a new index in its place.

Wires what `dicomfs.recover` reads from.  Nothing on a tier is changed; a tier that is attached by recovery
stays read-only until it is claimed (`dicomfs.ownership`).
"""

from __future__ import annotations

import shutil
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from dicomfs import config
from dicomfs.attached import archive_keys, local_tier, open_tiers
from dicomfs.copies import Copies, name_digest
from dicomfs.crypto.keyring import KEYRING_PREFIX
from dicomfs.errors import DamagedError, DicomfsError, UnsupportedVersion, UsageError
from dicomfs.format.snapshot import SnapshotReader
from dicomfs.index.catalog import Catalog
from dicomfs.index.guards import Holder
from dicomfs.index.records import ObjectRecord
from dicomfs.journal import Journal
from dicomfs.locks import locked
from dicomfs.model import READ_FIRST_KINDS, ObjectKey, is_read_first
from dicomfs.nearest import Lookup, NearestCopy
from dicomfs.ownership import PREFIX as OWNER_PREFIX
from dicomfs.ownership import Ownership
from dicomfs.partial import PartialObjects
from dicomfs.paths import ArchivePaths, read_identity, sync_folder, write_durably, write_identity
from dicomfs.progress import NullProgress, Progress
from dicomfs.recover import RecoverReport, recover_catalog
from dicomfs.recovered_copies import archive_of, copy_journal, copy_objects
from dicomfs.recovered_snapshot import bring_journal, newest_snapshot
from dicomfs.spool import Spool
from dicomfs.tier_set import LOCAL, TierSet
from dicomfs.tiers.base import Tier
from dicomfs.tiers.registry import open_tier, open_wrapped_tier
from dicomfs.tiers.sealed import SealedTier
from dicomfs.tiers.switching import SwitchingTier


def recover(
    root: Path,
    url: str,
    key_file: Path | None = None,
    progress: Progress | None = None,
    *,
    from_packs: bool = False,
) -> RecoverReport:
    """Rebuild the archive at ``root`` from one tier; ``from_packs`` alone, or from its newest snapshot.

    In place when the tier is one of the archive at ``root``: its index is made anew, from this tier and what
    the others say.  Else ``root`` must be new: from the folder of another archive it becomes a copy with all
    objects, each compared with its name; any other tier is attached to it, and read from where it is.

    Raises:
        UsageError: ``root`` is another archive or not empty, the tier holds no archive, its key is missing.
        CatalogBusy: the archive at ``root`` is in use.
        TierError: the tier cannot be read or the local one written.
    """
    progress = progress or NullProgress()
    paths = ArchivePaths(root)
    settings = config.load(root)
    problems: list[str] = []
    main = _own_tier(paths, settings, url)
    if main == LOCAL:
        archive_id = _own_identity(paths, local_tier(paths, settings))
    elif main is not None:
        archive_id = read_identity(paths)
    elif paths.identity.exists():
        raise UsageError(
            f"{root} is another archive: name a new folder, or one of its own tiers to rebuild its index"
        )
    else:
        main, archive_id, problems = _new_folder(paths, url, key_file, progress)
        settings = config.load(root)
    tiers = open_tiers(paths, settings, archive_id)
    begun = RecoverReport(problems=problems)
    main_tier = tiers[main]
    if isinstance(main_tier, SwitchingTier) and main_tier.is_switched:
        begun.remarks.append(
            f"tier {main} may hold plain objects beside encrypted ones, and they were believed: "
            f"`dicomfs tier encrypt {main}` replaces them"
        )
    with ExitStack() as held:
        snapshot = None
        if not from_packs:
            snapshot = newest_snapshot(held, tiers[main], archive_id, paths.fetched, begun.remarks)
        if snapshot is not None:
            begun.snapshot = snapshot.name
            begun.remarks += bring_journal(snapshot, tiers[main], tiers.local)
        begun.problems += _gather_journal(tiers, main)
        if paths.index.exists():
            # A mount would go on with the deleted index and never show what is imported later.
            held.enter_context(Holder(paths.index)).require_alone()
        held.enter_context(locked(paths.pack_lock))
        held.enter_context(locked(paths.accept_lock))
        report = _rebuild_index(paths, archive_id, tiers, main, begun, snapshot, progress)
    _bring_headers(paths, tiers, main, report, progress)
    return report


def _gather_journal(tiers: TierSet, main: str) -> list[str]:
    """Bring together what each tier has of the journal: one of them may know what was forgotten."""
    problems = [] if main == LOCAL else copy_journal(tiers[main], tiers.local)
    for name in tiers.remote:
        # A tier that cannot be asked is told of when it is listed.
        if name != main:
            with suppress(DicomfsError):
                problems += copy_journal(tiers[name], tiers.local)
    return problems


def _own_tier(paths: ArchivePaths, settings: config.Settings, url: str) -> str | None:
    """The name of the tier of this archive that lies at a URL."""
    own = Path(paths.local_tier).resolve().as_uri() if LOCAL not in settings.tiers else ""
    urls = {LOCAL: own} | {name: tier.url for name, tier in settings.tiers.items()}
    wanted = _place(url)
    return next((name for name, other in urls.items() if _place(other) == wanted), None)


def _place(url: str) -> str:
    """A URL in the one form that names its place."""
    path = config.folder_of(url)
    return url.rstrip("/") if path is None else path.resolve().as_uri()


def _new_folder(
    paths: ArchivePaths, url: str, key_file: Path | None, progress: Progress
) -> tuple[str, bytes, list[str]]:
    """Make the folder of an archive from a tier: the tier to read, the archive's identity, problems.

    Nothing is made before the tier was read with the key.
    """
    folder = config.folder_of(url) is not None
    name = "laboratory" if folder else "external"
    described = config.TierSettings(url=url)
    raw = open_wrapped_tier(name, url, described).tier
    owner = Ownership(raw, b"", "").current()
    if owner is None and folder:
        source = open_tier("source", url)
        archive_id = archive_of(source)
        paths.make()
        write_durably(paths.settings, config.TEMPLATE)
        problems = copy_objects(source, local_tier(paths, config.Settings()), paths.staging, progress)
        write_identity(paths, archive_id)
        return LOCAL, archive_id, problems
    if owner is None:
        raise UsageError(f"{url} holds no archive")
    keys = config.KeySettings(file=[] if key_file is None else str(key_file.absolute()))
    tier: Tier = raw
    if any(raw.list(KEYRING_PREFIX)):
        sealed = tier = SealedTier(raw, owner.archive_id, archive_keys(paths.root, keys, url))
        if folder and any(not key.startswith(f"{OWNER_PREFIX}/") for key, _ in sealed.strangers()):
            # It was being encrypted: `tier encrypt` goes on.
            described = config.TierSettings(url=url, plaintext=True)
            tier = SwitchingTier(raw, lambda: sealed)
    elif folder:
        described = config.TierSettings(url=url, plaintext=True)
    if archive_of(tier) != owner.archive_id:
        raise UsageError(f"{url} belongs to one archive and holds objects of another")
    paths.make()
    write_durably(paths.settings, config.template({name: described}, keys))
    write_identity(paths, owner.archive_id)
    return name, owner.archive_id, []


def _rebuild_index(
    paths: ArchivePaths,
    archive_id: bytes,
    tiers: TierSet,
    main: str,
    begun: RecoverReport,
    snapshot: SnapshotReader | None,
    progress: Progress,
) -> RecoverReport:
    """Make a new index beside the old one, then put it in its place; ``begun`` tells what is known so far."""
    fresh, old = paths.root / "index.new", paths.root / "index.old"
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    with Catalog.create(fresh, archive_id) as catalog:
        copies = Copies(tiers, catalog, paths.fetched, paths.placing_lock)
        had = set() if snapshot is None else set(snapshot.keys())

        def reading(lookup: Lookup) -> NearestCopy:
            _fetch_headers(tiers, main, lookup, copies, had)
            partial = PartialObjects(paths.fetched, config.Settings().mount.fetched_bytes)
            return NearestCopy(tiers, lookup, copies, partial, lambda _: False)

        journal, spool = Journal(tiers.local, archive_id), Spool(paths.spool)
        report = recover_catalog(catalog, tiers, main, reading, journal, spool, progress, snapshot)
        report.problems[:0] = begun.problems
        report.remarks, report.snapshot = begun.remarks, begun.snapshot
        with catalog.write() as noted:
            noted.note_missed(len(report.problems) + len(report.notes))
        with catalog.write_spool() as writer:
            writer.mark_rebuilt()
    if paths.index.exists():
        paths.index.rename(old)
    fresh.rename(paths.index)
    sync_folder(paths.root)
    shutil.rmtree(old, ignore_errors=True)
    return report


def _fetch_headers(
    tiers: TierSet, main: str, lookup: Lookup, copies: Copies, had: Container[ObjectKey]
) -> None:
    """Bring header packs and their texts to the local tier that are about to be read, and will be again."""
    if main == LOCAL:
        return

    def fetch(record: ObjectRecord) -> None:
        # What cannot be had is told by who reads it next.
        with suppress(DicomfsError), copies.fetched(record) as path:
            tiers.local.put(record.key, path, name_digest(record.key))
            record.tiers[LOCAL] = 0

    prefixes = sorted(kind.prefix for kind in READ_FIRST_KINDS)
    listed = (lookup(key) for one in prefixes for key, _ in tiers[main].list(one) if key not in had)
    due = [record for record in listed if record is not None and LOCAL not in record.tiers]
    with ThreadPoolExecutor(tiers[main].traits.connections, thread_name_prefix="headers") as pool:
        list(pool.map(fetch, due))


def _bring_headers(
    paths: ArchivePaths, tiers: TierSet, main: str, report: RecoverReport, progress: Progress
) -> None:
    """Bring the other header packs and their texts to the local tier; the archive may be in use by now.

    Stopped here, it is whole: what is not local is read from where it is.
    """
    if main == LOCAL or not report.snapshot:
        return
    with Catalog.open(paths.index) as catalog:
        copies = Copies(tiers, catalog, paths.fetched, paths.placing_lock)
        due = [one for one in catalog.objects() if is_read_first(one.key) and LOCAL not in one.tiers]
        progress.start(sum(one.size for one in due), "bringing header packs")

        def bring(record: ObjectRecord) -> str:
            try:
                copies.place(record.key, LOCAL)
            except DicomfsError as problem:
                return str(problem)
            return ""

        with ThreadPoolExecutor(tiers[main].traits.connections, thread_name_prefix="headers") as pool:
            for record, problem in zip(due, pool.map(bring, due), strict=True):
                progress.advance(record.size)
                if problem:
                    report.problems.append(problem)
        with catalog.write() as noted:
            noted.note_missed(len(report.problems) + len(report.notes))
    progress.done()


def _own_identity(paths: ArchivePaths, tier: Tier) -> bytes:
    """The identity of an archive that is rebuilt in place; its document is made again where it is lost."""
    try:
        return read_identity(paths)
    except UnsupportedVersion:
        raise
    except (UsageError, DamagedError):
        archive_id = archive_of(tier)
        write_identity(paths, archive_id)
        return archive_id
