"""Objects of every released format version are read as they were written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.contents import contents_of

_HERE = Path(__file__).parent
_GOLDEN = sorted(path for path in _HERE.glob("v*/*") if path.name != "contents.json")


@pytest.mark.parametrize("path", _GOLDEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_golden_object_decodes_to_what_it_was_made_from(path: Path) -> None:
    data = path.read_bytes()
    expected = json.loads((path.parent / "contents.json").read_text())[path.name]
    assert hashlib.sha256(data).hexdigest() == expected["object"], "golden objects never change"
    assert contents_of(path.name, data) == expected["contents"]


def test_no_golden_object_was_lost() -> None:
    listed = []
    for index in _HERE.glob("v*/contents.json"):
        listed += [index.parent / name for name in json.loads(index.read_text())]
    assert sorted(listed) == _GOLDEN


def test_golden_objects_are_never_made_again() -> None:
    folders = sorted(path for path in _HERE.glob("v*") if path.is_dir())
    script = _HERE.parents[1] / "tools" / "make_golden.py"
    if folders:
        made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
        assert made.returncode == 1
        assert "never made again" in made.stderr
