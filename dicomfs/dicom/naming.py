r"""Names in the tree: made of attributes, legal on every system that may mount or copy them.

Owns the folder and file names of ``patients/`` (a public interface: scripts are written against it).  Does
not own collisions (judged where folders are kept) nor the decision which level an instance name takes.

Rules.  A folder is ``<parts> <h>``, its parts escaped and joined by spaces, ``<h>`` eight hex digits of a
SHA-256, always kept; a component is at most 80 bytes of UTF-8 in NFC.  Escaped as ``%XX`` per UTF-8 byte:
control and invisible formatting characters, line separators, lone surrogates, ``\ / : * ? " < > | %``,
leading and trailing dots and spaces, and the first letter of a name reserved on Windows.  Fixed words stand
for what is missing: ``no-id``, ``no-name``, ``no-date``, ``no-number``; a missing description has none.
Of a person name the alphabetic group is shown (else the ideographic, else the phonetic), ``^`` as a space.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_BYTES = 80
_MAX_INPUT = 1024
_ROOM_BYTES = 13
"""Kept free behind a component of its own: an extension, a digest that tells two files apart."""
_HASH_DIGITS, _LONG_HASH_DIGITS = 8, 16

# Listed, not taken from the Unicode categories: those grow with each Python, and names must never change.
_ESCAPED = re.compile(
    '[\x00-\x1f\x7f-\x9f\\\\/:*?"<>|%\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff'
    "\ufff9-\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)
_SPACES = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
_RESERVED = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    | {f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"}
)
_TRAILING_ESCAPE = re.compile(r"%[0-9A-F]?$")


def folder_hash(text: str) -> str:
    """Eight hex digits of the SHA-256 of ``text`` in UTF-8."""
    return _digest(text)[:_HASH_DIGITS]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def patient_folder(issuer: str, patient_id: str, name: str) -> str:
    """``<PatientID> <name> <h>``; ``<h>`` of issuer, ID and full name, with NUL between them."""
    parts = (patient_id or "no-id", readable_name(name) or "no-name")
    return _folder(parts, "\0".join((issuer, patient_id, name)))


def study_folder(uid: str, date: str, description: str) -> str:
    """``<date> <description> <h>``; ``<h>`` of the Study Instance UID."""
    return _folder((date or "no-date", description), uid)


def series_folder(uid: str, number: str, description: str) -> str:
    """``<series number> <description> <h>``; ``<h>`` of the Series Instance UID."""
    return _folder((number or "no-number", description), uid)


def instance_name(number: int | None, sop_instance_uid: str, level: int) -> str:
    """File name by Instance Number, six digits or more.

    ``level`` 0 is the plain name, 1 adds 8 hex digits of the UID's SHA-256 (a duplicate number), 2 adds 16
    (where 8 collide).  Without a number the name is ``x-<h>.dcm`` from level 0 on.
    """
    digits = _LONG_HASH_DIGITS if level >= 2 else _HASH_DIGITS
    if number is None:
        return f"x-{_digest(sop_instance_uid)[:digits]}.dcm"
    if level == 0:
        return f"{number:06d}.dcm"
    return f"{number:06d}-{_digest(sop_instance_uid)[:digits]}.dcm"


def readable_name(name: str) -> str:
    """The first component group of a PN (PS3.5 6.2.1) that says anything, its components joined by spaces."""
    for group in name.split("="):
        shown = _SPACES.sub(" ", group.replace("^", " ")).strip(" ")
        if shown:
            return shown
    return ""


def escape(text: str) -> str:
    """``text`` as (part of) a legal component: NFC, runs of blanks as one space, the rest as ``%XX``."""
    # What is beyond a component's size is cut off anyway, and normalising long runs of marks is quadratic.
    start = _SPACES.sub(" ", text).strip(" ")[:_MAX_INPUT]
    plain = _SPACES.sub(" ", unicodedata.normalize("NFC", start)).strip(" ")
    plain = _ESCAPED.sub(_percent, plain)
    bare = plain.lstrip(".")
    return "%2E" * (len(plain) - len(bare)) + bare


def component(text: str, missing: str) -> str:
    """A whole component made of ``text`` alone, of ``missing`` where that says nothing.

    Short texts without characters to escape stay as they are; what is cut ends with 8 hex digits of its
    SHA-256, so that different texts stay different.
    """
    body = escape(text) or missing
    bare = body.rstrip(".")
    body = bare + "%2E" * (len(body) - len(bare))
    if len(body.encode("utf-8")) > MAX_BYTES - _ROOM_BYTES:
        body = f"{_cut(body, MAX_BYTES - _ROOM_BYTES - _HASH_DIGITS - 1)}-{folder_hash(text)}"
    return _unreserved(body)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogatepass"))


def _folder(parts: tuple[str, ...], hashed: str) -> str:
    body = " ".join(part for part in map(escape, parts) if part)
    body = _cut(body, MAX_BYTES - _HASH_DIGITS - 1)
    folder = f"{body} {folder_hash(hashed)}" if body else folder_hash(hashed)
    return _unreserved(folder)


def _unreserved(name: str) -> str:
    if name.split(".", maxsplit=1)[0].rstrip(" ").upper() in _RESERVED:
        return f"%{ord(name[0]):02X}{name[1:]}"
    return name


def _cut(text: str, limit: int) -> str:
    """``text`` within ``limit`` bytes, not within a character, an escape, or a base with its marks."""
    encoded = text.encode("utf-8")
    if len(encoded) <= limit:
        return text
    stop = len(encoded[:limit].decode("utf-8", "ignore"))
    while stop and unicodedata.combining(text[stop]):
        stop -= 1
    return _TRAILING_ESCAPE.sub("", text[:stop]).rstrip(" ")
