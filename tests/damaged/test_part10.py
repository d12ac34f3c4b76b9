"""What the fuzzer found once stays harmless: each kept input is read without an exception."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.target import exercise

CASES = sorted((Path(__file__).parent / "part10").glob("*.bin"))


def test_there_are_kept_inputs() -> None:
    assert CASES


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_kept_inputs_are_harmless(path: Path) -> None:
    exercise(path.read_bytes())
