"""How two files with one SOP Instance UID differ.

Owns the class of a conflict.  Does not own what is done about it.
"""

from __future__ import annotations

import array
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.values import convert_SQ

from dicomfs.dicom.library import read_data_set
from dicomfs.dicom.part10 import Buffer, Scan, scan
from dicomfs.model import ConflictClass

_CHUNK = 1 << 20
_WORD = (
    dict.fromkeys(("AT", "OW", "SS", "US"), 2)
    | dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4)
    | dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8)
)
_TYPECODES = {2: "H", 4: "I", 8: "Q"}
_PADDING_TAG = 0xFFFCFFFC
# Nested deeper than any real object; what is deeper counts as different.
_MAX_DEPTH = 64


def complete(found: Scan) -> bool:
    """Whether the file holds all that it announces: it is no interrupted copy."""
    return found.complete


def conflict_class(old: Buffer, new: Buffer) -> ConflictClass:
    """Class of the difference between two files of one instance; never raises.

    TRUNCATED: one is the beginning of the other, or only one is complete.  ENCODING: same pixel value, same
    elements but for meta group, group lengths, native transfer syntax and padding.  ATTRIBUTES: same pixel
    value (or none in both).  PIXELS: anything else.
    """
    with memoryview(old) as a, memoryview(new) as b:
        if _same(a, b, len(a), len(b)):
            return ConflictClass.NONE
        shared = min(len(a), len(b))
        if len(a) != len(b) and _same(a[:shared], b[:shared], shared, shared):
            return ConflictClass.TRUNCATED
        old_scan, new_scan = scan(a), scan(b)
        if old_scan.complete != new_scan.complete:
            return ConflictClass.TRUNCATED
        if not _same_pixels(a, b, old_scan, new_scan):
            return ConflictClass.PIXELS
        if _same_elements(a, b, old_scan, new_scan):
            return ConflictClass.ENCODING
        return ConflictClass.ATTRIBUTES


def _same(a: memoryview, b: memoryview, a_size: int, b_size: int) -> bool:
    if a_size != b_size:
        return False
    starts = range(0, a_size, _CHUNK)
    return all(a[at : at + _CHUNK].tobytes() == b[at : at + _CHUNK].tobytes() for at in starts)


def _same_pixels(a: memoryview, b: memoryview, a_scan: Scan, b_scan: Scan) -> bool:
    one, two = a_scan.pixel, b_scan.pixel
    if one is None or two is None:
        # A deflated data set hides its pixel value: it is compared as a whole, so never judged equal here.
        return one is two and not a_scan.note and not b_scan.note
    if one.tag != two.tag or one.undefined != two.undefined:
        return False
    left, right = a[one.value_offset : one.end], b[two.value_offset : two.end]
    # The representation, not the depth of the samples, says which words are swapped (PS3.5 7.3).
    word = _WORD.get(one.vr if a_scan.syntax.big_endian else two.vr, 1)
    if a_scan.syntax.big_endian != b_scan.syntax.big_endian and word > 1 and _same_swapped(left, right, word):
        return True
    return _same(left, right, len(left), len(right))


def _same_swapped(a: memoryview, b: memoryview, word: int) -> bool:
    if len(a) != len(b) or len(a) % word:
        return False
    for at in range(0, len(a), _CHUNK):
        words = array.array(_TYPECODES[word], a[at : at + _CHUNK].tobytes())
        words.byteswap()
        if words.tobytes() != b[at : at + _CHUNK].tobytes():
            return False
    return True


def _same_elements(a: memoryview, b: memoryview, a_scan: Scan, b_scan: Scan) -> bool:
    one, two = read_data_set(a, a_scan), read_data_set(b, b_scan)
    if one is None or two is None:
        return False
    if not _same_tail(a, b, a_scan, b_scan):
        return False
    try:
        return _same_sets(one, two, 0)
    except Exception:  # pydicom converts values late; what it cannot read counts as different
        return False


