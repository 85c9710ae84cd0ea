"""What the console leaves in a pipe and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from flows.cli import console

WORK = """
from flows.cli.console import note, progress, show, table
with progress("steps") as report:
    for step in range(101, 106):
        report(step, 105, "loss [bold]0.1")
    note("epoch 1")
show(*table(("", "number"), [("word " * 40, "1")]))
"""


def test_a_pipe_gets_whole_lines_without_colours_and_no_bar() -> None:
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "40"}
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == "epoch 1\n"
    header, row = done.stdout.splitlines()
    assert row == "word " * 40 + " 1".rjust(len(row) - 200)
    assert header.endswith("number")


def test_a_terminal_shows_a_bar_that_ends_with_the_work() -> None:
    reader, writer = pty.openpty()
    subprocess.run([sys.executable, "-c", WORK], stdout=subprocess.DEVNULL, stderr=writer, check=True)
    os.close(writer)
    shown = os.read(reader, 100_000).decode()
    assert "105/105" in shown and "loss [bold]0.1" in shown and "epoch 1" in shown


def test_elsewhere_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    with console.progress("images") as report:
        for done in range(11, 15):
            report(done, 20, "1 refused")
    assert capsys.readouterr().err.splitlines() == [
        "12/20 images, 0.1/s, 160 s left, 1 refused",
        "14/20 images, 0.1/s, 120 s left, 1 refused",
    ]


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_values({"text": "x" * 300, "counts": {"a": 1}}, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["counts"] == {"a": 1}


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    rows = [("thresholds", "0.1"), ("[red]x", "12.5")]
    assert console.table(("name", "Dice"), rows) == ["name        Dice", "thresholds   0.1", "[red]x      12.5"]


def test_values_of_a_mapping_stand_below_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_values({"images": 3, "reasons": {"corrupt": 1}})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["images", "3"], ["reasons"], ["corrupt", "1"]]
