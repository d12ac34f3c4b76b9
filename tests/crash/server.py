"""Runs steps in forked children of a small process that has opened nothing: no archive, no thread.

Run as a program it reads jobs from standard input, one JSON document a line, and answers each with one.
`Server` is the other end.  Forking spares every step the start of an interpreter.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.crash.events import KILLED, Events
from tests.crash.steps import STEPS

CHECKOUT = Path(__file__).resolve().parents[2]


class StepFailed(Exception):
    """A step raised, or died where it should not."""


class Done(NamedTuple):
    """What became of a step."""

    killed: bool
    value: Any
    events: list[str]
    """What was counted before the step ended; empty where it was killed."""


class Server:
    """A process that runs steps; for one thread."""

    def __init__(self) -> None:
        paths = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": paths},
            text=True,
        )

    def run(
        self, step: str, *args: str, at: int | None = None, after: bool = False, power: bool = False
    ) -> Done:
        """Run a step, dying at event ``at``, if wanted by a cut of power.

        Raises StepFailed with the traceback of one that fails.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"step": step, "args": args, "at": -1 if at is None else at, "after": after, "power": power}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "problem" in answer:
            raise StepFailed(f"{step}{args}: {answer['problem']}")
        return Done(answer["killed"], answer.get("value"), answer.get("events", []))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve() -> None:
    gc.freeze()
    faulthandler.enable()
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _child(job, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == KILLED:
            answer = json.dumps({"killed": True}).encode()
        elif not answer:
            answer = json.dumps({"problem": f"ended with {code}"}).encode()
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.flush()


def _child(job: dict[str, Any], writing: int) -> None:
    events = Events(Path(job["args"][0]), job["at"], job["after"], job["power"])
    try:
        events.install()
        value = STEPS[job["step"]](*job["args"])
        answer: dict[str, Any] = {"killed": False, "value": value, "events": events.seen}
    except BaseException:  # the other end raises it
        answer = {"problem": traceback.format_exc()}
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(json.dumps(answer).encode())
    os._exit(0)


if __name__ == "__main__":
    _serve()
