"""Builds and runs libFuzzer on the kernel: decoders with mutated streams, encoders with any samples.

    python -m tests.fuzz.kernel FOLDER SECONDS [fast|dense]...

Programs, corpora and what was found are kept in FOLDER; run again, it goes on where it stopped.  Decoders
begin with streams that the encoders' fuzzers wrote.  One process at a time; prints the executions of each.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

from tests.kernel_builds import KERNEL, SAME_EVERYWHERE

HERE = Path(__file__).resolve().parent
SANITIZERS = ("-fsanitize=address,undefined", "-fsanitize-trap=undefined", "-fno-omit-frame-pointer", "-g")
STREAMS = ("fast", "dense")
# Comparisons are not traced: almost all of them are the arithmetic code's, and it would halve the speed.
COVERAGE = ("-fsanitize-coverage=inline-8bit-counters,pc-table",)
MODES = ("encode", "decode")
# Memory given back is soon used again while it is near, and nobody walks the stack at each allocation.
QUICK = "quarantine_size_mb=1:malloc_context_size=0:detect_stack_use_after_return=0"
# All of a frame's code in one function takes the sanitizers many minutes to go through.
IN_PARTS = "-DDENSE_INLINE=static inline __attribute__((unused))"


def build(folder: Path, *optimise: str) -> None:
    """Compile the four programs.  Objects of the kernel are shared, for they take longest."""
    common = ["clang", *SAME_EVERYWHERE, IN_PARTS, *optimise, *SANITIZERS, f"-I{KERNEL}", f"-I{HERE}"]
    objects = []
    for source in sorted(KERNEL.glob("*.c")):
        objects.append(folder / f"{source.stem}.o")
        _call([*common, *COVERAGE, "-c", str(source), "-o", str(objects[-1])])
    for stream in STREAMS:
        chosen = [f"-DSTREAM={stream}", *(["-DDENSE"] if stream == "dense" else [])]
        for mode in MODES:
            parts = [str(HERE / f"kernel_{mode}.c"), *map(str, objects)]
            _call([*common, *chosen, "-fsanitize=fuzzer", *parts, "-o", str(folder / f"{stream}_{mode}")])


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def run(folder: Path, stream: str, mode: str, *limits: str) -> int:
    """Run one fuzzer and return its executions; what it finds is left in ``folder`` and raised."""
    name, seeds = f"{stream}_{mode}", folder / f"{stream}_seeds"
    corpus = folder / f"{name}_corpus"
    seeds.mkdir(exist_ok=True)
    if not corpus.exists():
        corpus.mkdir()
        if mode == "encode":
            _begin(corpus)
    given = [str(corpus), *([str(seeds)] if mode == "decode" else [])]
    options = [
        "-timeout=600",
        "-len_control=0",
        "-entropic=0",
        "-rss_limit_mb=3000",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/{name}-",
    ]
    environment = {**os.environ, "ASAN_OPTIONS": QUICK, **({"SEEDS": str(seeds)} if mode == "encode" else {})}
    found = subprocess.run(
        [str(folder / name), *options, *limits, *given],
        env=environment, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    counted = re.search(r"number_of_executed_units: (\d+)", found.stderr)
    if found.returncode or counted is None:
        raise RuntimeError(f"{name}: {found.stderr[-4000:]}")
    return int(counted[1])


def _begin(corpus: Path) -> None:
    """Give the encoders' fuzzer shapes and settings of all kinds to begin with."""
    chance = random.Random(1)
    for number in range(60):
        (corpus / f"begin-{number}").write_bytes(chance.randbytes(16 + number * number))


def main() -> None:
    """Fuzz for so many seconds, a quarter of it the encoders."""
    folder, seconds, streams = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or STREAMS
    folder.mkdir(parents=True, exist_ok=True)
    build(folder, "-O1")
    for stream in streams:
        for mode, share in (("encode", 0.25), ("decode", 0.75)):
            limit = max(1, int(seconds * share / len(streams)))
            count = run(folder, stream, mode, f"-max_total_time={limit}", "-max_len=4096")
            sys.stdout.write(f"{stream} {mode}: {count} executions\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
