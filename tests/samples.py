"""Synthetic DICOM files, built byte by byte so that any oddity can be made.

Owns small builders: elements in any encoding, whole files, whole series.  Uses no DICOM library, so that a
mistake there cannot hide one of ours.  Everything follows from its arguments: equal calls give equal bytes.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
US_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
ROOT = "1.2.826.0.1.3680043.10.1"
"""Prefix of all UIDs made here."""

UNDEFINED = 0xFFFFFFFF
PIXEL_DATA = 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "AT": "L"}

Value = bytes | str | int | float | Sequence["Value"]


@dataclass(frozen=True)
class Writing:
    """How elements are written."""

    explicit: bool = True
    big: bool = False

    @property
    def order(self) -> str:
        """Byte order character of `struct`."""
        return ">" if self.big else "<"

    def tag(self, tag: int) -> bytes:
        """Four bytes of a tag."""
        return struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)

    def element(self, tag: int, vr: str, value: Value = b"", *, length: int | None = None) -> bytes:
        """One element; ``length`` overrules what is written as the length."""
        content = self.value(vr, value)
        size = len(content) if length is None else length
        if not self.explicit:
            return self.tag(tag) + struct.pack(self.order + "L", size) + content
        head = self.tag(tag) + vr.encode("latin-1")
        if vr in LONG_VRS:
            return head + b"\0\0" + struct.pack(self.order + "L", size) + content
        return head + struct.pack(self.order + "H", size & 0xFFFF) + content

    def value(self, vr: str, value: Value) -> bytes:
        """Value bytes, padded to even length; bytes are taken as they are."""
        if isinstance(value, bytes):
            return value
        if vr in _NUMBERS:
            numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            if vr == "AT":
                return b"".join(self.tag(int(str(n))) for n in numbers)
            return b"".join(struct.pack(self.order + _NUMBERS[vr], n) for n in numbers)
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = "\\".join(str(part) for part in value)
        content = str(value).encode("utf-8")
        return content + (b"\0" if vr == "UI" else b" ") * (len(content) % 2)

    def item(self, content: bytes, *, undefined: bool = False) -> bytes:
        """One item around ``content``."""
        size = UNDEFINED if undefined else len(content)
        end = self.delimiter(ITEM_END) if undefined else b""
        return self.tag(ITEM) + struct.pack(self.order + "L", size) + content + end

    def delimiter(self, tag: int) -> bytes:
        """A delimiter, of length 0."""
        return self.tag(tag) + bytes(4)

    def sequence(
        self,
        tag: int,
        items: Iterable[bytes],
        *,
        undefined: bool = False,
        vr: str = "SQ",
        open_items: bool = False,
    ) -> bytes:
        """A sequence; ``undefined`` length of itself, ``open_items`` of its items."""
        content = b"".join(self.item(item, undefined=open_items) for item in items)
        if undefined:
            return self.element(tag, vr, content + self.delimiter(SEQUENCE_END), length=UNDEFINED)
        return self.element(tag, vr, content)

    def fragments(self, parts: Iterable[bytes], *, table: bytes = b"", tag: int = PIXEL_DATA) -> bytes:
        """An encapsulated pixel value, Basic Offset Table first."""
        content = b"".join(self.item(part) for part in (table, *parts))
        return self.element(tag, "OB", content + self.delimiter(SEQUENCE_END), length=UNDEFINED)


LITTLE = Writing()
PLAIN = Writing(explicit=False)
BIG = Writing(big=True)


def writing(syntax: str) -> Writing:
    """How a data set of this transfer syntax is written."""
    return {IMPLICIT: PLAIN, BIG_ENDIAN: BIG}.get(syntax, LITTLE)


def uid(*parts: object) -> str:
    """A UID that follows from ``parts``."""
    text = "/".join(str(part) for part in parts)
    return f"{ROOT}.{zlib.crc32(text.encode()) + 1}.{zlib.adler32(text.encode()) + 1}"


def meta(syntax: str, sop_class: str, instance: str, *, length: int | None = None) -> bytes:
    """A meta group; ``length`` overrules its group length, -1 leaves it out."""
    body = LITTLE.element(0x00020001, "OB", b"\0\1")
    body += LITTLE.element(0x00020002, "UI", sop_class)
    body += LITTLE.element(0x00020003, "UI", instance)
    body += LITTLE.element(0x00020010, "UI", syntax)
    body += LITTLE.element(0x00020012, "UI", f"{ROOT}.9")
    if length == -1:
        return body
    return LITTLE.element(0x00020000, "UL", len(body) if length is None else length) + body


def part10(
    data_set: bytes, syntax: str = EXPLICIT, sop_class: str = CT_IMAGE, instance: str = f"{ROOT}.1"
) -> bytes:
    """A whole file around a data set (deflated here where the syntax says so)."""
    if syntax == DEFLATED:
        machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data_set = machine.compress(data_set) + machine.flush()
        data_set += b"\0" * (len(data_set) % 2)
    return bytes(128) + b"DICM" + meta(syntax, sop_class, instance) + data_set


Attribute = tuple[int, str, Value]


def write(attributes: Iterable[Attribute], how: Writing = LITTLE) -> bytes:
    """A data set of plain elements, in order of their tags."""
    return b"".join(how.element(tag, vr, value) for tag, vr, value in sorted(attributes, key=lambda a: a[0]))


def identity(
    patient: str = "Sample^Patient",
    number: int = 1,
    *,
    series: object = "s",
    modality: str = "CT",
    sop_class: str = CT_IMAGE,
) -> list[Attribute]:
    """Attributes that name an instance, with UIDs that follow from patient, series and number."""
    return [
        (0x00080005, "CS", "ISO_IR 192"),
        (0x00080008, "CS", ["ORIGINAL", "PRIMARY", "AXIAL"]),
        (0x00080016, "UI", sop_class),
        (0x00080018, "UI", uid(patient, series, number)),
        (0x00080020, "DA", "20240229"),
        (0x00080032, "TM", "101500.250000"),
        (0x00080060, "CS", modality),
        (0x00080070, "LO", "Sample Works"),
        (0x00081030, "LO", "Head routine"),
        (0x0008103E, "LO", f"Series {series}"),
        (0x00100010, "PN", patient),
        (0x00100020, "LO", f"ID{zlib.crc32(patient.encode()) % 100000:05d}"),
        (0x00100021, "LO", "Sample Hospital"),
        (0x0020000D, "UI", uid(patient)),
        (0x0020000E, "UI", uid(patient, series)),
        (0x00200011, "IS", "3"),
        (0x00200012, "IS", "1"),
        (0x00200013, "IS", str(number)),
    ]


def plane(z: float, spacing: float = 0.5) -> list[Attribute]:
    """Geometry of an axial slice at ``z`` mm."""
    return [
        (0x00180050, "DS", "2.5"),
        (0x00200032, "DS", ["-100.0", "-100.0", f"{z:.3f}"]),
        (0x00200037, "DS", ["1", "0", "0", "0", "1", "0"]),
        (0x00280030, "DS", [str(spacing), str(spacing)]),
    ]


def image(
    rows: int,
    columns: int,
    *,
    bits: int = 16,
    stored: int | None = None,
    signed: bool = False,
    samples: int = 1,
    planar: int = 0,
    frames: int | None = None,
) -> list[Attribute]:
    """Image pixel attributes."""
    stored = bits if stored is None else stored
    found: list[Attribute] = [
        (0x00280002, "US", samples),
        (0x00280004, "CS", "MONOCHROME2" if samples == 1 else "RGB"),
        (0x00280010, "US", rows),
        (0x00280011, "US", columns),
        (0x00280100, "US", bits),
        (0x00280101, "US", stored),
        (0x00280102, "US", stored - 1),
        (0x00280103, "US", int(signed)),
    ]
    if samples > 1:
        found.append((0x00280006, "US", planar))
    if frames is not None:
        found.append((0x00280008, "IS", str(frames)))
    return found


def volume(slices: int, rows: int, columns: int, seed: int, *, top: int = 4095) -> npt.NDArray[np.int16]:
    """A smooth body with some noise, (slices, rows, columns), values from -1024 to ``top`` - 1024."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[0 : 1 : slices * 1j, -1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    width = 0.6 + 0.2 * np.sin(3 * z + seed)
    inside = x**2 / width**2 + y**2 < 0.8
    body = 1060 + 150 * np.sin(7 * x + 2 * z) * np.cos(5 * y) + rng.normal(0, 8, (slices, rows, columns))
    values = np.clip(np.where(inside, body, 24 + rng.normal(0, 3, body.shape)), 0, top) - 1024
    return np.asarray(values, dtype=np.int16)


