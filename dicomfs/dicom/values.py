"""Values of single attributes: text in its declared character set, integers, decimals.

Owns decoding (PS3.5 6.1, 6.2; character sets PS3.3 C.12.1.1.2) of what a scan kept.  Does not own which
attributes matter.  Nothing here raises on any bytes: what cannot be decoded is '' or None, text falls back to
ISO 8859-1.
"""

from __future__ import annotations

import math
import re
import struct
from functools import lru_cache

from dicomfs.dicom.part10 import Scan
from dicomfs.dicom.tags import Tag

# PS3.3 tables C.12-2 to C.12-5, by ISO-IR number.  Our own copy: names in the tree follow from it and must
# never change, whatever a library makes of it later.  The default repertoire counts as ISO 8859-1.
_BY_NUMBER = {
    "6": "latin_1",
    "13": "shift_jis",
    "58": "gb2312",
    "87": "iso2022_jp",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "euc_kr",
    "159": "iso2022_jp_2",
    "166": "tis_620",
    "192": "utf_8",
    "203": "iso8859_15",
}
_BY_NAME = {"GB18030": "gb18030", "GBK": "gbk", "ISO 2022 GBK": "gbk", "ISO 2022 58": "gb2312"}
_BY_ESCAPE = {
    b"\x1b(B": "latin_1",
    b"\x1b(J": "shift_jis",
    b"\x1b)I": "shift_jis",
    b"\x1b-A": "latin_1",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso8859_7",
    b"\x1b-G": "iso8859_6",
    b"\x1b-H": "iso8859_8",
    b"\x1b-L": "iso8859_5",
    b"\x1b-M": "iso8859_9",
    b"\x1b-T": "tis_620",
    b"\x1b-b": "iso8859_15",
    b"\x1b$B": "iso2022_jp",
    b"\x1b$(D": "iso2022_jp_2",
    b"\x1b$)A": "gb2312",
    b"\x1b$)C": "euc_kr",
}
_ESCAPE = b"\x1b"
_FOUR_BYTE_CODES = (b"\x1b$(", b"\x1b$)")
# Python's own decoders for these consume the escape sequences themselves.
_STATEFUL = frozenset({"iso2022_jp", "iso2022_jp_2"})
_DELIMITERS = re.compile(rb"[\\^=\r\n\f\t]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
# The defined terms, and misspellings seen in files: "ISO-IR 100", "ISO IR 100", "ISO_IR_100".
_TERM = re.compile(r"ISO[ _-](?:2022[ _-])?IR[ _-]?([0-9]{1,3})")
_MAX_DECIMAL = 64


@lru_cache(maxsize=256)
def encodings(character_set: bytes) -> tuple[str, ...]:
    """Python codecs of a Specific Character Set value; unknown terms stand for ISO 8859-1."""
    terms = character_set.decode("latin-1").split("\\")[:8]
    return tuple(_codec(term.strip(" \0").upper()) for term in terms)


def _codec(term: str) -> str:
    numbered = _TERM.fullmatch(term)
    return _BY_NUMBER.get(numbered.group(1), "latin_1") if numbered else _BY_NAME.get(term, "latin_1")


def decode(value: bytes, codecs: tuple[str, ...]) -> str:
    """Text of ``value`` with its padding; code extensions by escape sequences are followed."""
    if value.isascii() and _ESCAPE not in value:
        return value.decode("ascii")
    try:
        if _ESCAPE not in value:
            return value.decode(codecs[0])
        first, *rest = value.split(_ESCAPE)
        return first.decode(codecs[0]) + "".join(_extension(_ESCAPE + part, codecs[0]) for part in rest)
    except (UnicodeError, LookupError):
        return value.decode("latin-1")


def _extension(part: bytes, first: str) -> str:
    size = 4 if part.startswith(_FOUR_BYTE_CODES) else 3
    codec = _BY_ESCAPE.get(part[:size], "")
    if not codec:
        return part.decode(first)
    if codec in _STATEFUL:
        return part.decode(codec)
    body = part[size:]
    # Behind a delimiter the first character set is in force again (PS3.5 6.1.2.5.3).
    delimiter = _DELIMITERS.search(body)
    cut = len(body) if delimiter is None else delimiter.start()
    return body[:cut].decode(codec) + body[cut:].decode(first)


def text(scan: Scan, tag: int) -> str:
    """A string attribute without padding, '' where missing; several values stay joined by backslashes."""
    value = scan.values.get(tag, b"")
    if not value:
        return ""
    return decode(value, encodings(scan.values.get(Tag.SPECIFIC_CHARACTER_SET, b""))).strip(" \0")


def code(scan: Scan, tag: int) -> str:
    """A code string (CS), UID or date: default repertoire only, without padding, '' where missing."""
    return scan.values.get(tag, b"").decode("latin-1").strip(" \0")


def unsigned(scan: Scan, tag: int) -> int | None:
    """First value of a US attribute; one written as UL or as an integer string is understood too."""
    value, vr = scan.values.get(tag, b""), scan.vrs.get(tag, "")
    if vr in {"IS", "DS", "LO", "SH"}:
        return integer_string(scan, tag)
    size = 4 if vr in {"UL", "SL"} else 2
    if len(value) < size:
        return None
    return int.from_bytes(value[:size], "big" if scan.syntax.big_endian else "little")


def integer_string(scan: Scan, tag: int) -> int | None:
    """An IS attribute of one value; None where missing or not an integer of at most ten digits."""
    found = code(scan, tag)
    return int(found) if _INTEGER.fullmatch(found) else None


def decimals(scan: Scan, tag: int) -> tuple[float, ...]:
    """Values of a DS (or IS) attribute; () where missing or any of them is not a finite number."""
    found = []
    for part in code(scan, tag).split("\\")[:_MAX_DECIMAL]:
        try:
            number = float(part[:_MAX_DECIMAL])
        except ValueError:
            return ()
        if not math.isfinite(number):
            return ()
        found.append(number)
    return tuple(found)


def floating(scan: Scan, tag: int, size: int) -> float | None:
    """First value of an FL (``size`` 4) or FD (8) attribute; text where the file says DS or IS."""
    value, vr = scan.values.get(tag, b""), scan.vrs.get(tag, "")
    if vr in {"DS", "IS"} or len(value) < size:
        found = decimals(scan, tag)
        return found[0] if found else None
    order = ">" if scan.syntax.big_endian else "<"
    number: float = struct.unpack_from(order + ("f" if size == 4 else "d"), value)[0]
    return number if math.isfinite(number) else None
