"""The structure of a Part 10 file, by offsets: where its attributes, its pixel value and its fragments lie.

Owns the scan (PS3.10 section 7, PS3.5 sections 7 and A) of whatever bytes it is given: with or without
preamble and meta group, in any encoding, damaged, truncated, or no DICOM at all.  Does not own the meaning of
attributes (`attributes`), how the pixel value splits into frames (`pixels`), or element headers (`encoding`).

The bytes are never changed nor re-serialised; a wrong reading costs density, not data.
"""

from __future__ import annotations

import mmap
import zlib
from dataclasses import dataclass, field, replace

from dicomfs.dicom.encoding import (
    ENCODINGS,
    KNOWN_VRS,
    SHORT_VRS,
    UNDEFINED,
    Budget,
    Encoding,
    Extent,
    Header,
    only_zeros,
    opens_items,
    read_fragments,
    read_header,
    skip_undefined,
    trial,
)
from dicomfs.dicom.syntax import TransferSyntax, native_uid, transfer_syntax
from dicomfs.dicom.tags import WANTED, Tag

Buffer = bytes | bytearray | memoryview | mmap.mmap

MAX_VALUE = 64 * 1024
MAX_INFLATED = 16 * 1024 * 1024
PIXEL_TAGS = frozenset({0x7FE00010, 0x7FE00008, 0x7FE00009})
PER_FRAME_GROUPS = 0x52009230
NOT_DICOM = "no data element where a file begins"
DEFLATED = "deflated"
TOO_MANY = "too many elements"


@dataclass(frozen=True, slots=True)
class Element:
    """One element by its offsets in the file."""

    tag: int
    vr: str
    """Two letters, or '' where the encoding writes none."""
    header_offset: int
    value_offset: int
    length: int
    """Bytes of the value that are there; the resolved length where it is written as undefined."""
    undefined: bool = False

    @property
    def end(self) -> int:
        """Offset behind the value (before the delimiter of a value of undefined length)."""
        return self.value_offset + self.length


@dataclass(frozen=True, slots=True)
class Scan:
    """What `scan` found; offsets in bytes from the start of the file."""

    size: int
    syntax: TransferSyntax
    """As declared, with the flags that the data set really follows."""
    has_preamble: bool
    has_meta: bool
    complete: bool
    """The data set parses to the end of the file; padding and bytes trailing the pixel value are allowed."""
    pixel: Element | None
    """Top-level pixel value: (7FE0,0010), (7FE0,0008) or (7FE0,0009)."""
    fragments: tuple[tuple[int, int], ...]
    """Offset and length of each item of an encapsulated pixel value, the Basic Offset Table included."""
    values: dict[int, bytes]
    """Value bytes, at most 64 KiB each, of the top-level attributes in `WANTED`."""
    vrs: dict[int, str]
    """Their value representations, '' where the encoding writes none."""
    note: str
    """Why it could not be scanned further; '' where all is fine."""
    data_offset: int = 0
    """Where the data set begins, behind preamble and meta group."""
    functional_groups: bool = False
    """The data set has Per-Frame Functional Groups: an enhanced multi-frame object (PS3.3 C.7.6.16)."""

    @property
    def is_dicom(self) -> bool:
        """Whether any data element was recognised."""
        return self.note != NOT_DICOM


@dataclass(slots=True)
class _State:
    """What the walk over one data set has gathered so far."""

    budget: Budget = field(default_factory=Budget)
    values: dict[int, bytes] = field(default_factory=dict)
    vrs: dict[int, str] = field(default_factory=dict)
    pixel: Element | None = None
    fragments: tuple[tuple[int, int], ...] = ()
    complete: bool = True
    note: str = ""
    functional_groups: bool = False

    def stop(self, note: str, *, complete: bool = False) -> None:
        """Record why the walk ends here."""
        self.note, self.complete = note, complete


def scan(data: Buffer) -> Scan:
    """Find the structure of the file in ``data``; never raises on any bytes.

    Linear in the size of the file, at most `encoding.MAX_ELEMENTS` steps; memory is bounded by the wanted
    values and the list of fragments.  An `mmap` is read in place.
    """
    with memoryview(data) as whole, whole.cast("B") as view:
        return _scan(view)


def sop_instance_uid(found: Scan) -> str:
    """SOP Instance UID of the data set, else the meta group's; '' where there is none.

    A media directory (PS3.3 F) has a UID in its meta group only, and is no instance.
    """
    uid = uid_text(found.values.get(Tag.SOP_INSTANCE_UID, b""))
    if uid or not found.is_dicom:
        return uid
    if uid_text(found.values.get(Tag.MEDIA_STORAGE_SOP_CLASS_UID, b"")) == MEDIA_DIRECTORY:
        return ""
    return uid_text(found.values.get(Tag.MEDIA_STORAGE_SOP_INSTANCE_UID, b""))


MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


def uid_text(value: bytes) -> str:
    """A UID without its padding (NUL by the standard, spaces in practice)."""
    return value.decode("latin-1").strip(" \0")


def _scan(view: memoryview) -> Scan:
    size = len(view)
    start, has_preamble = _start(view, size)
    state = _State()
    data_at = _meta(view, start, size, state)
    has_meta = data_at > start
    declared = transfer_syntax(uid_text(state.values.get(Tag.TRANSFER_SYNTAX_UID, b"")))
    if has_meta and declared.deflated:
        inflated = _inflate(view, data_at, size)
        if inflated is not None:
            return _scan_deflated(inflated, size, declared, has_preamble, data_at, state.values, state.vrs)
    encoding = _choose(view, data_at, size, declared, strict=not (has_preamble or has_meta))
    if encoding is not None:
        _walk(view, data_at, size, encoding, state)
    elif not (has_preamble or has_meta):
        state.stop(NOT_DICOM)
    elif data_at < size:
        state.stop("no data element behind the meta group")
    return Scan(
        size=size,
        syntax=_real_syntax(declared, encoding or ENCODINGS[True, False]),
        has_preamble=has_preamble,
        has_meta=has_meta,
        complete=state.complete,
        pixel=state.pixel,
        fragments=state.fragments,
        values=state.values,
        vrs=state.vrs,
        note=state.note,
        data_offset=data_at,
        functional_groups=state.functional_groups,
    )


def _scan_deflated(
    inflated: tuple[bytes, bool],
    size: int,
    declared: TransferSyntax,
    has_preamble: bool,
    data_at: int,
    values: dict[int, bytes],
    vrs: dict[int, str],
) -> Scan:
    content, finished = inflated
    state = _State(values=values, vrs=vrs)
    with memoryview(content) as view:
        _walk(view, 0, len(content), ENCODINGS[True, False], state)
    return Scan(
        size=size,
        syntax=declared,
        has_preamble=has_preamble,
        has_meta=True,
        complete=finished and state.complete,
        pixel=None,
        fragments=(),
        values=state.values,
        vrs=state.vrs,
        note=DEFLATED,
        data_offset=data_at,
    )


def _start(view: memoryview, size: int) -> tuple[int, bool]:
    """Where the meta group or the data set begins, and whether a preamble stands before it."""
    if bytes(view[128:132]) == b"DICM":
        return 132, True
    if bytes(view[:4]) == b"DICM":
        return 4, False
    if size > 136 and only_zeros(view, 0, 128):
        return 128, False
    return 0, False


def _meta(view: memoryview, at: int, end: int, state: _State) -> int:
    """Read the meta group at ``at``, whatever its group length says; gives the offset behind it."""
    encoding = ENCODINGS[True, False]
    if bytes(view[at : at + 2]) == b"\0\x02":
        encoding = ENCODINGS[True, True]
    while state.budget.spend():
        header = read_header(view, at, end, encoding)
        if header is None or header[0] >> 16 != 0x0002:
            break
        tag, vr, value, length = header
        if length == UNDEFINED and vr not in SHORT_VRS:
            at = skip_undefined(view, value, end, encoding, state.budget).next
            continue
        if value + length > end:
            break
        if tag in WANTED:
            _keep(view, tag, vr.decode("latin-1"), value, value + length, state)
        at = value + length
    return at


def _keep(view: memoryview, tag: int, vr: str, start: int, stop: int, state: _State) -> None:
    # Behind the pixel value trailing bytes may look like elements: they never replace an attribute.
    if state.pixel is None or tag not in state.values:
        state.values[tag] = bytes(view[start : min(stop, start + MAX_VALUE)])
        state.vrs[tag] = vr


def _choose(
    view: memoryview, at: int, end: int, declared: TransferSyntax, *, strict: bool
) -> Encoding | None:
    """The encoding that the data set follows by trial; the declared one wins ties.

    ``strict``: nothing else says that this is DICOM, so it must begin like a data set.
    """
    first = ENCODINGS[declared.explicit, declared.big_endian]
    best, best_score = None, 0
    for encoding in (first, *(e for e in ENCODINGS.values() if e is not first)):
        score = trial(view, at, end, encoding)
        if strict and score and encoding.head.unpack_from(view, at)[0] > 0x0008:
            continue
        if score > best_score:
            best, best_score = encoding, score
    if best is None and not strict:
        header = read_header(view, at, end, first)
        return first if header is not None and header[0] >> 16 in range(2, 0x7FE1) else None
    return best


