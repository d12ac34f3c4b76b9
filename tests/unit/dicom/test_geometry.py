"""Frames are ordered along the slice normal and in time, and never by anything that is not there."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from dicomfs.dicom.attributes import attributes
from dicomfs.dicom.geometry import along_normal, frame_order, order_keys, stack_key
from dicomfs.dicom.part10 import scan
from dicomfs.model import PixelLayout
from tests import samples
from tests.conftest import real_files

LAYOUT = PixelLayout(8, 8, 1, 16, 12, 11, signed=False)
SLICE = attributes(scan(samples.ct_series(1, 8, 8)[0]))


def test_positions_rise_along_the_normal() -> None:
    keys = [order_keys(attributes(scan(file))) for file in samples.ct_series(4, 8, 8)]
    assert [key[0] for key in keys] == [0.0, 2.5, 5.0, 7.5]
    assert [key[2] for key in keys] == [1, 2, 3, 4]


def test_a_tilted_gantry_is_measured_along_its_own_normal() -> None:
    tilt = math.radians(18.5)
    orientation = (1.0, 0.0, 0.0, 0.0, math.cos(tilt), math.sin(tilt))
    one, two = along_normal((0, 0, 0), orientation), along_normal((0, 0, 10), orientation)
    assert one is not None
    assert two is not None
    assert two - one == pytest.approx(10 * math.cos(tilt), abs=1e-3)


@pytest.mark.parametrize(
    "position,orientation",
    [(None, (1,) * 6), ((0, 0, 0), None), ((0, 0, 0), (0,) * 6), ((1e308,) * 3, (1e308, 0, 0, 0, 1e308, 0))],
)
def test_without_geometry_there_is_no_position(
    position: tuple[float, ...] | None, orientation: tuple[float, ...] | None
) -> None:
    assert along_normal(position, orientation) is None


@pytest.mark.parametrize(
    "stored,seconds",
    [
        ("101500.25", 36900.25),
        ("1015", 36900.0),
        ("10", 36000.0),
        ("10:15:00", 36900.0),
        ("", None),
        ("noon", None),
        ("1", None),
        ("101500.x", None),
    ],
)
def test_acquisition_time_is_seconds_since_midnight(stored: str, seconds: float | None) -> None:
    assert order_keys(dataclasses.replace(SLICE, acquisition_time=stored))[1] == seconds


def test_temporal_position_goes_before_trigger_time_before_clock_time() -> None:
    both = dataclasses.replace(SLICE, temporal_position=4, trigger_time=30.0)
    assert order_keys(both)[1] == 4.0
    assert order_keys(dataclasses.replace(SLICE, trigger_time=30.0))[1] == 30.0


@pytest.mark.parametrize(
    "change",
    [
        {"echo_time": 30.0},
        {"b_value": 1000.0},
        {"kernel": "BONE"},
        {"acquisition_number": 9},
        {"image_type": ("A", "B", "C")},
        {"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)},
    ],
)
def test_another_kind_of_image_is_another_stack(change: dict[str, object]) -> None:
    assert stack_key(SLICE, LAYOUT) != stack_key(dataclasses.replace(SLICE, **change), LAYOUT)  # type: ignore[arg-type]


def test_noise_in_the_direction_cosines_does_not_part_a_stack() -> None:
    noisy = dataclasses.replace(SLICE, orientation=(1.00001, -0.00001, 0.0, 0.0, 1.0, 0.0))
    assert stack_key(SLICE, LAYOUT) == stack_key(noisy, LAYOUT)
    assert stack_key(SLICE, LAYOUT) == stack_key(
        dataclasses.replace(SLICE, image_type=("DERIVED", "X", "AXIAL")), LAYOUT
    )


def test_frames_of_an_enhanced_object_have_position_and_time() -> None:
    file = samples.enhanced_mr(6)
    assert frame_order(file, scan(file)) == [
        (0.0, 1.0),
        (5.0, 1.0),
        (10.0, 1.0),
        (0.0, 2.0),
        (5.0, 2.0),
        (10.0, 2.0),
    ]


def test_an_ordinary_file_has_no_frame_order() -> None:
    file = samples.ct_series(1, 8, 8)[0]
    assert frame_order(file, scan(file)) is None


def test_broken_functional_groups_give_none() -> None:
    file = samples.enhanced_mr(6)
    for cut in range(file.index(samples.LITTLE.tag(0x52009230)), len(file), 37):
        piece = file[:cut]
        frame_order(piece, scan(piece))


@pytest.mark.parametrize("path", real_files("series/mr_siemens_xa30_enhanced_mf"), ids=lambda p: p.name)
def test_real_enhanced_objects_have_one_key_per_frame(path: Path) -> None:
    data = path.read_bytes()
    found = scan(data)
    order = frame_order(data, found)
    assert order is not None
    assert str(len(order)).encode() == found.values[0x00280008].strip()
