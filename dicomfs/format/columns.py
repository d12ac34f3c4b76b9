"""Columns of integers and texts in their stored form.

Owns: choice of the shortest form of a column, and its bounded decoding.  What runs through many instances
(positions, times, frame numbers) costs next to nothing as a column, and zstd sees like next to like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from dicomfs.errors import DamagedError, FormatError
from dicomfs.format.compression import compress

_CONSTANT, _PROGRESSION, _VALUES, _DIFFERENCES = range(4)
_WIDTHS = (1, 2, 4, 8)
_TRIAL_LEVEL = 3
MAX_TEXT = 1024
"""Bytes (UTF-8) of one text in a column."""

_Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_Unsigned = npt.NDArray[np.uint64]


class IntColumn(msgspec.Struct, frozen=True, array_like=True):
    """int64 values in one of four forms; arithmetic is modulo 2**64.

    0 constant: all ``first``.  1 progression: ``first + k * step``.  2 values: zigzag numbers of ``width``
    bytes.  3 differences: ``first``, then zigzag numbers of ``width`` bytes to add.  Zigzag maps
    0, -1, 1, -2 to 0, 1, 2, 3.  The bytes of form 2 and 3 lie plane by plane, least significant first.
    """

    form: Annotated[int, msgspec.Meta(ge=_CONSTANT, le=_DIFFERENCES)]
    first: _Int64 = 0
    step: _Int64 = 0
    width: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0
    data: bytes = b""


class TextColumn(msgspec.Struct, frozen=True, array_like=True):
    """Texts, each as what differs from the one before: length of the shared start, rest of the UTF-8."""

    shared: IntColumn
    rest: IntColumn
    data: bytes


def encode_ints(values: Sequence[int]) -> IntColumn:
    """The shortest form of a column; FormatError for values outside int64."""
    try:
        signed = np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise FormatError("object being written", "a number needs more than 64 bits") from error
    if len(signed) == 0:
        return IntColumn(_CONSTANT)
    plain = signed.view(np.uint64)
    steps = plain[1:] - plain[:-1]
    first = int(signed[0])
    if not steps.any():
        return IntColumn(_CONSTANT, first)
    if (steps == steps[0]).all():
        return IntColumn(_PROGRESSION, first, int(steps[:1].view(np.int64)[0]))
    by_value = _pack(_VALUES, 0, _zigzag(plain))
    by_difference = _pack(_DIFFERENCES, first, _zigzag(steps))
    return min(by_difference, by_value, key=lambda column: len(compress(column.data, _TRIAL_LEVEL)))


def decode_ints(column: IntColumn, count: int, artefact: str) -> npt.NDArray[np.int64]:
    """``count`` values; the caller has bounded ``count``.  DamagedError for another length."""
    base = np.array([column.first], dtype=np.int64).view(np.uint64)
    if column.form == _CONSTANT:
        return np.repeat(base, count).view(np.int64)
    if column.form == _PROGRESSION:
        step = np.array([column.step], dtype=np.int64).view(np.uint64)
        return (base + np.arange(count, dtype=np.uint64) * step).view(np.int64)
    if column.form == _VALUES:
        return _unzigzag(_unpack(column, count, artefact)).view(np.int64)
    if count == 0:
        raise DamagedError(artefact, "column is longer than its table")
    steps = _unzigzag(_unpack(column, count - 1, artefact))
    return np.cumsum(np.concatenate((base, steps)), dtype=np.uint64).view(np.int64)


def encode_texts(texts: Sequence[str]) -> TextColumn:
    """The stored form of a column; FormatError for a text over 1,024 bytes or not in UTF-8."""
    try:
        encoded = [text.encode() for text in texts]
    except UnicodeEncodeError as error:
        raise FormatError("object being written", "a text can't be stored") from error
    if any(len(text) > MAX_TEXT for text in encoded):
        raise FormatError("object being written", f"a text is longer than {MAX_TEXT} bytes")
    shared = [_shared(before, text) for before, text in zip([b"", *encoded], encoded, strict=False)]
    rests = [text[start:] for text, start in zip(encoded, shared, strict=True)]
    return TextColumn(encode_ints(shared), encode_ints([len(rest) for rest in rests]), b"".join(rests))


def decode_texts(column: TextColumn, count: int, artefact: str) -> list[str]:
    """``count`` texts; DamagedError for impossible lengths or bytes that are not UTF-8."""
    shared = decode_ints(column.shared, count, artefact).tolist()
    rests = decode_ints(column.rest, count, artefact).tolist()
    texts, before, position = [], b"", 0
    for start, rest in zip(shared, rests, strict=True):
        if not 0 <= start <= len(before) or rest < 0 or start + rest > MAX_TEXT:
            raise DamagedError(artefact, "impossible text length")
        before = before[:start] + column.data[position : position + rest]
        position += rest
        texts.append(before)
    if position != len(column.data):
        raise DamagedError(artefact, "text column has another length")
    try:
        return [text.decode() for text in texts]
    except UnicodeDecodeError as error:
        raise DamagedError(artefact, "text is not UTF-8") from error


def _shared(before: bytes, text: bytes) -> int:
    """Length of the start that both have in common."""
    shorter = min(len(before), len(text))
    return next((at for at in range(shorter) if before[at] != text[at]), shorter)


def _zigzag(values: _Unsigned) -> _Unsigned:
    sign = (values.view(np.int64) >> 63).view(np.uint64)
    return (values << np.uint64(1)) ^ sign


def _unzigzag(values: _Unsigned) -> _Unsigned:
    return (values >> np.uint64(1)) ^ (np.uint64(0) - (values & np.uint64(1)))


def _pack(form: int, first: int, values: _Unsigned) -> IntColumn:
    largest = int(values.max())
    width = next(width for width in _WIDTHS if largest < 1 << 8 * width)
    planes = values.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].T
    return IntColumn(form, first, 0, width, planes.tobytes())


def _unpack(column: IntColumn, count: int, artefact: str) -> _Unsigned:
    if column.width not in _WIDTHS or len(column.data) != count * column.width:
        raise DamagedError(artefact, "column has another length than its table")
    full = np.zeros((count, 8), dtype=np.uint8)
    full[:, : column.width] = np.frombuffer(column.data, np.uint8).reshape(column.width, count).T
    return full.reshape(-1).view("<u8").astype(np.uint64)
