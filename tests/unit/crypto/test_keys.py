"""Archive keys: text form, key files that only their owner may read, nothing overwritten, nothing shown."""

from __future__ import annotations

import base64
import os
import traceback
from pathlib import Path

import pytest

from dicomfs.crypto.keys import (
    ArchiveKey,
    from_text,
    new_key,
    read_key_file,
    read_or_make_key_file,
    to_text,
    write_key_file,
)
from dicomfs.errors import UsageError

KEY = ArchiveKey(bytes(range(32)))
TEXT = to_text(KEY)


def test_new_keys_differ() -> None:
    assert new_key() != new_key()


def test_the_id_tells_nothing_of_the_key_and_the_wrapping_key_is_another() -> None:
    assert len(KEY.id) == 8
    assert KEY.id not in KEY.secret
    assert len({KEY.secret, KEY.wrapping_key, KEY.id}) == 3


def test_a_key_is_not_shown() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert repr(KEY.secret)[2:-1] not in repr(KEY)


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33)])
def test_a_key_of_another_length_is_refused(secret: bytes) -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        ArchiveKey(secret)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.upper().replace("FORMAT: DICOMFS ARCHIVE KEY 1", "FORMAT: dicomfs archive key 1"),
        "\n".join(reversed(TEXT.splitlines())),
        TEXT.replace("\n", "\r\n"),
        KEY.secret.hex(),
        f"\n{KEY.secret.hex().upper()} \n",
        " ".join(KEY.secret.hex()[start : start + 8] for start in range(0, 64, 8)),
        base64.b64encode(KEY.secret).decode() + "\n",
    ],
)
def test_every_form_of_a_key_is_read(text: str) -> None:
    assert from_text(text, "here") == KEY


@pytest.mark.parametrize(
    "text,problem",
    [
        ("", "no archive key"),
        ("# only words\n", "no archive key"),
        ("correct horse battery staple", "no archive key"),
        (KEY.secret.hex()[:-1], "no archive key"),
        (base64.b64encode(bytes(31)).decode(), "no archive key"),
        (TEXT.replace("key 1", "key 2"), "of this version"),
        (TEXT.replace("checksum:", "sum:"), "must have the lines"),
        (TEXT + "owner: me\n", "must have the lines"),
        (TEXT + "id: 0\n", "twice"),
        (TEXT + "more\n", "without a name"),
        (TEXT.replace("key: 0001", "key: 0002"), "a digit is wrong"),
        (TEXT.replace(KEY.id.hex(), "0" * 16), "a digit is wrong"),
    ],
)
def test_what_is_no_key_is_refused_by_name_and_not_shown(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        from_text(text, "this file")
    shown = "".join(traceback.format_exception(caught.value))
    assert str(caught.value).startswith("this file: ")
    assert "0405 0607" not in shown
    assert "horse" not in shown


def test_every_wrong_digit_of_a_typed_key_is_found() -> None:
    line = next(line for line in TEXT.splitlines() if line.startswith("key:"))
    for place in range(5, len(line)):
        if line[place] != " ":
            wrong = f"{line[:place]}{'0' if line[place] != '0' else '1'}{line[place + 1 :]}"
            with pytest.raises(UsageError, match="a digit is wrong"):
                from_text(TEXT.replace(line, wrong), "here")


def test_a_key_file_is_for_its_owner_only_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "archive.key"
    previous = os.umask(0)
    try:
        write_key_file(path, KEY)
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o400
    assert read_key_file(path) == KEY


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "archive.key"
    path.write_text("mine")
    with pytest.raises(UsageError, match="not overwritten"):
        write_key_file(path, KEY)
    assert path.read_text() == "mine"


def test_a_key_is_made_once_and_read_ever_after(tmp_path: Path) -> None:
    path = tmp_path / "archive.key"
    made = read_or_make_key_file(path)
    assert read_or_make_key_file(path) == made


def test_a_key_file_that_can_not_be_written_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="No such file"):
        write_key_file(tmp_path / "absent" / "archive.key", KEY)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dicomfs.crypto.keys.os.fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        write_key_file(tmp_path / "archive.key", KEY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o420, 0o402, 0o644, 0o401])
def test_a_key_file_open_to_others_is_refused_with_advice(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "archive.key"
    write_key_file(path, KEY)
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"chmod 0400 {path}"):
        read_key_file(path)


def test_a_key_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "archive.key"
    write_key_file(path, KEY)
    real = os.fstat

    def others(descriptor: int) -> os.stat_result:
        found = list(real(descriptor))
        found[4] = 4711
        return os.stat_result(found)

    monkeypatch.setattr("dicomfs.crypto.keys.os.fstat", others)
    with pytest.raises(UsageError, match="another user"):
        read_key_file(path)


def test_what_is_no_key_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_key_file(tmp_path / "absent")
    with pytest.raises(UsageError, match="not a file"):
        read_key_file(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="not a file"):
        read_key_file(tmp_path / "pipe")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff" * 32)
    binary.chmod(0o400)
    with pytest.raises(UsageError, match="is not text"):
        read_key_file(binary)
