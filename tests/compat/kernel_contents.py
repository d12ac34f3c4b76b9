"""What conformance streams hold: samples that follow from formulas, in integers alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.kernel_builds import Shape

Samples = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Content:
    """Samples and what the encoder is told."""

    shape: Shape
    make: Callable[[Shape], Samples]
    references: tuple[int, ...] = (1, 2)

    def samples(self) -> bytes:
        """All frames, little-endian."""
        values = self.make(self.shape) & ((1 << self.shape.bits) - 1)
        return values.astype(f"<u{self.shape.sample_bytes}").tobytes()


def _noise(shape: Shape, salt: int = 0) -> Samples:
    """Numbers without a pattern: a linear congruential sequence, its upper bits."""
    count = shape.frames * shape.rows * shape.columns
    state, out = 12345 + salt, np.empty(count, np.int64)
    for index in range(count):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        out[index] = state >> 8
    return out.reshape(shape.frames, shape.rows, shape.columns)


def _scene(shape: Shape) -> Samples:
    frame, row, column = np.indices((shape.frames, shape.rows, shape.columns))
    half = (1 << shape.bits) // 2
    dome = half - (column - shape.columns // 2) ** 2 * half // (shape.columns**2)
    scene: Samples = dome + frame * 2 + row * 3 + (row * column) % 11
    return scene


def anatomy(shape: Shape) -> Samples:
    """A smooth scene that moves a little from frame to frame, with noise, black outside a disc."""
    _, row, column = np.indices((shape.frames, shape.rows, shape.columns))
    inside = (2 * row - shape.rows) ** 2 * shape.columns**2 + (
        2 * column - shape.columns
    ) ** 2 * shape.rows**2
    scene = _scene(shape) + _noise(shape) % 9
    return np.where(inside < (shape.rows * shape.columns) ** 2, scene, 0)


def noise(shape: Shape) -> Samples:
    """Nothing to predict."""
    return _noise(shape) % (1 << shape.bits)


def extremes(shape: Shape) -> Samples:
    """The smallest and the largest sample by turns."""
    return (_noise(shape) // 7 % 2) * ((1 << shape.bits) - 1)


def constant(shape: Shape) -> Samples:
    """One value."""
    return np.full((shape.frames, shape.rows, shape.columns), (1 << shape.bits) // 3)


def gaps(shape: Shape) -> Samples:
    """Every third value only, and padding far below."""
    values = _scene(shape) // 3 * 3 + 2000
    return np.where(_noise(shape) % 29 == 0, 0, values)


def clipped(shape: Shape) -> Samples:
    """Values cut off at a floor and a ceiling, where many gather."""
    top = (1 << shape.bits) - 1
    return np.clip((_noise(shape) % (top + 1)) * 3 // 2 - top // 4, 0, top)


def even(shape: Shape) -> Samples:
    """Even values, but for a few rows."""
    values = _scene(shape) + _noise(shape) % 7
    return np.where(np.arange(shape.rows)[:, None] % 16 < 13, values // 2 * 2, values)


def repeated(shape: Shape) -> Samples:
    """Five scenes that have nothing in common, by turns, each with a little noise."""
    scenes = _noise(Shape(5, shape.rows, shape.columns, shape.bits), 3) % (1 << shape.bits) // 2
    shown: Samples = np.tile(scenes, (shape.frames // 5, 1, 1)) + _noise(shape) % 3
    return shown


CONTENTS = {
    "anatomy": Content(Shape(4, 45, 59, 12), anatomy),
    "bytes": Content(Shape(3, 32, 43, 8), anatomy),
    "noise": Content(Shape(2, 25, 30, 16), noise),
    "extremes": Content(Shape(2, 24, 29, 16), extremes),
    "constant": Content(Shape(3, 20, 20, 10), constant),
    "gaps": Content(Shape(2, 40, 48, 13), gaps),
    "clipped": Content(Shape(2, 37, 41, 12), clipped),
    "even": Content(Shape(2, 48, 40, 14), even),
    "repeated": Content(Shape(15, 16, 17, 12), repeated, (5, 10, 1)),
    "three": Content(Shape(5, 24, 32, 12), anatomy, (1, 2, 3)),
    "intra": Content(Shape(2, 24, 32, 12), anatomy, ()),
    "pixel": Content(Shape(1, 1, 1, 12), anatomy),
    "row": Content(Shape(2, 1, 200, 12), anatomy),
    "column": Content(Shape(2, 200, 1, 12), anatomy),
    "binary": Content(Shape(3, 32, 32, 1), extremes),
}
