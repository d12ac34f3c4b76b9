"""Stacks that make the kernel use all that its streams have; small, for a slow decoder reads them, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

Samples = npt.NDArray[np.unsignedinteger[Any]]
SEED = 20
REAL = {
    "ct_ge_hispeed_head_4mm": 16,
    "ct_philips_head_5mm": 12,
    "mr_siemens_prisma_t1_sag": 12,
    "pt_idc_ge_singles": 16,
    "us_cine_epiq_grey": 8,
}
"""Folders of the real data and the bits of their samples."""


@dataclass(frozen=True)
class StackOfFrames:
    """Samples, their depth, and the references that the encoder is told to use."""

    samples: Samples
    bits: int
    references: tuple[int, ...] = (1, 2)


def stack(values: npt.NDArray[Any], bits: int, references: tuple[int, ...] = (1, 2)) -> StackOfFrames:
    """Fit numbers into samples of so many bits."""
    kept = np.clip(np.asarray(values).astype(np.int64), 0, (1 << bits) - 1)
    return StackOfFrames(kept.astype(np.uint8 if bits <= 8 else np.uint16), bits, references)


def scene(
    chance: np.random.Generator, frames: int, rows: int, columns: int, bits: int, noise: float = 2
) -> npt.NDArray[Any]:
    """A body on a black ground, which moves slowly."""
    frame, row, column = np.indices((frames, rows, columns))
    top = 1 << bits
    body = top / 3 + top / 6 * np.sin(row / 5 + frame / 9) * np.cos(column / 7)
    body += chance.normal(0, noise, body.shape)
    inside = (row / rows - 0.5) ** 2 + (column / columns - 0.5 + frame / 300) ** 2 < 0.2
    return np.where(inside, body, 0)


def made() -> Iterator[tuple[str, StackOfFrames]]:
    """Stacks made by formulas."""
    chance = np.random.default_rng(SEED)
    for bits in (1, 8, 12, 16):
        for size in ((1, 1, 1), (1, 1, 17), (2, 1, 17), (3, 5, 7)):
            noise = chance.integers(0, 1 << bits, size)
            yield f"noise {bits} {size}", stack(noise, bits)
            yield f"gradient {bits} {size}", stack(np.indices(size).sum(axis=0) * 3, bits)
        yield f"constant {bits}", stack(np.full((2, 9, 33), (1 << bits) // 2), bits)
        yield f"scene {bits}", stack(scene(chance, 3, 18, 37, bits), bits)
    references: tuple[tuple[int, ...], ...] = ((), (1,), (1, 2), (1, 2, 3), (3, 1), (2,))
    for distances in references:
        yield f"references {distances}", stack(scene(chance, 5, 11, 33, 12), 12, distances)
    body = scene(chance, 3, 17, 36, 12)
    yield "even", stack(body // 2 * 2, 12)
    yield "mostly even", stack(np.where(body % 13 < 12, body // 2 * 2, body), 12)
    yield "odd steps", stack(body // 7 * 7 + 100, 12)
    yield "wide range", stack(scene(chance, 3, 17, 36, 16, noise=900), 16)
    yield "parity of a wide range", stack(scene(chance, 3, 17, 36, 16, noise=900) // 2 * 2, 16)
    jumps = np.where(chance.random(body.shape) < 0.02, 60000, body)
    yield "jumps", stack(jumps, 16)
    yield "padding", stack(np.where(np.indices(body.shape)[2] < 7, 0, body + 30000), 16)
    yield (
        "two spikes",
        stack(
            np.where(
                chance.random(body.shape) < 0.2, 0, np.where(chance.random(body.shape) < 0.2, 4000, body)
            ),
            12,
        ),
    )
    yield "repeated", stack(np.tile(chance.integers(0, 4096, (1, 17, 36)), (3, 1, 1)), 12, (1,))
    yield "columns repeated", stack(np.tile(chance.integers(0, 4096, (3, 1, 36)), (1, 17, 1)), 12, (1,))
    yield "half of it new", stack(np.where(np.indices(body.shape)[1] < 9, body[:1], body), 12)
    yield "turns into noise", stack(np.concatenate([body, chance.integers(0, 4096, (1, 17, 36))]), 12)


def cut(folder: Path, bits: int) -> StackOfFrames:
    """Four frames of 48 rows and 64 columns from the middle of a real series."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    frames: list[npt.NDArray[Any]] = []
    for path in paths[len(paths) // 2 :]:
        pixels = pydicom.dcmread(path).pixel_array
        more = [*pixels] if pixels.ndim == 3 else [pixels]
        frames += [one for one in more if not frames or one.shape == frames[0].shape]
        if len(frames) >= 4:
            break
    whole = np.stack(frames[:4]).astype(np.int64)
    top, left = whole.shape[1] // 2 - 40, whole.shape[2] // 2 - 50
    found = whole[:, top : top + 48, left : left + 64]
    return stack(found - min(0, int(found.min())), bits)
