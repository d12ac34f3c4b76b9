"""The adapter's translations, without a kernel."""

from __future__ import annotations

import errno
import logging

import pyfuse3
import pytest
import trio
import trio.testing

from dicomfs import errors
from dicomfs.fuse_adapter import ArchiveOperations
from dicomfs.fuse_errors import errno_of
from dicomfs.mount_options import MountOptions
from dicomfs.offload import Offload
from dicomfs.readahead import ReadAhead
from dicomfs.vfs import ROOT_INODE, Tree
from tests.mount_fakes import FOLDER, SIZE, MemoryArchive

CONTEXT = pyfuse3.RequestContext.__new__(pyfuse3.RequestContext)


def operations_of(archive: MemoryArchive) -> ArchiveOperations:
    tree = Tree(archive.catalog, archive.reconstructor, archive.status)
    counts = archive.catalog.counts
    return ArchiveOperations(tree, MountOptions(5, 6), Offload(), ReadAhead(tree), archive.usage, counts)


async def inode_at(operations: ArchiveOperations, path: str) -> int:
    inode = ROOT_INODE
    for name in path.split("/"):
        inode = (await operations.lookup(inode, name.encode(), CONTEXT)).st_ino
    return inode


@pytest.mark.parametrize(
    "problem, number",
    [
        (errors.NotFoundError("instance", "1/2"), errno.ENOENT),
        (errors.MismatchError("frame"), errno.EIO),
        (errors.DamagedError("pack", "bad"), errno.EIO),
        (errors.CodecUnavailable("jxl", "missing"), errno.EIO),
        (errors.TransientTierError("external", "", "slow"), errno.EIO),
        (errors.ObjectNotFound("local", "x"), errno.EIO),
        (errors.CatalogBusy("locked"), errno.EAGAIN),
        (errors.CatalogFull("full"), errno.ENOSPC),
        (errors.TierFull("local", "", "full"), errno.ENOSPC),
        (errors.UsageError("no"), errno.EINVAL),
        (errors.DicomfsError("other"), errno.EIO),
    ],
)
def test_every_error_has_its_number(problem: errors.DicomfsError, number: int) -> None:
    assert errno_of(problem) == number


def test_every_handler_of_a_write_answers_that_the_tree_is_read_only() -> None:
    async def main() -> None:
        operations = operations_of(MemoryArchive())
        for name in [
            "setattr",
            "mknod",
            "mkdir",
            "unlink",
            "rmdir",
            "symlink",
            "rename",
            "link",
            "write",
            "create",
            "setxattr",
            "removexattr",
        ]:
            with pytest.raises(pyfuse3.FUSEError) as caught:
                await getattr(operations, name)(ROOT_INODE, b"name", CONTEXT)
            assert caught.value.errno == errno.EROFS

    trio.run(main)


def test_attributes_carry_owner_mode_links_and_blocks() -> None:
    async def main() -> None:
        operations = operations_of(MemoryArchive(["000001.dcm"]))
        folder = await operations.getattr(await inode_at(operations, f"patients/{FOLDER}"), CONTEXT)
        file = await operations.getattr(await inode_at(operations, f"patients/{FOLDER}/000001.dcm"), CONTEXT)
        assert (folder.st_mode, folder.st_nlink, folder.st_uid, folder.st_gid) == (0o040550, 1, 5, 6)
        assert (file.st_mode, file.st_size, file.st_blocks) == (0o100440, SIZE, -(-SIZE // 512))
        assert file.st_mtime_ns == file.st_ctime_ns
        assert (file.entry_timeout, file.attr_timeout) == (300, 300)

    trio.run(main)


def test_a_stray_exception_is_an_io_error_and_its_text_stays_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        archive = MemoryArchive(["000001.dcm"])
        operations = operations_of(archive)
        inode = await inode_at(operations, f"patients/{FOLDER}/000001.dcm")
        opened = await operations.open(inode, 0, CONTEXT)
        archive.reconstructor.troubles.update(
            dict.fromkeys((row.id for row in archive.catalog.instances), archive.reconstructor.kinds["stray"])
        )
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await operations.read(opened.fh, 0, 100)
        assert caught.value.errno == errno.EIO

    with caplog.at_level(logging.DEBUG):
        trio.run(main)
    assert "ValueError" in caplog.text
    assert "mount_fakes.py" in caplog.text
    assert "Doe" not in caplog.text


def test_a_read_past_the_middle_has_the_next_file_decoded_once() -> None:
    async def main() -> None:
        archive = MemoryArchive(["000001.dcm", "000002.dcm"])
        operations = operations_of(archive)
        prefetched = archive.reconstructor.prefetched
        inode = await inode_at(operations, f"patients/{FOLDER}/000001.dcm")
        opened = await operations.open(inode, 0, CONTEXT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(operations.serve_wishes)
            await operations.read(opened.fh, 0, 131072)
            await trio.testing.wait_all_tasks_blocked()
            assert prefetched == []
            for offset in (131072, 262144):
                await operations.read(opened.fh, offset, 131072)
            with trio.fail_after(10):
                while not prefetched:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert prefetched == [archive.catalog.instances[1].id]
        await operations.release(opened.fh)

    trio.run(main)


@pytest.mark.parametrize(
    "name", [b"security.capability", b"system.posix_acl_access", b"user.other", b"user.dicom.NoSuch"]
)
def test_unknown_extended_attributes_are_not_there(name: bytes) -> None:
    async def main() -> None:
        operations = operations_of(MemoryArchive(["000001.dcm"]))
        inode = await inode_at(operations, f"patients/{FOLDER}/000001.dcm")
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await operations.getxattr(inode, name, CONTEXT)
        assert caught.value.errno == errno.ENODATA

    trio.run(main)


def test_an_extended_attribute_too_long_for_linux_says_so() -> None:
    async def main() -> None:
        operations = operations_of(MemoryArchive(["000001.dcm"]))
        inode = await inode_at(operations, f"patients/{FOLDER}/000001.dcm")
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await operations.getxattr(inode, b"user.dicom.LongText", CONTEXT)
        assert caught.value.errno == errno.E2BIG

    trio.run(main)
