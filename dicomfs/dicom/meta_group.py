"""The start of a Part 10 file that came over the network: preamble, prefix and meta group (PS3.10 7.1).

Owns those bytes and how dicomfs names itself to other implementations (PS3.7 D.3.3.2).  The data set behind
them is written as it came, by others.
"""

from __future__ import annotations

import struct

IMPLEMENTATION_CLASS_UID = "2.25.203749302288122627709464750418345306441"
"""Chosen once (PS3.5 B.2); it names the program, not its version."""
IMPLEMENTATION_VERSION_NAME = "DICOMFS"
"""Without a version, so that what is sent again after an upgrade has the same bytes."""

_PREAMBLE_BYTES = 128
_META_VERSION = b"\0\1"


def part10_start(
    *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str
) -> bytes:
    """Preamble, prefix and meta group; the same arguments give the same bytes.

    Values are written as they were received, whatever they hold: what is no ISO 646 becomes question marks.
    """
    elements = [
        _element(0x0001, b"OB", _META_VERSION),
        _element(0x0002, b"UI", _padded(sop_class_uid, b"\0")),
        _element(0x0003, b"UI", _padded(sop_instance_uid, b"\0")),
        _element(0x0010, b"UI", _padded(transfer_syntax_uid, b"\0")),
        _element(0x0012, b"UI", _padded(IMPLEMENTATION_CLASS_UID, b"\0")),
        _element(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" ")),
    ]
    if source_ae:
        elements.append(_element(0x0016, b"AE", _padded(source_ae, b" ")))
    body = b"".join(elements)
    return bytes(_PREAMBLE_BYTES) + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(body))) + body


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002 in Explicit VR Little Endian (PS3.5 7.1.2)."""
    head = struct.pack("<HH2s", 0x0002, number, vr)
    if vr == b"OB":
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)
