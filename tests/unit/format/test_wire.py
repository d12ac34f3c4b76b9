"""Structured payloads read by many threads at once."""

from __future__ import annotations

import subprocess
import sys

FIRST_USE = """
import sys, threading
from typing import Annotated
import msgspec
from dicomfs.format.wire import decode_wire, encode_wire
from dicomfs.index.records import pack_record, unpack_record

Small = Annotated[int, msgspec.Meta(ge=0, le=9)]

class Inner(msgspec.Struct, array_like=True):
    one: Small
    two: tuple[Small, ...]

sys.setswitchinterval(1e-6)
for _ in range(150):
    class Outer(msgspec.Struct, array_like=True):
        first: Inner
        others: tuple[Inner, ...]
        number: Small

    value = Outer(Inner(1, (2, 3)), (Inner(4, ()),), 5)
    wire, record = encode_wire(value), pack_record(value)
    start = threading.Barrier(4)

    def read():
        start.wait()
        assert decode_wire(wire, Outer, "test") == value
        assert unpack_record(record, Outer) == value

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_may_read_a_kind_of_payload_for_the_first_time_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
