"""The adapter's translations, without a kernel."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable
from typing import Any

import pyfuse3
import pytest
import trio
import trio.testing

from dicomfs import errors
from dicomfs.fuse_adapter import ArchiveOperations
from dicomfs.fuse_errors import errno_of
from dicomfs.model import InstanceId
from dicomfs.mount_options import MountOptions
from dicomfs.offload import Offload
from dicomfs.readahead import ReadAhead
from dicomfs.vfs import ROOT_INODE, Tree
from tests.mount_fakes import FOLDER, SIZE, MemoryArchive

CONTEXT = pyfuse3.RequestContext.__new__(pyfuse3.RequestContext)


def operations_of(archive: MemoryArchive, residency: Residency | None = None) -> ArchiveOperations:
    tree = Tree(archive.catalog, archive.reconstructor, archive.status)
    options, ahead, counts = MountOptions(5, 6), ReadAhead(tree), archive.catalog.counts
    return ArchiveOperations(tree, options, Offload(), ahead, archive.usage, counts, residency)


class Residency:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def of(self, instance: InstanceId) -> dict[str, str]:
        return {"tier": "external", "residency": "cold", "pin": "0"}

    def set_pin(self, instance: InstanceId, *, pinned: bool) -> None:
        self.asked.append((instance, pinned))

    def warm(self, instance: InstanceId) -> None:
        self.asked.append(instance)


class Caller:
    """Who makes a request."""

    def __init__(self, uid: int) -> None:
        self.uid = uid


PIN, WARM = b"user.dicomfs.pin", b"user.dicomfs.warm"


def test_pins_are_set_by_owner_and_root_and_nothing_else_is() -> None:
    residency = Residency()

    async def refused(call: Awaitable[None]) -> int:
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await call
        return caught.value.errno

    async def main() -> None:
        operations: Any = operations_of(MemoryArchive(["000001.dcm"]), residency)
        inode = await inode_at(operations, f"patients/{FOLDER}/000001.dcm")
        folder = await inode_at(operations, f"patients/{FOLDER}")
        owner, root, other = Caller(5), Caller(0), Caller(7)
        await operations.setxattr(inode, PIN, b"1", root)
        await operations.setxattr(inode, PIN, b"0", owner)
        await operations.setxattr(inode, WARM, b"1", owner)
        await operations.removexattr(inode, PIN, owner)
        assert await refused(operations.setxattr(inode, PIN, b"1", other)) == errno.EPERM
        assert await refused(operations.removexattr(inode, PIN, other)) == errno.EPERM
        for name, value in ((PIN, b"2"), (PIN, b""), (WARM, b"0")):
            assert await refused(operations.setxattr(inode, name, value, root)) == errno.EINVAL
        for where, name in ((folder, PIN), (inode, b"user.dicomfs.tier"), (inode, b"user.x")):
            assert await refused(operations.setxattr(where, name, b"1", root)) == errno.EROFS
        assert await refused(operations.removexattr(inode, WARM, root)) == errno.EROFS
        assert await operations.getxattr(inode, b"user.dicomfs.residency", root) == b"cold"
        assert await operations.listxattr(inode, root) == ()

    trio.run(main)
    instance = InstanceId(9, 0)
    assert residency.asked == [(instance, True), (instance, False), instance, (instance, False)]


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
        (errors.ObjectCold("external", "x", restoring=True), errno.EBUSY),
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
