"""Files split into headers, whole frames and streams; layouts follow the attributes where they make sense."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dicomfs.dicom import pixels
from dicomfs.dicom.part10 import scan
from dicomfs.dicom.pixels import MAX_HEADER, Run, RunKind, SplitPlan, burned_in, native_layout, split
from dicomfs.model import PixelLayout
from tests import samples
from tests.conftest import real_files
from tests.fuzz.target import check_plan
from tests.samples import BIG, LITTLE, PIXEL_DATA, Attribute, Writing

ODD = samples.odd_files()
JUNK = samples.junk()
ALL = ODD | JUNK


def native(
    attributes: list[Attribute], value: bytes, vr: str = "OW", how: Writing = LITTLE, tag: int = PIXEL_DATA
) -> bytes:
    content = samples.write([*samples.identity(), *attributes], how) + how.element(tag, vr, value)
    return samples.part10(content, samples.BIG_ENDIAN if how.big else samples.EXPLICIT)


def layout_of(file: bytes) -> tuple[PixelLayout, int]:
    found = native_layout(scan(file))
    assert not isinstance(found, str), found
    return found


def plan_of(file: bytes) -> SplitPlan:
    found = scan(file)
    plan = split(file, found)
    check_plan(file, found, plan)
    return plan


@pytest.mark.parametrize("name", ALL)
def test_the_runs_of_every_file_join_to_the_file(name: str) -> None:
    plan_of(ALL[name])


@pytest.mark.parametrize("path", real_files("odd") + real_files("series", every=11), ids=lambda p: p.name)
def test_the_runs_of_real_files_join_to_the_file(path: Path) -> None:
    plan_of(path.read_bytes())


def test_native_frames_lie_between_two_header_runs() -> None:
    file = ODD["more than the frames"]
    plan = plan_of(file)
    assert plan.kind == "native"
    start = file.index(bytes(range(32)))
    assert plan.runs == (
        Run(RunKind.HEADER, 0, start),
        Run(RunKind.FRAMES, start, 32),
        Run(RunKind.HEADER, start + 32, 8),
    )


def test_a_file_without_pixels_is_one_header_run() -> None:
    file = ODD["a report"]
    assert plan_of(file).runs == (Run(RunKind.HEADER, 0, len(file)),)


def test_an_encapsulated_value_is_a_stream_between_headers() -> None:
    kinds = [run.kind for run in plan_of(ODD["encapsulated"]).runs]
    assert kinds == [RunKind.HEADER, RunKind.STREAM, RunKind.HEADER]


@pytest.mark.parametrize("name", ["text", "png", "zeros"])
def test_what_is_not_dicom_is_one_stream(name: str) -> None:
    assert plan_of(JUNK[name]).runs == (Run(RunKind.STREAM, 0, len(JUNK[name])),)


def test_an_empty_file_has_no_runs() -> None:
    assert plan_of(b"").runs == ()


def test_header_bytes_beyond_the_limit_go_into_streams() -> None:
    private = LITTLE.element(0x00291010, "OB", bytes(MAX_HEADER))
    tail = LITTLE.element(0xFFFCFFFC, "OB", bytes(5000))
    content = samples.write(samples.identity()) + private + samples.write(samples.image(4, 4))
    plan = plan_of(samples.part10(content + LITTLE.element(PIXEL_DATA, "OW", bytes(32)) + tail))
    assert [run.kind for run in plan.runs] == [RunKind.HEADER, RunKind.STREAM, RunKind.FRAMES, RunKind.STREAM]


def test_a_large_file_without_pixels_is_a_stream() -> None:
    plan = plan_of(samples.part10(LITTLE.element(0x00420011, "OB", bytes(MAX_HEADER))))
    assert [run.kind for run in plan.runs] == [RunKind.STREAM]


def test_the_scan_of_another_file_splits_nothing() -> None:
    plan = split(ODD["explicit"] + b"x", scan(ODD["explicit"]))
    assert [run.kind for run in plan.runs] == [RunKind.STREAM]


def test_a_ct_slice_has_its_layout() -> None:
    layout, frames = layout_of(samples.ct_series(1, 6, 10)[0])
    assert frames == 1
    assert layout == PixelLayout(6, 10, 1, 16, 16, 15, signed=True)


def test_several_frames_are_counted_and_never_more_than_declared() -> None:
    assert layout_of(native(samples.image(2, 2, frames=3), bytes(24)))[1] == 3
    assert layout_of(native(samples.image(2, 2, frames=3), bytes(80)))[1] == 3
    assert layout_of(native(samples.image(2, 2, frames=3), bytes(20)))[1] == 2
    assert layout_of(native(samples.image(2, 2), bytes(80)))[1] == 1


def test_of_colour_by_plane_each_plane_is_a_frame() -> None:
    layout, count = layout_of(native(samples.image(4, 6, bits=8, samples=3, planar=1), bytes(72), "OB"))
    assert (layout.rows, layout.columns, layout.samples, count) == (4, 6, 1, 3)
    cine = native(samples.image(4, 6, bits=8, samples=3, planar=1, frames=2), bytes(144), "OB")
    assert layout_of(cine)[1] == 6
    layout, count = layout_of(native(samples.image(4, 6, bits=8, samples=3), bytes(72), "OB"))
    assert (layout.rows, layout.columns, layout.samples, count) == (4, 6, 3, 1)


def test_subsampled_colour_is_known_by_its_length() -> None:
    attributes = [a for a in samples.image(4, 6, bits=8, samples=3) if a[0] != 0x00280004]
    attributes.append((0x00280004, "CS", "YBR_FULL_422"))
    layout, _ = layout_of(native(attributes, bytes(48), "OB"))
    assert (layout.columns, layout.samples, layout.frame_bytes) == (3, 4, 48)
    layout, _ = layout_of(native(attributes, bytes(72), "OB"))
    assert (layout.columns, layout.samples, layout.frame_bytes) == (6, 3, 72)


def test_single_bits_are_described_as_bytes() -> None:
    assert layout_of(native(samples.image(3, 16, bits=1), bytes(6), "OB"))[0].columns == 2
    layout, frames = layout_of(native(samples.image(4, 6, frames=2, bits=1), bytes(6), "OB"))
    assert (layout.rows, layout.columns, frames) == (1, 3, 2)
    assert isinstance(native_layout(scan(native(samples.image(3, 3, bits=1), bytes(2), "OB"))), str)


def test_float_and_double_pixels_have_their_width_from_the_tag() -> None:
    for name, bits in (("float pixels", 32), ("double pixels", 64)):
        layout, _ = layout_of(ODD[name])
        assert layout.is_float
        assert layout.bits_allocated == bits


def test_big_endian_words_are_marked_and_bytes_are_not() -> None:
    assert layout_of(native(samples.image(2, 2), bytes(8), how=BIG))[0].big_endian
    assert not layout_of(native(samples.image(2, 2, bits=8), bytes(4), how=BIG))[0].big_endian


@pytest.mark.parametrize("stored,high", [(0, 11), (99, 11), (12, 40), (12, 3)])
def test_senseless_bit_depths_are_mended(stored: int, high: int) -> None:
    attributes = [a for a in samples.image(2, 2) if a[0] not in {0x00280101, 0x00280102}]
    attributes += [(0x00280101, "US", stored), (0x00280102, "US", high)]
    layout, _ = layout_of(native(attributes, bytes(8)))
    assert 0 < layout.bits_stored <= layout.high_bit + 1 <= 16


@pytest.mark.parametrize(
    "attributes,value",
    [
        (samples.image(0, 4), bytes(32)),
        (samples.image(65535, 65535, samples=4, bits=64, stored=1), bytes(32)),
        (samples.image(4, 4, bits=12), bytes(24)),
        (samples.image(4, 4, samples=9), bytes(500)),
        (samples.image(4, 4), bytes(31)),
        ([], bytes(32)),
        (samples.image(1, 1, bits=8, frames=1_000_000), bytes(1_000_000)),
        (samples.image(1, 4095, bits=8, frames=65), bytes(65 * 4095)),
    ],
)
def test_what_makes_no_sense_as_frames_gives_a_reason(attributes: list[Attribute], value: bytes) -> None:
    file = native(attributes, value)
    assert isinstance(native_layout(scan(file)), str)
    assert plan_of(file).kind == "opaque"


def test_more_frames_than_packing_can_hold_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    file = native(samples.image(64, 64, bits=8, frames=100), bytes(100 * 4096))
    assert layout_of(file)[1] == 100
    monkeypatch.setattr(pixels, "MAX_FRAMES", 99)
    assert isinstance(native_layout(scan(file)), str)


def test_a_few_tiny_frames_are_kept_apart() -> None:
    assert layout_of(native(samples.image(1, 4, bits=8, frames=64), bytes(256)))[1] == 64


@pytest.mark.parametrize("frames", ["-3", "many", "99999999999999999999", ""])
def test_a_senseless_number_of_frames_counts_as_one(frames: str) -> None:
    file = native([*samples.image(4, 4), (0x00280008, "IS", frames)], bytes(64))
    assert layout_of(file)[1] == 1


def image_file(
    modality: str = "CT", extra: list[Attribute] | None = None, samples_per_pixel: int = 1
) -> bytes:
    attributes = samples.identity(modality=modality) + samples.image(2, 2, samples=samples_per_pixel)
    replaced = {tag for tag, _, _ in extra or []}
    return samples.part10(samples.write([a for a in attributes if a[0] not in replaced] + (extra or [])))


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "CR", "DX", "MG", "NM", "XA"])
def test_plain_modalities_are_pixel_class(modality: str) -> None:
    assert not burned_in(scan(image_file(modality)))


@pytest.mark.parametrize("modality", ["US", "SC", "OT", "XC", "ES", "GM", "SM", "DOC", "SR", "", "NEW"])
def test_modalities_that_write_on_images_are_identity_class(modality: str) -> None:
    assert burned_in(scan(image_file(modality)))


@pytest.mark.parametrize(
    "attribute",
    [
        (0x00280301, "CS", "YES"),
        (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7"),
        (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7.2"),
        (0x00080064, "CS", "WSD"),
        (0x00080008, "CS", "DERIVED\\SECONDARY\\SCREEN SAVE"),
        (0x00080008, "CS", "DERIVED\\SECONDARY\\OTHER\\DOSE_INFO"),
        (0x60020102, "US", 12),
    ],
)
def test_screenshots_of_plain_modalities_are_identity_class(attribute: Attribute) -> None:
    assert burned_in(scan(image_file("CT", [attribute])))


def test_an_overlay_beside_the_samples_does_not_change_their_class() -> None:
    assert not burned_in(scan(image_file("CT", [(0x60000102, "US", 0)])))


def test_colour_of_plain_modalities_is_identity_class() -> None:
    assert burned_in(scan(image_file("CT", samples_per_pixel=3)))


def test_a_missing_modality_is_identity_class() -> None:
    found = scan(image_file())
    values = {tag: value for tag, value in found.values.items() if tag != 0x00080060}
    assert burned_in(dataclasses.replace(found, values=values))
