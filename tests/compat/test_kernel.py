"""The kernel's streams: one for all machines, for ever.

``streams/`` holds streams written by earlier versions, never written again; a file is named
``<codec>-<level>-<content>-<version>.stream``.  What they hold is in `tests.compat.kernel_contents`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicomfs.codec.base import EFFORT_ARCHIVE, EFFORT_DENSE, EFFORT_FAST, CodecId, Settings
from dicomfs.codec.registry import codec
from tests import independent_dense, independent_fast, kernel_builds
from tests.compat.kernel_contents import CONTENTS, Content
from tests.independent_kernel import Stack
from tests.kernel_builds import BUILDS, Shape

STREAMS = Path(__file__).parent / "streams"
CODECS = {"fast": CodecId.FAST, "dense": CodecId.DENSE}
KINDS = [("fast", 0), ("dense", 0), ("dense", 1)]
BY_THE_TEXT = {"fast": independent_fast.decode, "dense": independent_dense.decode}
OF_THE_PROFILE = {("fast", 0): EFFORT_FAST, ("dense", 0): EFFORT_DENSE, ("dense", 1): EFFORT_ARCHIVE}
EFFORTS = {"bytes": (1, 3, 5, 7, 9)}


def encode(kind: str, content: Content, settings: Settings) -> bytes:
    """Code with the module that the package uses."""
    shape = content.shape
    planes = np.frombuffer(content.samples(), f"<u{shape.sample_bytes}")
    planes = planes.reshape(shape.frames, shape.rows, shape.columns)
    return codec(CODECS[kind]).encode(planes, shape.bits, settings)


def decode(kind: str, shape: Shape, stream: bytes) -> bytes:
    """Decode with the module that the package uses."""
    size, dtype = (shape.frames, shape.rows, shape.columns), np.dtype(f"u{shape.sample_bytes}")
    found = codec(CODECS[kind]).decode(memoryview(stream), size, dtype, shape.bits, range(shape.frames))
    return b"".join(frame.astype(dtype.newbyteorder("<")).tobytes() for _, frame in found)


@pytest.mark.parametrize("path", sorted(STREAMS.glob("*.stream")), ids=lambda path: path.stem)
def test_a_stream_written_by_an_earlier_version_decodes_to_the_same_samples(path: Path) -> None:
    kind, _, content, _ = path.stem.split("-")
    assert decode(kind, CONTENTS[content].shape, path.read_bytes()) == CONTENTS[content].samples()


@pytest.mark.parametrize("path", sorted(STREAMS.glob("*.stream")), ids=lambda path: path.stem)
def test_a_stream_of_an_earlier_version_is_read_by_the_text_alone(path: Path) -> None:
    kind, _, title, _ = path.stem.split("-")
    shape = CONTENTS[title].shape
    stack = Stack(shape.frames, shape.rows, shape.columns, shape.bits)
    found = BY_THE_TEXT[kind](stack, path.read_bytes())
    assert found.astype(f"<u{shape.sample_bytes}").tobytes() == CONTENTS[title].samples()


def test_every_content_has_a_stream_of_every_kind_to_stay_compatible_with() -> None:
    found = {tuple(path.stem.split("-")[:3]) for path in STREAMS.glob("*.stream")}
    assert found == {(kind, str(level), content) for kind, level in KINDS for content in CONTENTS}


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("kind, level", KINDS)
def test_all_compilers_and_machines_write_and_read_the_same(name: str, kind: str, level: int) -> None:
    for title, content in CONTENTS.items():
        samples = content.samples()
        for effort in EFFORTS.get(title, (OF_THE_PROFILE[kind, level],)):
            settings = Settings(effort, level, content.references)
            here = encode(kind, content, settings)
            there = kernel_builds.encode(
                name, kind, content.shape, samples, effort=effort, level=level, references=content.references
            )
            assert there == here
        assert kernel_builds.decode(name, kind, content.shape, here) == samples
        assert decode(kind, content.shape, here) == samples


@pytest.mark.parametrize("kind, level", KINDS)
def test_damaged_streams_end_the_same_way_on_all_machines(kind: str, level: int) -> None:
    content = CONTENTS["anatomy"]
    stream = encode(kind, content, Settings(3, level))
    for place in (5, len(stream) // 3, len(stream) * 2 // 3):
        damaged = stream[:place] + bytes([stream[place] ^ 0x41]) + stream[place + 1 :]
        assert len({outcome(name, kind, content.shape, damaged) for name in BUILDS}) == 1


def outcome(name: str, kind: str, shape: Shape, stream: bytes) -> bytes | int:
    """What a build makes of a stream: samples, or the code of its refusal."""
    try:
        return kernel_builds.decode(name, kind, shape, stream)
    except kernel_builds.KernelError as refusal:
        return int(refusal.args[0])
