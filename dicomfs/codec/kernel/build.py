"""Compiles the kernel: asked by setuptools (``setup.py``), or run to build in place.

``python -m dicomfs.codec.kernel.build`` puts the module beside this file, where a checkout imports it from.
The declarations are read from ``kernel.h``, so that there is one description of the interface.

The result of floating point must not depend on the machine: no contraction, no reordering.  Vector
instructions beyond the base of the architecture are chosen inside the C files, at run time.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from cffi import FFI

MODULE = "dicomfs.codec.kernel._kernel"
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-fast-math", "-fvisibility=hidden", "-Wall", "-Wextra")

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[2]


def declarations(header: str) -> str:
    """Return what ``kernel.h`` declares in the form cffi parses: without comments and preprocessor lines."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    kept = [
        line
        for line in text.splitlines()
        if not re.match(r"\s*#\s*(include|if|ifdef|ifndef|endif)\b", line)
        and not re.match(r"\s*#\s*define\s+\w+\s*$", line)
    ]
    return "\n".join(kept)


def _files(suffix: str) -> list[str]:
    """Return files beside this one, relative to the project's folder as setuptools wants them."""
    found = sorted(_HERE.glob(f"*{suffix}"))
    return [str(path.relative_to(_ROOT)) for path in found if path.stem != "_kernel"]


def builder() -> FFI:
    """Return the module's description; setuptools calls this."""
    ffi = FFI()
    ffi.cdef(declarations((_HERE / "kernel.h").read_text(encoding="utf-8")))
    ffi.set_source(
        MODULE,
        '#include "kernel.h"',
        sources=_files(".c"),
        depends=_files(".h"),
        include_dirs=[str(_HERE.relative_to(_ROOT))],
        extra_compile_args=list(FLAGS),
    )
    return ffi


def build_in_place() -> Path:
    """Compile and put the module beside this file, whole or not at all; return its path.

    Processes that use the old one keep it.
    """
    from setuptools import Distribution  # noqa: PLC0415 - wanted here only

    os.chdir(_ROOT)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=_HERE) as scratch:
        description = f"{Path(__file__).resolve().relative_to(_ROOT)}:builder"
        distribution = Distribution({"name": "dicomfs", "packages": [], "cffi_modules": [description]})
        distribution.finalize_options()
        command = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp = scratch, f"{scratch}/objects"
        command.ensure_finalized()
        command.run()
        (built,) = Path(scratch).rglob("_kernel.*.so")
        return built.replace(_HERE / built.name)


if __name__ == "__main__":
    sys.stdout.write(f"{build_in_place()}\n")