def ct_series(
    count: int,
    rows: int = 64,
    columns: int = 64,
    seed: int = 0,
    *,
    patient: str = "Sample^Patient",
    series: object | None = None,
    syntax: str = EXPLICIT,
) -> list[bytes]:
    """The files of one CT series, in order of Instance Number; UIDs follow from patient, series and seed."""
    how = writing(syntax)
    series = seed if series is None else series
    files = []
    for index, pixels in enumerate(volume(count, rows, columns, seed)):
        attributes = identity(patient, index + 1, series=series) + plane(2.5 * index)
        attributes += image(rows, columns, stored=16, signed=True)
        attributes += [(0x00281052, "DS", "0"), (0x00281053, "DS", "1"), (0x00181210, "SH", "STANDARD")]
        raw = pixels.astype(how.order + "i2").tobytes()
        data_set = write([*attributes, (PIXEL_DATA, "OW", raw)], how)
        files.append(part10(data_set, syntax, CT_IMAGE, uid(patient, series, index + 1)))
    return files


def protocol(seed: object, lines: int = 900) -> bytes:
    """A private text as scanners write them: 30 kB that compress to a third, another one for each seed."""
    rng = random.Random(str(seed))
    return b"".join(b"sPar.lItem[%d] = %s\n" % (n, str(rng.getrandbits(60)).encode()) for n in range(lines))


