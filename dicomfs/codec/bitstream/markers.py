"""The marker segments of a JPEG codestream (ITU-T T.81 annex B; T.87 annex C uses the same).

Owns the cut into literal bytes and entropy-coded data, and the values of the segments that an encoder needs.
Decodes nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from dicomfs.errors import CodecError

SOI, EOI, SOS, DHT, DRI, DNL = 0xFFD8, 0xFFD9, 0xFFDA, 0xFFC4, 0xFFDD, 0xFFDC
_FRAME_HEADERS = frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC} | {0xFFF7}
_ALONE = frozenset(range(0xFFD0, 0xFFD9)) | {0xFF01}
_NAME = "jpeg"


@dataclass(frozen=True, slots=True)
class Component:
    """A component of the frame header."""

    id: int
    sampling: int
    """Horizontal and vertical sampling factor, a hex digit each."""


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Start of frame."""

    marker: int
    precision: int
    rows: int
    columns: int
    components: tuple[Component, ...]


@dataclass(frozen=True, slots=True)
class ScanHeader:
    """Start of scan, with the state of the tables at that point."""

    components: tuple[tuple[int, int], ...]
    """Index of the component in the frame header and its byte of table numbers."""
    start: int
    """Ss: the predictor of a lossless scan, NEAR of a JPEG-LS scan."""
    end: int
    approximation: int
    tables: dict[int, bytes]
    """Class and number of each Huffman table (as in DHT) -> counts of the 16 lengths, then symbols."""
    restart: int


@dataclass(slots=True)
class Codestream:
    """A codestream in pieces: literal 0, scan data 0, literal 1, … , the last literal."""

    frame: FrameHeader
    scans: list[ScanHeader] = field(default_factory=list)
    literals: list[bytes] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    markers: list[int] = field(default_factory=list)


def parse(data: bytes, *, scan_data: bool = True, scans: int = 4) -> Codestream:
    """Cut a codestream; with ``scan_data`` False it holds literals only (a recipe's), one after the other.

    Raises:
        CodecError: it is no JPEG, damaged, or has more than so many scans.
    """
    return _Walk(data, scans).run(scan_data)


class _Walk:
    def __init__(self, data: bytes, scans: int) -> None:
        self.data, self.at, self.most = data, 0, scans
        self.frame: FrameHeader | None = None
        self.tables: dict[int, bytes] = {}
        self.restart = 0
        self.scans: list[ScanHeader] = []
        self.literals: list[bytes] = []
        self.coded: list[bytes] = []
        self.markers: list[int] = []

    def run(self, scan_data: bool) -> Codestream:
        begin = 0
        if self._marker() != SOI:
            raise CodecError(_NAME, "no start of image")
        while True:
            marker = self._marker()
            if marker == EOI:
                break
            body = self._body()
            self.markers.append(marker)
            self._take(marker, body)
            if marker == SOS:
                self.literals.append(self.data[begin : self.at])
                begin = self._skip_data() if scan_data else self.at
                self.coded.append(self.data[self.at : begin])
                self.at = begin
        if self.frame is None or not self.scans:
            raise CodecError(_NAME, "no frame or no scan")
        self.literals.append(self.data[begin:])
        return Codestream(self.frame, self.scans, self.literals, self.coded, self.markers)

    def _marker(self) -> int:
        data, at = self.data, self.at
        while data[at : at + 2] == b"\xff\xff":
            at += 1  # fill bytes
        if at + 2 > len(data) or data[at] != 0xFF:
            raise CodecError(_NAME, "no marker where one must be")
        self.at = at + 2
        return 0xFF00 | data[at + 1]

    def _body(self) -> bytes:
        length = int.from_bytes(self.data[self.at : self.at + 2], "big")
        body = self.data[self.at + 2 : self.at + length]
        if length < 2 or len(body) != length - 2:
            raise CodecError(_NAME, "a marker segment is cut off")
        self.at += length
        return body

    def _take(self, marker: int, body: bytes) -> None:
        if marker in _ALONE or marker == DNL:
            raise CodecError(_NAME, f"marker {marker:04x} where none may be")
        if marker == DRI:
            self.restart = int.from_bytes(body, "big")
        elif marker == DHT:
            self._take_tables(body)
        elif marker in _FRAME_HEADERS:
            if self.frame is not None:
                raise CodecError(_NAME, "more than one frame")
            self.frame = _frame_header(marker, body)
        elif marker == SOS:
            if self.frame is None or len(self.scans) == self.most:
                raise CodecError(_NAME, "a scan without a frame, or too many scans")
            self.scans.append(_scan_header(self.frame, body, dict(self.tables), self.restart))

    def _take_tables(self, body: bytes) -> None:
        while body:
            size = 17 + sum(body[1:17])
            if len(body) < size:
                raise CodecError(_NAME, "a Huffman table is cut off")
            self.tables[body[0]] = body[1:size]
            body = body[size:]

    def _skip_data(self) -> int:
        """Offset of the first marker behind the entropy-coded data, restart markers aside."""
        at = self.at
        while True:
            at = self.data.find(b"\xff", at)
            if at < 0 or at + 1 >= len(self.data):
                raise CodecError(_NAME, "the scan does not end")
            following = self.data[at + 1]
            if self.frame is not None and self.frame.marker == 0xFFF7:
                if following >= 0x80:  # T.87 stuffs a bit, not a byte
                    return at
            elif following and not 0xD0 <= following <= 0xD7:
                return at
            at += 1 if following == 0xFF else 2


def _frame_header(marker: int, body: bytes) -> FrameHeader:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise CodecError(_NAME, "the frame header is damaged")
    precision, rows, columns, count = struct.unpack_from(">BHHB", body)
    components = tuple(Component(body[6 + 3 * at], body[7 + 3 * at]) for at in range(count))
    if not rows or not columns or not count:
        raise CodecError(_NAME, "a frame without size")
    return FrameHeader(marker, precision, rows, columns, components)


def _scan_header(frame: FrameHeader, body: bytes, tables: dict[int, bytes], restart: int) -> ScanHeader:
    count = body[0] if body else 0
    if not count or len(body) != 4 + 2 * count:
        raise CodecError(_NAME, "the scan header is damaged")
    ids = [component.id for component in frame.components]
    used = []
    for at in range(count):
        if body[1 + 2 * at] not in ids:
            raise CodecError(_NAME, "a scan of an unknown component")
        used.append((ids.index(body[1 + 2 * at]), body[2 + 2 * at]))
    if len({index for index, _ in used}) != count:
        raise CodecError(_NAME, "a component twice in a scan")
    start, end, approximation = body[-3:]
    return ScanHeader(tuple(used), start, end, approximation, tables, restart)
