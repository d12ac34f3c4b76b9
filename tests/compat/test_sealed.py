"""Sealed tiers of every format version open for ever, and the page agrees with the code."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from dicomfs.crypto.keyring import Keyring, unwrapped
from dicomfs.crypto.keys import ArchiveKey, from_text
from dicomfs.crypto.names import NameCipher
from dicomfs.crypto.segments import KeyReference, Sealer, opened
from dicomfs.errors import KeyMissing
from dicomfs.model import ObjectKey
from dicomfs.tiers.folder import FolderTier
from dicomfs.tiers.memory import MemoryTier
from dicomfs.tiers.sealed import SealedTier
from tests import independent_encryption

GOLDEN = Path(__file__).parent / "sealed"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir())
PAGE = (Path(__file__).parents[2] / "docs" / "encryption.md").read_text(encoding="utf-8")
KEY = ArchiveKey(bytes(range(32)))
ARCHIVE_ID = bytes(range(16))
DATA_KEY = bytes(range(0x80, 0xA0))
KEYRING = Keyring(0x0123456789ABCDEF, 2, ARCHIVE_ID, KEY.id, bytes(range(0x40, 0x80)), (DATA_KEY, None))
REFERENCE = KeyReference(KEYRING.number, 0)


def by_digest(kind: str, data: bytes) -> ObjectKey:
    digest = hashlib.sha256(data).hexdigest()
    return ObjectKey(f"{kind}/{digest[:2]}/{digest}")


PIXELS = hashlib.shake_256(b"pixels").digest(65_546)
OBJECTS = {
    by_digest("pixel", PIXELS): PIXELS,
    ObjectKey("journal/0000000000000001"): b"decisions",
    by_digest("opaque", b""): b"",
    ObjectKey("owner"): b"an owner",
}


def example(name: str) -> str:
    return PAGE.split(f"<!-- example: {name} -->\n")[1].split("\n\n")[0]


def dump(name: str) -> bytes:
    lines = re.findall(r"^ +[0-9a-f]{4}  ([0-9a-f ]+)$", example(name), re.MULTILINE)
    return b"".join(bytes.fromhex(line) for line in lines)


def names() -> dict[str, str]:
    return dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", example("names"), re.MULTILINE))


def golden_key(version: str) -> ArchiveKey:
    return from_text((GOLDEN / version / "key.txt").read_text(encoding="utf-8"), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tier_of_each_version_opens(version: str) -> None:
    tier = SealedTier(FolderTier("golden", GOLDEN / version / "tier"), ARCHIVE_ID, [golden_key(version)])
    assert {key: tier.get(key) for key, _ in tier.list("")} == OBJECTS
    assert {key: stat.size for key, stat in tier.list("")} == {
        key: len(data) for key, data in OBJECTS.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tier_of_each_version_stays_closed_to_other_keys(version: str) -> None:
    tier = SealedTier(FolderTier("golden", GOLDEN / version / "tier"), ARCHIVE_ID, [KEY])
    with pytest.raises(KeyMissing, match=golden_key(version).id.hex()):
        list(tier.list(""))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_reader_written_from_the_page_reads_it_too(version: str) -> None:
    key = independent_encryption.archive_key((GOLDEN / version / "key.txt").read_text(encoding="utf-8"))
    assert independent_encryption.read_tier(GOLDEN / version / "tier", key) == OBJECTS


def test_the_reader_written_from_the_page_reads_what_is_written_now(tmp_path: Path) -> None:
    (tmp_path / "tier").mkdir()
    tier = SealedTier(FolderTier("laboratory", tmp_path / "tier"), ARCHIVE_ID, [KEY])
    large = tmp_path / "large"
    large.write_bytes(hashlib.shake_256(b"large").digest(9_000_000))
    expected = dict(OBJECTS) | {by_digest("burned", large.read_bytes()): large.read_bytes()}
    for key, data in OBJECTS.items():
        tier.put(key, data, hashlib.sha256(data).hexdigest())
    tier.put(by_digest("burned", large.read_bytes()), large, hashlib.sha256(large.read_bytes()).hexdigest())
    assert independent_encryption.read_tier(tmp_path / "tier", KEY.secret) == expected


def test_the_key_document_of_the_page_is_read() -> None:
    text = re.sub(r"^    ", "", example("key document"), flags=re.MULTILINE)
    assert from_text(text, "the page") == KEY
    assert independent_encryption.archive_key(text) == KEY.secret


def test_the_keyring_of_the_page_is_what_is_written_and_read() -> None:
    data = dump("keyring")
    assert KEYRING.wrapped(KEY, bytes(range(0xA0, 0xAC))) == data
    assert unwrapped(data, KEYRING.object_key, KEY) == KEYRING
    assert independent_encryption.keyring(data, KEYRING.object_key, KEY.secret).data_keys == [DATA_KEY, None]


def test_the_names_of_the_page_are_those_that_are_made() -> None:
    cipher = NameCipher(KEYRING.name_key)
    assert len(names()) == 4
    for key, stored in names().items():
        assert cipher.stored(ObjectKey(key)) == stored
        assert cipher.logical(stored) == key
        assert independent_encryption.logical_key(KEYRING.name_key, stored) == key


def test_the_object_of_the_page_is_what_is_written_and_read() -> None:
    name = ObjectKey(names()[by_digest("opaque", b"hello dicom")])
    sealer = Sealer(DATA_KEY, REFERENCE, name, 11)
    assert sealer.segment(b"hello dicom", bytes(range(0xB0, 0xBC))) == dump("object")
    assert opened(dump("object"), name, 0, lambda _: DATA_KEY).plain == b"hello dicom"
    rings = {KEYRING.number: independent_encryption.keyring(dump("keyring"), KEYRING.object_key, KEY.secret)}
    assert independent_encryption.plain_object(dump("object"), name, rings) == b"hello dicom"


def test_the_example_is_served_by_a_tier() -> None:
    inner = MemoryTier()
    for name, data in (
        (KEYRING.object_key, dump("keyring")),
        (names()[by_digest("opaque", b"hello dicom")], dump("object")),
    ):
        inner.put(ObjectKey(name), data, hashlib.sha256(data).hexdigest())
    tier = SealedTier(inner, None, [KEY])
    assert tier.get(by_digest("opaque", b"hello dicom")) == b"hello dicom"
