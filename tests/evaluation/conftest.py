"""Fixtures of the evaluation's tests.

Index
-----
made_set      a made data set in the Kaggle layout: Train 12 and Val 16 images of 96 x 96
set_without_lungs  its Val with infection masks alone
model_copy    a copy of the default model's folder that a test may change, on a 96-pixel grid
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from covseg.model_folder.folder import ModelFolder
from covseg.synthetic.phantom.writer import write_dataset


@pytest.fixture(scope="session")
def made_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    write_dataset(root, {"Train": 12, "Val": 16}, size=96)
    return root


@pytest.fixture
def model_copy(tmp_path: Path, model_folder: ModelFolder) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(model_folder.path, folder)
    config = json.loads((folder / "covseg.json").read_text())
    config |= {"size": 96, "gate": None}  # the input filter was fitted on another grid and would refuse every image
    config.pop("intervals", None)  # they are of its thresholds on Val
    (folder / "covseg.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def set_without_lungs(made_set: Path, tmp_path: Path) -> Path:
    """The Val images of the made set with infection masks alone, listed in labels.csv."""
    bare, lines = tmp_path / "bare", ["film,stratum,split"]
    for image in sorted((made_set / "Val").glob("*/images/*")):
        for part, target in (("images", "images"), ("infection masks", "masks")):
            (bare / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(image.parents[1] / part / image.name, bare / target)
        lines.append(f"{image.name},{image.parents[1].name},Val")
    (bare / "labels.csv").write_text("\n".join(lines))
    return bare
