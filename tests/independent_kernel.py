"""What the decoders of both streams of our own share, written from `docs/codec.md` alone.

The decoders are `independent_fast` (with `_side`) and `independent_dense` (with `_samples` and
`independent_decisions`); they import nothing of the product, and were written without a look at the kernel:
the proof that the text is complete.
"""

from __future__ import annotations

from dataclasses import dataclass


class Damaged(Exception):
    """A stream breaks a rule of the text."""


@dataclass(frozen=True)
class Stack:
    """What is known of a stream from outside."""

    frames: int
    rows: int
    columns: int
    bits: int

    @property
    def samples(self) -> int:
        """Samples of all frames."""
        return self.frames * self.rows * self.columns


def demand(rule: bool, what: str) -> None:
    """Raise Damaged where a rule is broken."""
    if not rule:
        raise Damaged(what)


def log2(value: int) -> int:
    """Logarithm to base 2, rounded down."""
    return value.bit_length() - 1


def finer(value: int) -> int:
    """Four times the logarithm, and the two bits below the highest one; bits that do not exist are 0."""
    return 4 * log2(value) + ((value << 2 >> log2(value)) & 3)
