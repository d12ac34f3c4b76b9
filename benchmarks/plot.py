"""Draws ratio against decoding speed; the only module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.peers import REFERENCE

if TYPE_CHECKING:
    from benchmarks.codecs import Mean

_OWN = ("fast", "dense", "archive")


def draw(path: Path, found: Sequence[Mean]) -> None:
    """Write one point for each codec; the suffix of ``path`` says in which form."""
    # The same input gives the same file: no time of making, no random names.
    mpl.rcParams["svg.hashsalt"] = "dicomfs"
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    shown = sorted(
        (mean for mean in found if not mean.codec.startswith("pack ")), key=lambda mean: mean.decode_mbs
    )
    for before, mean, following in zip([None, *shown], shown, [*shown[1:], None], strict=False):
        ours = mean.codec in _OWN
        place = mean.decode_mbs, 1 / mean.to_reference
        axes.scatter(*place, s=60 if ours else 40, color="#c1440e" if ours else "#4a6fa5", zorder=3)
        after, ahead = _near(before, mean), _near(mean, following)
        axes.annotate(
            mean.codec,
            place,
            xytext=(-6 if ahead and not after else 6, -12 if ahead and after else 4),
            textcoords="offset points",
            fontsize=9,
            horizontalalignment="right" if ahead and not after else "left",
        )
    axes.margins(x=0.15)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("decoding, MB of raw pixels in a second of processor time")
    axes.set_ylabel(f"ratio to that of {REFERENCE}, geometric mean over folders")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.set_title("Lossless: smaller is higher, faster is further right", fontsize=11)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, metadata=metadata)


def _near(one: Mean | None, other: Mean | None) -> bool:
    """Whether the name of one point would be written over the other."""
    if one is None or other is None:
        return False
    height = abs(1 / one.to_reference - 1 / other.to_reference)
    return other.decode_mbs < 2 * one.decode_mbs and height < 0.03
