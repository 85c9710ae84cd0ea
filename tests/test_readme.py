"""What the README shows is what this version does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import covseg
from covseg.model_folder.folder import open_folder
from covseg.samples import samples

README = Path(__file__).resolve().parents[1] / "README.md"


def cells(name: str) -> list[float]:
    found = re.search(rf"^\| {name} \| (.*) \|$", README.read_text(), re.MULTILINE)
    assert found, f"the README has no row {name}"
    return [float(cell) for cell in found[1].split("|")]


def test_the_fractions_under_the_picture_are_the_default_models() -> None:
    model = covseg.load_model()
    found = [model.predict(sample.path).row.infected_fraction for sample in samples()]
    assert cells("marked") == pytest.approx(found, abs=0.01)
    assert cells("truth") == pytest.approx([sample.infected_fraction for sample in samples()], abs=0.001)


def test_the_resolution_among_the_limits_is_the_default_models() -> None:
    size = open_folder().config.size
    assert f"as {size} x {size} pixels" in README.read_text()
