"""The radiographs that ship with covseg, and the demo's own folder."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covseg.samples import HERE, samples
from flows.cli import app as cli


def test_every_radiograph_that_ships_names_its_licence_and_source_and_is_small() -> None:
    with (HERE / "samples.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert sorted(row["image"] for row in rows) == sorted(path.name for path in (HERE / "images").iterdir())
    assert {row["licence"] for row in rows} == {"CC BY 3.0"} and all(row["source"] for row in rows)
    for sample in samples():
        assert sample.path.stat().st_size < 160_000
        with Image.open(sample.path) as image:
            assert (image.mode, image.size) == ("L", (1000, 1000))
            assert not image.getexif()


def test_their_truth_is_that_of_covid_qu_ex(val_root: Path) -> None:
    with (HERE / "samples.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            folder = val_root.parent / row["split"] / "COVID-19"
            lung, infection = (
                np.asarray(Image.open(folder / f"{kind} masks" / row["covid_qu_ex"])) > 127
                for kind in ("lung", "infection")
            )
            assert (infection & lung).sum() / lung.sum() == pytest.approx(float(row["infected_fraction"]), abs=0.001)


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert cli.run(["demo", "-o", str(tmp_path)]) == 2
    assert "no demo made it" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_a_step_says_on_stderr_is_seen() -> None:
    """`covseg` closes file descriptor 2 to decoders; a step of the demo is a process of its own, and inherits that."""
    lines = (
        "from flows.cli import app, demo",
        "app.silence_decoders()",
        "demo._run(demo.Step('a step', ('predict', 'no-such-folder', '-o', 'out')))",
    )
    ended = subprocess.run([sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True, check=False)
    assert "covseg: no-such-folder" in ended.stderr