def _same_tail(a: memoryview, b: memoryview, a_scan: Scan, b_scan: Scan) -> bool:
    """Whether what follows the pixel value is the same, trailing zeros aside."""
    if a_scan.pixel is None or b_scan.pixel is None:
        return True
    one, two = a[a_scan.pixel.end :], b[b_scan.pixel.end :]
    if max(len(one), len(two)) > _CHUNK:
        return _same(one, two, len(one), len(two))
    return one.tobytes().rstrip(b"\0") == two.tobytes().rstrip(b"\0")


def _same_sets(one: Dataset, two: Dataset, depth: int) -> bool:
    left, right = _elements(one), _elements(two)
    if depth > _MAX_DEPTH or left.keys() != right.keys():
        return False
    return all(_same_element((one, left[tag]), (two, right[tag]), tag, depth) for tag in left)


def _elements(data_set: Dataset) -> dict[int, Any]:
    """Raw elements by tag, taken before any is converted: converting one converts others it depends on."""
    # Group lengths (gggg,0000) and Data Set Trailing Padding say nothing about the object.
    tags = [int(tag) for tag in sorted(data_set.keys()) if tag & 0xFFFF and tag != _PADDING_TAG]
    return {tag: data_set.get_item(tag) for tag in tags}


def _same_element(one: tuple[Dataset, Any], two: tuple[Dataset, Any], tag: int, depth: int) -> bool:
    (left_set, left), (right_set, right) = one, two
    # What an implicit data set leaves open, an explicit one says.
    vrs = [element.VR or _dictionary_vr(tag) for element in (left, right)]
    vr = vrs[0] if vrs[0] != "UN" else vrs[1]
    stored = _stored(left), _stored(right)
    if None not in stored and (vr != "SQ" or stored == (b"", b"")):
        return _plain(left, stored[0] or b"", vr) == _plain(right, stored[1] or b"", vr)
    values = _value(left_set, left, tag), _value(right_set, right, tag)
    if not all(isinstance(value, Sequence) for value in values):
        return str(values[0]) == str(values[1])
    return len(values[0]) == len(values[1]) and all(
        _same_sets(a, b, depth + 1) for a, b in zip(*values, strict=True)
    )


def _value(data_set: Dataset, element: Any, tag: int) -> Any:  # noqa: ANN401 - pydicom's elements and values
    """A converted value; one of unknown representation is read as the sequence that its counterpart is."""
    unknown = isinstance(element, RawDataElement) and (element.VR or _dictionary_vr(tag)) == "UN"
    if not unknown:
        return data_set[tag].value
    implicit = element.VR == "UN" or element.is_implicit_VR
    return convert_SQ(element.value or b"", implicit, element.is_little_endian)


def _dictionary_vr(tag: int) -> str:
    """The representation of a standard attribute; of two that are possible the last."""
    return dictionary_VR(tag).rsplit(" ", 1)[-1] if dictionary_has_tag(tag) else "UN"


def _stored(element: Any) -> bytes | None:  # noqa: ANN401 - pydicom's elements
    """Value bytes as they stand in the file, None where pydicom has converted them."""
    if isinstance(element, RawDataElement) or element.VR in {"OB", "UN"}:
        value = element.value or b""
        return value if isinstance(value, bytes) else None
    return None


def _plain(element: Any, value: bytes, vr: str) -> bytes:  # noqa: ANN401 - pydicom's elements
    """Value bytes in little endian and without padding."""
    word = _WORD.get(vr, 1)
    big = isinstance(element, RawDataElement) and not element.is_little_endian
    if big and word > 1 and len(value) % word == 0:
        words = array.array(_TYPECODES[word], value)
        words.byteswap()
        return words.tobytes()
    if word > 1 or vr in {"OB", "UN"}:
        return value + b"\0" * (len(value) % 2)
    # Leading spaces say something in texts of lines only (PS3.5 6.2).
    return value.rstrip(b" \0") if vr in {"LT", "ST", "UT"} else value.strip(b" \0")
