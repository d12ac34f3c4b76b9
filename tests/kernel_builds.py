"""The kernel built without Python, by several compilers and for several machines, and called as a program.

What these builds agree on does not depend on the compiler, its flags or the instructions a machine has.
"""

from __future__ import annotations

import functools
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
KERNEL = TESTS.parent / "dicomfs" / "codec" / "kernel"
SAME_EVERYWHERE = ("-std=c11", "-ffp-contract=off", "-fno-fast-math")
STRICT = ("-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Build:
    """A way to compile the kernel, and what its programs are started with."""

    compiler: str
    flags: tuple[str, ...]
    start: tuple[str, ...] = ()


def _builds() -> dict[str, Build]:
    native = {"gcc": Build("gcc", ("-O2",)), "clang": Build("clang", ("-O1",))}
    if platform.machine() != "x86_64":
        return native
    return native | {
        "gcc for AVX2 and FMA": Build("gcc", ("-O2", "-march=haswell")),
        # The kernel chooses instructions at run time: this processor has none beyond SSE2.
        "gcc for SSE2": Build("gcc", ("-O1", "-static"), ("qemu-x86_64", "-cpu", "qemu64")),
        "gcc for aarch64": Build("aarch64-linux-gnu-gcc", ("-O1", "-static"), ("qemu-aarch64",)),
    }


BUILDS = _builds()


@dataclass(frozen=True)
class Shape:
    """What `dfk_shape` says."""

    frames: int
    rows: int
    columns: int
    bits: int

    @property
    def sample_bytes(self) -> int:
        return 1 if self.bits <= 8 else 2

    def words(self) -> list[str]:
        """The shape as the program takes it."""
        return [str(n) for n in (self.frames, self.rows, self.columns, self.bits, self.sample_bytes)]


class KernelError(Exception):
    """The kernel refused; its code is the argument."""


@functools.cache
def program(name: str) -> Path:
    """Compile the kernel and the program around it; warnings fail."""
    build = BUILDS[name]
    path = Path(tempfile.mkdtemp(prefix="kernel-")) / "driver"
    sources = [*sorted(KERNEL.glob("*.c")), TESTS / "kernel" / "driver.c"]
    command = [build.compiler, *SAME_EVERYWHERE, *STRICT, *build.flags, f"-I{KERNEL}", *map(str, sources)]
    subprocess.run([*command, "-o", str(path)], check=True, capture_output=True, text=True)
    return path


def encode(
    name: str, codec: str, shape: Shape, samples: bytes, *, effort: int, level: int, references: Sequence[int]
) -> bytes:
    """Code little-endian samples; raises KernelError."""
    distances = [*references, 0, 0, 0][:3]
    settings = [str(number) for number in (effort, level, *distances)]
    return _run(name, ["encode", codec, *shape.words(), *settings], samples)


def decode(name: str, codec: str, shape: Shape, stream: bytes) -> bytes:
    """Decode all frames to little-endian samples; raises KernelError."""
    return _run(name, ["decode", codec, *shape.words()], stream)


def _run(name: str, arguments: Sequence[str], data: bytes) -> bytes:
    command = [*BUILDS[name].start, str(program(name)), *arguments]
    found = subprocess.run(command, input=data, capture_output=True, check=False)
    if 0 < found.returncode < 100:
        raise KernelError(-found.returncode)
    found.check_returncode()
    return found.stdout
