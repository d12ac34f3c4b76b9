"""Names are readable, legal everywhere, of bounded length, and follow from the attributes alone."""

from __future__ import annotations

import hashlib
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom.naming import (
    MAX_BYTES,
    component,
    escape,
    folder_hash,
    instance_name,
    patient_folder,
    readable_name,
    series_folder,
    study_folder,
)

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=[]), max_size=120)
FORBIDDEN = (
    set('\\/:*?"<>|') | {chr(code) for code in range(32)} | {"\x7f", "\u2028", "\u2029", "\u202e", "\u2066"}
)


def test_the_hash_is_the_beginning_of_a_sha_256() -> None:
    assert folder_hash("1.2.3") == hashlib.sha256(b"1.2.3").hexdigest()[:8]


def test_folders_read_like_this() -> None:
    assert re.fullmatch("ID7 Doe John [0-9a-f]{8}", patient_folder("", "ID7", "Doe^John"))
    assert study_folder("1.2", "20240229", "Head") == f"20240229 Head {folder_hash('1.2')}"
    assert series_folder("1.3", "4", "T1 axial") == f"4 T1 axial {folder_hash('1.3')}"


def test_fixed_words_stand_for_what_is_missing() -> None:
    assert patient_folder("", "", "").startswith("no-id no-name ")
    assert study_folder("1.2", "", "") == f"no-date {folder_hash('1.2')}"
    assert series_folder("1.2", "", "") == f"no-number {folder_hash('1.2')}"


def test_issuer_id_and_name_make_different_patients() -> None:
    folders = {
        patient_folder("", "1", "A"),
        patient_folder("X", "1", "A"),
        patient_folder("", "1", "A^"),
        patient_folder("", "1A", ""),
    }
    assert len(folders) == 4


@pytest.mark.parametrize(
    "name,shown",
    [
        ("Doe^John^Q^Dr^Jr", "Doe John Q Dr Jr"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada Tarou"),
        ("=山田^太郎=やまだ^たろう", "山田 太郎"),
        ("^^^^", ""),
        ("", ""),
        ("Doe^^^Dr", "Doe Dr"),
    ],
)
def test_person_names_show_their_first_group_with_blanks_for_carets(name: str, shown: str) -> None:
    assert readable_name(name) == shown


@pytest.mark.parametrize(
    "text,escaped",
    [
        ("a/b\\c", "a%2Fb%5Cc"),
        ("100% <all>", "100%25 %3Call%3E"),
        ("tab\there", "tab%09here"),
        ("..hidden", "%2E%2Ehidden"),
        ("  many   blanks ", "many blanks"),
        ("line\u2028break", "line%E2%80%A8break"),
        ("right\u202eleft", "right%E2%80%AEleft"),
        ("lone\ud800", "lone%ED%A0%80"),
        ("e\u0301", "\u00e9"),
        ("\x7f", "%7F"),
    ],
)
def test_what_is_unpleasant_is_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.parametrize("date", ["CON.x", "nul.tar", "Com1.a", "LPT9.", "aux.b.c"])
def test_names_reserved_on_windows_are_broken_up(date: str) -> None:
    assert re.match("%[46-9][0-9A-F]|%[56][0-9A-F]", study_folder("1.2", date, ""))


def test_long_names_keep_their_hash_and_are_cut_between_characters() -> None:
    folder = patient_folder("", "ID" * 32, "山田" * 60)
    assert len(folder.encode()) <= MAX_BYTES
    assert re.search(" [0-9a-f]{8}$", folder)
    assert "\ufffd" not in folder


def test_a_cut_never_leaves_half_an_escape() -> None:
    for length in range(60, 80):
        body = study_folder("1", "a" * length + "///", "").rsplit(" ", 1)[0]
        assert re.fullmatch("a+(%2F)*", body)


def test_a_cut_never_parts_a_base_from_its_marks() -> None:
    body = study_folder("1", "a" * 69 + "q\u0323\u0307", "").rsplit(" ", 1)[0]
    assert body in {"a" * 69, "a" * 69 + "q\u0323\u0307"}


def test_endless_runs_of_marks_are_cut_before_they_are_sorted() -> None:
    text = "a" + "\u0323\u0307" * 500_000
    assert len(study_folder("1", text, text).encode()) <= MAX_BYTES


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_any_text_makes_a_legal_folder(one: str, two: str, three: str) -> None:
    for folder in (
        patient_folder(one, two, three),
        study_folder(one, two, three),
        series_folder(one, two, three),
    ):
        assert 8 <= len(folder.encode("utf-8")) <= MAX_BYTES
        assert not set(folder) & FORBIDDEN
        assert not folder.startswith((" ", "."))
        assert not folder.endswith((" ", "."))
        assert unicodedata.is_normalized("NFC", folder)
        assert re.search("(^| )[0-9a-f]{8}$", folder)


def test_instance_names_have_six_digits_and_a_hash_when_needed() -> None:
    eight, sixteen = hashlib.sha256(b"1.2").hexdigest()[:8], hashlib.sha256(b"1.2").hexdigest()[:16]
    assert instance_name(12, "1.2", 0) == "000012.dcm"
    assert instance_name(12, "1.2", 1) == f"000012-{eight}.dcm"
    assert instance_name(12, "1.2", 2) == f"000012-{sixteen}.dcm"
    assert instance_name(None, "1.2", 0) == instance_name(None, "1.2", 1) == f"x-{eight}.dcm"
    assert instance_name(None, "1.2", 2) == f"x-{sixteen}.dcm"
    assert instance_name(12345678, "1.2", 0) == "12345678.dcm"


@given(ANY_TEXT)
def test_a_component_is_legal_and_bounded_whatever_it_is_made_of(text: str) -> None:
    name = component(text, "none")
    assert 0 < len(name.encode("utf-8")) <= MAX_BYTES
    assert not FORBIDDEN & set(name)
    assert name.strip(" .") == name


def test_a_component_reads_like_this() -> None:
    assert component("1.2.840.1", "no-uid") == "1.2.840.1"
    assert component("CT 1", "no-ae") == "CT 1"
    assert component("", "no-ae") == component("  ", "no-ae") == "no-ae"
    assert component("../x", "no-ae") == "%2E%2E%2Fx"
    assert component("x..", "no-ae") == "x%2E%2E"
    assert component("con.1", "no-ae") == "%63on.1"
    assert component("1." * 32, "no-uid") == "1." * 31 + "1%2E"
    assert component("a" * 90, "no-uid") != component("a" * 91, "no-uid")
