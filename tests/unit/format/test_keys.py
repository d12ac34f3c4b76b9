"""Object keys."""

from __future__ import annotations

import pytest

from dicomfs.errors import DamagedError
from dicomfs.format.keys import journal_key, pack_key, parse_journal_key, parse_pack_key
from dicomfs.model import PackKind

_DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("kind", PackKind)
def test_keys_of_packs_come_back(kind: PackKind) -> None:
    key = pack_key(kind, _DIGEST)
    assert key == f"{kind.prefix}/01/{_DIGEST}"
    assert parse_pack_key(key) == (kind, bytes.fromhex(_DIGEST))


@pytest.mark.parametrize("sequence", [0, 255, (1 << 64) - 1])
def test_keys_of_journal_objects_come_back(sequence: int) -> None:
    assert parse_journal_key(journal_key(sequence)) == sequence


@pytest.mark.parametrize(
    "key",
    [
        "",
        f"pixel/02/{_DIGEST}",
        f"pixel/01/{_DIGEST.upper()}",
        f"pixel/01/{_DIGEST}\n",
        f"pixel/01/{_DIGEST}0",
        f"other/01/{_DIGEST}",
        "journal/0000000000000000",
    ],
)
def test_other_strings_are_no_keys_of_packs(key: str) -> None:
    with pytest.raises(DamagedError):
        parse_pack_key(key)


@pytest.mark.parametrize("key", ["journal/0", "journal/000000000000000g", f"pixel/01/{_DIGEST}"])
def test_other_strings_are_no_keys_of_journal_objects(key: str) -> None:
    with pytest.raises(DamagedError):
        parse_journal_key(key)
