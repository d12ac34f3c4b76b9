"""What a person or a script sees."""

from __future__ import annotations

import json

import pytest

from dicomfs.cli import output


@pytest.mark.parametrize(
    "count,text",
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536 * 1024, "1.50 MiB"),
        (20 << 30, "20.0 GiB"),
        (300 << 40, "300 TiB"),
        (1 << 62, "4096 PiB"),
    ],
)
def test_sizes_are_shown_in_powers_of_1024(count: int, text: str) -> None:
    assert output.size(count) == text


def test_a_share_of_nothing_is_a_dash() -> None:
    assert output.share(1, 4) == "25.0 %"
    assert output.share(0, 0) == "–"


def test_text_from_files_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("a\x1b[2Jb\nc\udcff")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\nc\\udcff\n"


def test_a_table_is_tab_separated_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "size"), [("x [bold]y", 3), ("z\t", 4)])
    assert capsys.readouterr().out == "x [bold]y\t3\nz\\t\t4\n"


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json({"path": "\udcff", "n": 1})
    assert json.loads(capsys.readouterr().out) == {"path": "\udcff", "n": 1}


def test_progress_of_short_work_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress() as progress:
        progress.start(10, "reading")
        progress.advance(10)
        progress.done()
    assert capsys.readouterr() == ("", "")


def test_progress_of_long_work_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = output.LineProgress(lambda: now)
    progress.start(100 << 20, "packing")
    for _ in range(25):
        now += 1
        progress.advance(1 << 20)
    progress.start(None, "recovering")
    now += 11
    progress.advance(22 << 10)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "packing: 10.0 %, 10.0 MiB of 100 MiB, 1.00 MiB/s, 2 min left",
        "packing: 20.0 %, 20.0 MiB of 100 MiB, 1.00 MiB/s, 80 s left",
        "recovering: 22.0 KiB, 2.00 KiB/s",
    ]


@pytest.mark.parametrize(
    "seconds, text",
    [(0.0, "0 s"), (0.2, "1 s"), (89.0, "89 s"), (90.0, "2 min"), (5990.0, "1 h 40 min"), (5900.0, "99 min")],
)
def test_times_are_shown_rounded_up(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text
