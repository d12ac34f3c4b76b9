"""A short run of the kernel's fuzzers under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import kernel

RUNS = {"encode": 80, "decode": 600}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fuzzers, compiled in a hurry."""
    folder = tmp_path_factory.mktemp("fuzz")
    kernel.build(folder, "-O0")
    return folder


@pytest.mark.parametrize("stream", kernel.STREAMS)
def test_no_samples_and_no_streams_make_the_kernel_step_outside_its_buffers(
    programs: Path, stream: str
) -> None:
    for mode, runs in RUNS.items():
        limits = [f"-runs={runs}", "-seed=1", "-max_len=2000"]
        assert kernel.run(programs, stream, mode, *limits) >= runs
    assert len(list((programs / f"{stream}_seeds").iterdir())) > 30
