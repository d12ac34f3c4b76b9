"""What makes frames neighbours: which stack a frame belongs to and where it lies in it.

Owns stack keys and order keys (PS3.3 C.7.6.2 image plane, C.7.6.16 functional groups).  All of it is a hint:
the order is chosen by trial when packing, and frames without any geometry keep their numbers' order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from dicomfs.dicom.attributes import Attributes
from dicomfs.dicom.library import read_data_set
from dicomfs.dicom.part10 import Buffer, Scan
from dicomfs.model import PixelLayout

Vector = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]
OrderKey = tuple[float | None, float | None, int]
FrameKey = tuple[float | None, float | None]

_PER_FRAME = 0x52009230
_SHARED = 0x52009229
MAX_FRAMES = 1 << 20


def stack_key(attrs: Attributes, layout: PixelLayout) -> tuple[Hashable, ...]:
    """Frames with equal keys may share a stack: one layout and one kind of image."""
    # The first two values of Image Type (pixel data and patient examination characteristics) differ within
    # a stack without the images differing in kind.
    orientation = None if attrs.orientation is None else tuple(round(c, 3) + 0.0 for c in attrs.orientation)
    return (
        attrs.image_type[2:],
        attrs.echo_time,
        attrs.b_value,
        attrs.acquisition_number,
        attrs.kernel,
        orientation,
        layout,
    )


def order_keys(attrs: Attributes) -> OrderKey:
    """Of a single frame: position along the slice normal (mm), time, Instance Number (0 where missing)."""
    number = attrs.instance_number or 0
    return along_normal(attrs.position, attrs.orientation), _time(attrs), number


def along_normal(position: Sequence[float] | None, orientation: Sequence[float] | None) -> float | None:
    """Distance of ``position`` along the normal of the image plane, right under gantry tilt, or None."""
    if position is None or orientation is None or len(position) != 3 or len(orientation) != 6:
        return None
    a, b = orientation[:3], orientation[3:]
    normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    if not any(normal):
        return None
    along = sum(n * p for n, p in zip(normal, position, strict=True))
    # A micrometre of noise must not part slices that lie at the same place.
    return round(along, 3) + 0.0 if math.isfinite(along) else None


def _time(attrs: Attributes) -> float | None:
    if attrs.temporal_position is not None:
        return float(attrs.temporal_position)
    if attrs.trigger_time is not None:
        return attrs.trigger_time
    return _seconds(attrs.acquisition_time)


def _seconds(text: str) -> float | None:
    """Seconds since midnight of a TM value (PS3.5 6.2), also in the older form with colons."""
    digits = text.replace(":", "")
    whole, _, fraction = digits.partition(".")
    if len(whole) not in {2, 4, 6} or not (whole + fraction).isascii() or not (whole + fraction).isdigit():
        return None
    parts = [int(whole[i : i + 2]) for i in range(0, len(whole), 2)] + [0, 0]
    return parts[0] * 3600 + parts[1] * 60 + parts[2] + float(f"0.{fraction or 0}")


def frame_order(data: Buffer, scan: Scan) -> list[FrameKey] | None:
    """Position and time of each frame of an enhanced multi-frame object, None where it has no such groups.

    Bounded by the size of the header (`library.MAX_HEADER`); never raises.
    """
    if not scan.functional_groups:
        return None
    data_set = read_data_set(data, scan, [_SHARED, _PER_FRAME])
    if data_set is None:
        return None
    try:
        shared = next(iter(data_set.get(_SHARED).value if _SHARED in data_set else ()), None)
        common = _plane_orientation(shared)
        frames = itertools.islice(data_set[_PER_FRAME].value, MAX_FRAMES)
        keys = [_frame_key(frame, common) for frame in frames]
    except Exception:  # pydicom converts values late, and fails with many kinds of exceptions
        return None
    return keys if any(position is not None or time is not None for position, time in keys) else None


def _frame_key(frame: Any, common: Sequence[float] | None) -> FrameKey:  # noqa: ANN401 - pydicom's item
    orientation = _plane_orientation(frame) or common
    position = _floats(_nested(frame, "PlanePositionSequence", "ImagePositionPatient"))
    time = _nested(frame, "FrameContentSequence", "TemporalPositionIndex")
    if time is None:
        time = _nested(frame, "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
    number = float(time) if isinstance(time, int | float) and math.isfinite(time) else None
    return along_normal(position, orientation), number


def _plane_orientation(groups: Any) -> list[float] | None:  # noqa: ANN401 - pydicom's item
    return _floats(_nested(groups, "PlaneOrientationSequence", "ImageOrientationPatient"))


def _nested(groups: Any, sequence: str, keyword: str) -> Any:  # noqa: ANN401 - pydicom's item and value
    items = None if groups is None else groups.get(sequence)
    return items[0].get(keyword) if items else None


def _floats(value: Iterable[Any] | None) -> list[float] | None:
    return None if value is None else [float(part) for part in value]
