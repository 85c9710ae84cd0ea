"""What the README shows is what this version does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import covseg
from covseg.model_folder.folder import open_folder
from covseg.synthetic.phantom import make_phantom

README = Path(__file__).resolve().parents[1] / "README.md"


def cells(name: str) -> list[str]:
    found = re.search(rf"^\| {name} \| (.*) \|$", README.read_text(), re.MULTILINE)
    assert found, f"the README has no row {name}"
    return [cell.strip() for cell in found[1].split("|")]


def test_the_row_of_the_made_image_is_the_default_models() -> None:
    made = make_phantom(0)
    row = covseg.load_model().predict(made.unit_pixels).row
    shown = cells("row")
    found = (row.infected_fraction, row.infected_fraction_right, row.infected_fraction_left)
    assert [float(cell) for cell in shown[:3]] == pytest.approx(found, abs=0.03)
    assert (shown[3], shown[5]) == (str(row.extent_0_8), str(row.grade))
    assert shown[7] == ", ".join(row.qc_flags)
    assert [float(cell) for cell in cells("truth")[:3]] == pytest.approx(
        list(made.infected_fractions.values()), abs=0.001
    )


def test_the_resolution_among_the_limits_is_the_default_models() -> None:
    size = open_folder().config.size
    assert f"as {size} x {size} pixels" in README.read_text()