def long_headers(patient: str, text: bytes, count: int = 2, *, series: object = "p") -> list[bytes]:
    """A series of small slices whose headers hold a private text."""
    files = []
    for index, pixels in enumerate(volume(count, 16, 16, 3)):
        head = identity(patient, index + 1, series=series) + plane(2.5 * index) + image(16, 16, signed=True)
        head += [(0x00290010, "LO", "SAMPLE WORKS"), (0x00291020, "OB", text)]
        data = write([*head, (PIXEL_DATA, "OW", pixels.astype("<i2").tobytes())])
        files.append(part10(data, instance=uid(patient, series, index + 1)))
    return files


def enhanced_mr(frames: int = 6, rows: int = 16, columns: int = 16, seed: int = 0) -> bytes:
    """One enhanced multi-frame file with positions and times in its per-frame functional groups."""
    how = LITTLE
    groups = []
    for frame in range(frames):
        content = how.sequence(0x00209111, [how.element(0x00209128, "UL", 1 + frame // 3)])
        content += how.sequence(0x00209113, [how.element(0x00200032, "DS", ["0", "0", str(5 * (frame % 3))])])
        groups.append(content)
    orientation = how.element(0x00200037, "DS", ["1", "0", "0", "0", "1", "0"])
    head = identity("Enhanced^Patient", 1, series=f"e{seed}", modality="MR", sop_class=ENHANCED_MR)
    head += image(rows, columns, stored=12, frames=frames)
    pixels = (volume(frames, rows, columns, seed) + 1024).astype("<u2").tobytes()
    data_set = write(head)
    data_set += how.sequence(0x52009229, [how.sequence(0x00209116, [orientation])], undefined=True)
    data_set += how.sequence(0x52009230, groups, undefined=True, open_items=True)
    data_set += how.element(PIXEL_DATA, "OW", pixels)
    return part10(data_set, EXPLICIT, ENHANCED_MR, uid("Enhanced^Patient", f"e{seed}", 1))


def encapsulated(
    parts: Sequence[bytes], *, number: int = 1, table: bytes = b"", suffix: bytes = b""
) -> bytes:
    """An ultrasound cine whose pixel value is made of these fragments."""
    head = identity("Cine^Patient", number, series="us", modality="US", sop_class=US_MULTIFRAME)
    head += image(8, 8, bits=8, samples=3, frames=len(parts))
    data_set = write(head) + LITTLE.fragments(parts, table=table) + suffix
    return part10(data_set, JPEG_BASELINE, US_MULTIFRAME, uid("Cine^Patient", "us", number))


def structured_report(patient: str = "Sample^Patient", number: int = 1, text: str = "No finding.") -> bytes:
    """A report: a file without any pixel value."""
    head = identity(patient, number, series="sr", modality="SR", sop_class=BASIC_TEXT_SR)
    content = LITTLE.sequence(
        0x0040A730, [LITTLE.element(0x0040A160, "UT", text)], undefined=True, open_items=True
    )
    return part10(write(head) + content, EXPLICIT, BASIC_TEXT_SR, uid(patient, "sr", number))


def odd_files() -> dict[str, bytes]:
    """One file per oddity, by a name that says which; each holds a SOP Instance UID."""
    head = identity("Odd^Patient") + image(4, 4)
    pixels = bytes(range(32))
    native: list[Attribute] = [*head, (PIXEL_DATA, "OW", pixels)]
    plain = part10(write(native))
    icon = LITTLE.sequence(
        0x00880200,
        [write(image(2, 2, bits=8)) + LITTLE.element(PIXEL_DATA, "OB", b"icon")],
        undefined=True,
        open_items=True,
    )
    first, rest = write([a for a in head if a[0] < 0x00200000]), write([a for a in head if a[0] > 0x00200000])
    pixel_element = LITTLE.element(PIXEL_DATA, "OW", pixels)
    unknown = LITTLE.sequence(
        0x00091010,
        [PLAIN.element(0x00091011, "LO", "implicit inside")],
        undefined=True,
        vr="UN",
        open_items=True,
    )
    return {
        "explicit": plain,
        "implicit": part10(write(native, PLAIN), IMPLICIT),
        "big endian": part10(write(native, BIG), BIG_ENDIAN),
        "deflated": part10(write(native), DEFLATED),
        "no preamble": plain[132:],
        "no meta group": plain[:132] + write(native),
        "neither preamble nor meta group": write(native),
        "neither, implicit": write(native, PLAIN),
        "neither, big endian": write(native, BIG),
        "only the prefix": b"DICM" + plain[132:],
        "zeros for a preamble": bytes(128) + plain[132:],
        "declared explicit, is implicit": part10(write(native, PLAIN), EXPLICIT),
        "declared implicit, is explicit": part10(write(native), IMPLICIT),
        "no group length": plain[:132] + meta(EXPLICIT, CT_IMAGE, ROOT, length=-1) + write(native),
        "wrong group length": plain[:132] + meta(EXPLICIT, CT_IMAGE, ROOT, length=7) + write(native),
        "huge group length": plain[:132] + meta(EXPLICIT, CT_IMAGE, ROOT, length=2**31) + write(native),
        "group lengths": part10(write([(0x00080000, "UL", 300), (0x00280000, "UL", 100), *native])),
        "an icon before the pixels": part10(first + rest + icon + pixel_element),
        "implicit items under UN": part10(first + unknown + rest + pixel_element),
        "an implicit stretch": part10(
            first + PLAIN.element(0x00091010, "LO", "implicit") + rest + pixel_element
        ),
        "an unknown representation": part10(
            first + LITTLE.element(0x00091010, "ZZ", b"abcd") + rest + pixel_element
        ),
        "question marks as representation": part10(
            first + PLAIN.tag(0x00091010) + b"??\0\0" + rest + pixel_element
        ),
        "odd lengths": part10(first + LITTLE.element(0x00091010, "LO", b"odd") + rest + pixel_element),
        "an odd pixel value": part10(first + rest + LITTLE.element(PIXEL_DATA, "OB", pixels + b"x")),
        "more than the frames": part10(first + rest + LITTLE.element(PIXEL_DATA, "OW", pixels + b"surplus!")),
        "trailing zeros": plain + bytes(1000),
        "a trailing newline": plain + b"\n",
        "trailing text": plain + b"-- end of the file, written by an old gateway --\n",
        "trailing padding element": plain + LITTLE.element(0xFFFCFFFC, "OB", bytes(64)),
        "an attribute behind the pixels": plain + LITTLE.element(0x7FE10010, "LO", "private"),
        "truncated pixels": plain[:-7],
        "truncated header": plain[: plain.index(b"Sample Works")],
        "encapsulated": encapsulated([b"\xff\xd8first\xff\xd9", b"\xff\xd8second\xff\xd9!"]),
        "encapsulated under a length": part10(
            first + rest + LITTLE.element(PIXEL_DATA, "OB", LITTLE.item(b"") + LITTLE.item(b"jpeg")),
            JPEG_BASELINE,
        ),
        "encapsulated without an end": encapsulated([b"\xff\xd8first\xff\xd9"])[:-8],
        "an empty pixel value": part10(first + rest + LITTLE.element(PIXEL_DATA, "OW", b"")),
        "float pixels": part10(first + rest + LITTLE.element(0x7FE00008, "OF", bytes(64))),
        "double pixels": part10(first + rest + LITTLE.element(0x7FE00009, "OD", bytes(128))),
        "no pixels": part10(write(identity("Odd^Patient"))),
        "enhanced multi-frame": enhanced_mr(),
        "a report": structured_report(),
    }


def junk() -> dict[str, bytes]:
    """Files that are no instances."""
    return {
        "empty": b"",
        "one byte": b"D",
        "text": b"# A readme\n\nNothing to see here, but long enough to be something.\n" * 20,
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200),
        "zip": b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(200),
        "prefix alone": bytes(128) + b"DICM",
        "a media directory": part10(
            write([(0x00041130, "CS", "DISK")]), EXPLICIT, "1.2.840.10008.1.3.10", f"{ROOT}.77"
        ),
    }
