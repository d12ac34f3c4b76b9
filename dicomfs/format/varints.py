"""Variable-length numbers: the writing and the bounded reading of what describes a block of columns.

Owns the encoding of single numbers (LEB128, zigzag for signed ones).  Does not know what they mean.
"""

from __future__ import annotations

from dicomfs.errors import DamagedError

_MAX_BYTES = 10
"""Bytes of one number: enough for 64 bits."""


def put_unsigned(out: bytearray, value: int) -> None:
    """Append a number below 2**64: seven bits a byte, the lowest first, bit 7 set in all but the last."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_signed(out: bytearray, value: int) -> None:
    """Append a number from -2**63 to 2**63 - 1, zigzag: 0, -1, 1, -2 as 0, 1, 2, 3."""
    put_unsigned(out, value << 1 if value >= 0 else ~value << 1 | 1)


class Numbers:
    """Reads numbers and bytes from the start of ``data`` on; DamagedError where they run out."""

    def __init__(self, data: bytes, artefact: str) -> None:
        self._data, self._at, self._artefact = data, 0, artefact

    def unsigned(self, limit: int = (1 << 64) - 1) -> int:
        """The next number, at most ``limit``."""
        value = 0
        for shift in range(0, 7 * _MAX_BYTES, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > limit:
                    raise DamagedError(self._artefact, "number out of range in a header block")
                return value
        raise DamagedError(self._artefact, "endless number in a header block")

    def signed(self) -> int:
        """The next signed number, 64 bits."""
        value = self.unsigned()
        return value >> 1 ^ -(value & 1)

    def take(self, length: int) -> bytes:
        """The next bytes."""
        end = self._at + length
        if end > len(self._data):
            raise DamagedError(self._artefact, "a stream of a header block ends early")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def finish(self) -> None:
        """DamagedError when anything is left."""
        if self._at != len(self._data):
            raise DamagedError(self._artefact, "bytes left in a stream of a header block")
