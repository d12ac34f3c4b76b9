"""Coverage-guided fuzzing of everything that reads a file's bytes before they are trusted.

Run it with atheris installed::

    python tests/fuzz/fuzz_part10.py -max_total_time=240 -max_len=4096 CORPUS

What it finds is kept, made small, under ``tests/damaged/part10/`` and replayed by the ordinary tests.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["dicomfs.dicom"]):
    from tests.fuzz.target import exercise


def main() -> None:
    """Hand the process over to libFuzzer."""
    atheris.Setup(sys.argv, exercise)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