def _real_syntax(declared: TransferSyntax, encoding: Encoding) -> TransferSyntax:
    if not declared.uid:
        guessed = transfer_syntax(native_uid(explicit=encoding.explicit, big_endian=encoding.big_endian))
        return replace(
            guessed, explicit=encoding.explicit, big_endian=encoding.big_endian, encapsulated=False
        )
    if (declared.explicit, declared.big_endian) != (encoding.explicit, encoding.big_endian):
        return replace(declared, explicit=encoding.explicit, big_endian=encoding.big_endian, deflated=False)
    return replace(declared, deflated=False) if declared.deflated else declared


def _inflate(view: memoryview, at: int, end: int) -> tuple[bytes, bool] | None:
    """The first `MAX_INFLATED` bytes behind ``at`` and whether that is all; None where nothing inflates."""
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    out = bytearray()
    finished = False
    try:
        while at < end and not finished and len(out) < MAX_INFLATED:
            out += machine.decompress(bytes(view[at : at + MAX_VALUE]), MAX_INFLATED - len(out))
            finished = machine.eof
            at += MAX_VALUE
    except zlib.error:
        finished = False
    return (bytes(out), finished) if out else None


def _walk(view: memoryview, at: int, end: int, encoding: Encoding, state: _State) -> None:
    """Go over the top-level elements from ``at``; fills ``state``."""
    while True:
        header = read_header(view, at, end, encoding)
        if header is None:
            if end - at > 1 and not only_zeros(view, at, end):
                state.stop("bytes behind the last element", complete=state.pixel is not None)
            return
        if not state.budget.spend():
            state.stop(TOO_MANY)
            return
        if header[0] >> 16 == 0xFFFE:
            at = header[2]  # stray delimiter; its content, if any, reads on as elements
            continue
        if header[0] == 0 and header[3] == 0:
            zeros = only_zeros(view, at, end)
            state.stop("" if zeros else "bytes behind padding", complete=zeros or state.pixel is not None)
            return
        element, extent = _element(view, at, end, encoding, header, state)
        if not extent.closed and state.pixel is not None and element.tag < state.pixel.tag:
            state.stop("trailing bytes", complete=True)
            return
        _take(view, element, encoding, state)
        if not extent.closed:
            state.stop("the file ends within a value" if state.budget.left > 0 else TOO_MANY)
            return
        at = extent.next


def _element(
    view: memoryview, at: int, end: int, encoding: Encoding, header: Header, state: _State
) -> tuple[Element, Extent]:
    """The element at ``at`` and where it ends."""
    tag, vr, value, length = header
    if not encoding.explicit and length != UNDEFINED and value + length > end:
        # An explicit stretch within an implicit data set shows itself by an impossible length.
        explicit = read_header(view, at, end, ENCODINGS[True, encoding.big_endian])
        if explicit is not None and explicit[1] in KNOWN_VRS and explicit[2] + explicit[3] <= end:
            tag, vr, value, length = explicit
    undefined = length == UNDEFINED and vr not in SHORT_VRS
    if not undefined:
        extent = Extent(min(end, value + length), min(end, value + length), closed=value + length <= end)
    elif tag in PIXEL_TAGS:
        extent = _fragments(view, value, end, encoding, state)
    else:
        extent = skip_undefined(view, value, end, encoding, state.budget)
    found = Element(tag, vr.decode("latin-1"), at, value, extent.value_end - value, undefined)
    return found, extent


def _fragments(view: memoryview, value: int, end: int, encoding: Encoding, state: _State) -> Extent:
    fragments, extent = read_fragments(view, value, end, encoding, state.budget)
    if state.pixel is None:
        state.fragments = tuple(fragments)
    return extent


def _take(view: memoryview, element: Element, encoding: Encoding, state: _State) -> None:
    """Keep what is wanted of a top-level element."""
    if element.tag not in PIXEL_TAGS:
        if element.tag == PER_FRAME_GROUPS:
            state.functional_groups = True
        if element.tag in WANTED:
            _keep(view, element.tag, element.vr, element.value_offset, element.end, state)
    elif state.pixel is None:
        state.pixel = element
        if not element.undefined and opens_items(view, element.value_offset, element.end, encoding):
            # Encapsulated data under an explicit length: its items end with the value.
            fragments, _ = read_fragments(view, element.value_offset, element.end, encoding, state.budget)
            state.fragments = tuple(fragments)
