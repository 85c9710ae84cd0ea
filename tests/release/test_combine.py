"""Several models as one: the mean of their probabilities, each on its own grid."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from covseg.errors import UsageError
from covseg.model_folder.folder import CONFIG, WEIGHTS, ModelFolder, open_folder
from covseg.model_folder.load import load
from covseg.networks.table import build
from covseg.release.combine import combine
from covseg.settings.model import ModelConfig


def member(folder: Path, size: int, normalisation: Literal["standardise", "unit"], seed: int) -> ModelFolder:
    torch.manual_seed(seed)
    arguments = {"widths": [4, 8], "masks": 2}
    folder.mkdir()
    save_file(build("plain-unet", arguments).state_dict(), folder / WEIGHTS)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    config = ModelConfig(
        id=folder.name, network="plain-unet", network_args=arguments, size=size, normalisation=normalisation,
        weights_sha256=digest, licence="none", citation="none",
    )  # fmt: skip
    (folder / CONFIG).write_text(config.model_dump_json())
    return open_folder(folder)


def probabilities(folder: ModelFolder, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        masks: torch.Tensor = load(folder).forward_with_features(images)[0].sigmoid()
    return masks


def test_a_combined_model_answers_the_mean_of_its_members(tmp_path: Path) -> None:
    one, two = (member(tmp_path / name, 64, "unit", seed) for name, seed in (("one", 1), ("two", 2)))
    combine([one, two], tmp_path / "both", "both")
    images = torch.rand(2, 1, 64, 64)
    mean = (probabilities(one, images) + probabilities(two, images)) / 2
    assert torch.allclose(probabilities(open_folder(tmp_path / "both"), images), mean, atol=1e-5)


def test_members_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, two = member(tmp_path / "same", 64, "unit", 1), member(tmp_path / "other" / "same", 64, "unit", 2)
    told = combine([one, two], tmp_path / "both", "both").training["members"]
    assert [each["weights_sha256"] for each in told] == [one.config.weights_sha256, two.config.weights_sha256]


def test_every_member_sees_its_own_grid_and_grey_values(tmp_path: Path) -> None:
    coarse, fine = member(tmp_path / "coarse", 32, "standardise", 1), member(tmp_path / "fine", 64, "unit", 2)
    config = combine([coarse, fine], tmp_path / "both", "both")
    assert (config.size, config.normalisation) == (64, "unit")
    images = torch.rand(1, 1, 64, 64)
    standard = (images - images.mean()) / images.std(correction=0)
    small = interpolate(standard, size=(32, 32), mode="bilinear", antialias=True)
    grown = interpolate(probabilities(coarse, small), size=(64, 64), mode="bilinear")
    mean = (grown + probabilities(fine, images)) / 2
    assert torch.allclose(probabilities(open_folder(tmp_path / "both"), images), mean, atol=1e-4)


def test_combining_nothing_or_into_a_full_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        combine([], tmp_path / "new", "x")
    one = member(tmp_path / "one", 32, "unit", 1)
    with pytest.raises(UsageError, match="not empty"):
        combine([one], tmp_path / "one", "x")
