"""Measures words of 32 and 64 bits: what is stored of them, beside Zstandard and JPEG XL.

    python -m benchmarks.wide FOLDER [--json]

FOLDER holds series of CT, MR and PET (as those of the other tables); what applications make of them in wide
words is made here: doses, maps and scaled images.  Files below FOLDER that have such words themselves are
taken as they are.  Ratios are raw bytes to bytes stored.  ``zstd -19`` gets the plain bytes, ``before`` is
our Zstandard codec with its filters, which was all that such words got; JPEG XL takes floating point of 32
bits without loss.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import zstandard

from dicomfs.codec.base import CodecId, Profile
from dicomfs.codec.segment import encode_segment
from dicomfs.codec.trial import choose, sample_runs
from dicomfs.model import PixelLayout

Array = npt.NDArray[np.generic]
_COLUMNS = "what|words|MB|zstd -19|JPEG XL|before|fast|dense|archive"


def volume(folder: Path, most: int = 10) -> npt.NDArray[np.float64]:
    """Rescaled slices of the first size that occurs, in the order of their names."""
    found: list[npt.NDArray[np.float64]] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and len(found) < most:
            data_set = pydicom.dcmread(path)
            pixels = data_set.pixel_array.astype(np.float64)
            pixels = pixels * float(data_set.get("RescaleSlope", 1)) + float(
                data_set.get("RescaleIntercept", 0)
            )
            found += [
                one
                for one in pixels.reshape(-1, *pixels.shape[-2:])
                if not found or one.shape == found[0].shape
            ]
    return np.stack(found[:most])


def blurred(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """A box blur in the plane, three times over: nearly a Gaussian one."""
    for _ in range(3):
        for axis in (1, 2):
            sums = np.cumsum(
                np.pad(values, [(width, width) if a == axis else (0, 0) for a in range(3)], "edge"), axis
            )
            high = np.take(sums, range(2 * width, sums.shape[axis]), axis)
            low = np.take(sums, range(sums.shape[axis] - 2 * width), axis)
            values = (high - low) / (2 * width)
    return values


def made(folder: Path) -> Iterator[tuple[str, Array]]:
    """What applications derive from images."""
    rng = np.random.default_rng(4)
    body = volume(folder / "ct_tcia_rider_ge16_std_5mm")
    dose = blurred(np.clip(body + 1000, 0, 2000), 9)
    dose /= dose.max()
    yield "dose, smooth, uint32", (dose * (2**31)).astype(np.uint32)
    noisy = (dose * (1 + rng.normal(0, 0.01, dose.shape))).clip(0)
    yield "dose, Monte Carlo 1 %, uint32", (noisy * (2**31)).astype(np.uint32)
    yield "dose, 16 bits scaled, uint32", (dose * 60000).astype(np.uint32) * np.uint32(32771)
    diffusion = volume(folder / "mr_siemens_prisma_diff_mb4", 48)
    half = len(diffusion) // 2
    ratio = np.log((diffusion[:half] + 1) / (diffusion[half : 2 * half] + 1)) / 1000
    yield "diffusion map, float", ratio.astype(np.float32)
    yield "the same, double", ratio
    yield "the same, masked, float", np.where(diffusion[:half] > 60, ratio, 0).astype(np.float32)
    pet = volume(folder / "pt_idc_ge_singles")
    yield "PET as SUV, float", (pet * np.float64(0.00037)).astype(np.float32)
    yield "CT as float", body.astype(np.float32)
    yield "labels, int32", (np.digitize(dose, [0.1, 0.3, 0.5, 0.7]) * 1001).astype(np.int32)


def real(folder: Path) -> Iterator[tuple[str, Array]]:
    """Native words of 32 or 64 bits in files."""
    for path in sorted(folder.rglob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data_set = pydicom.dcmread(path, force=True)
            syntax = getattr(getattr(data_set, "file_meta", None), "TransferSyntaxUID", None)
            if (
                data_set.get("BitsAllocated") != 32
                or "PixelData" not in data_set
                or syntax is None
                or syntax.is_compressed
            ):
                continue
            try:
                pixels = data_set.pixel_array
            except (ValueError, AttributeError) as problem:
                print(f"{path.name}: {problem}")
                continue
        if pixels.ndim <= 3:
            yield path.name, pixels.reshape(-1, *pixels.shape[-2:])


def row(what: str, words: Array) -> dict[str, object]:
    """Ratios of one stack."""
    words = np.ascontiguousarray(words)
    frames, rows, columns = words.shape
    layout = PixelLayout(
        rows, columns, 1, 8 * words.itemsize, 8 * words.itemsize, 8 * words.itemsize - 1,
        signed=words.dtype.kind == "i",
        big_endian=words.dtype.byteorder == ">", is_float=words.dtype.kind == "f",
    )  # fmt: skip
    raw = words.reshape(frames, -1).view(np.uint8)
    sizes = {"zstd -19": len(zstandard.ZstdCompressor(level=19).compress(raw.tobytes()))}
    sizes["before"] = sum(len(b.payload) for b in encode_segment(raw, layout, CodecId.ZSTD).bands)
    if words.dtype == np.float32:
        sizes["JPEG XL"] = sum(len(imagecodecs.jpegxl_encode(one, lossless=True, effort=7)) for one in words)
    for profile in Profile:
        runs = [raw[run.start : run.stop] for run in sample_runs(frames, layout)]
        trial = choose(runs, layout, profile, single=frames == 1, frames=frames)
        sizes[profile.value] = sum(
            len(band.payload)
            for at in range(0, frames, trial.segment_frames)
            for band in encode_segment(
                raw[at : at + trial.segment_frames], layout, trial.codec, trial.settings
            ).bands
        )
    cells = {
        name: round(raw.size / sizes[name], 3) if name in sizes else "" for name in _COLUMNS.split("|")[3:]
    }
    return {"what": what, "words": str(words.dtype), "MB": round(raw.size / 1e6, 3), **cells}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--odd", type=Path, help="a folder of files with such words")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    print(f"|{_COLUMNS}|\n{'|---' * len(_COLUMNS.split('|'))}|")
    for what, words in (*made(options.folder), *(real(options.odd) if options.odd else ())):
        rows.append(row(what, words))
        print("| " + " | ".join(map(str, rows[-1].values())) + " |", flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
