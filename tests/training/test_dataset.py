"""Labelled sets in memory: any site's images, read as scoring reads them, and nothing left out in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("albumentations", reason="the train extra is not installed")

from covseg.errors import UsageError
from covseg.stages.read import read
from covseg.synthetic.phantom import make_phantom
from covseg.training import run_folder
from covseg.training.dataset import load_split
from covseg.training.job import TrainingJob
from covseg.training.recipe import load_recipe
from covseg.training.train import train
from tests.dicom_images import dataset, written

SIZES = [(96, 96), (128, 96), (640, 700)]


@pytest.fixture
def own_set(tmp_path: Path) -> Path:
    """A site's own set: images of several sizes, 12 bits, strata of its own, no lung masks."""
    root = tmp_path / "own"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rows = ["film,stratum,split"]
    for split in ("Train", "Val"):
        for number, (height, width) in enumerate(SIZES * 2):
            image, name = make_phantom(number, height, width), f"{split}-{number}.png"
            mask = image.infection_mask if number % 2 else np.zeros_like(image.infection_mask)
            cv2.imwrite(str(root / "images" / name), image.pixels)  # 12 bits in 16
            cv2.imwrite(str(root / "masks" / name), mask * 255)
            rows.append(f"{name},{'Pneumonia' if number % 2 else 'No finding'},{split}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def test_images_of_a_site_are_read_as_scoring_reads_them(own_set: Path) -> None:
    images = load_split(own_set, "Train", targets=("infection",), side=128)
    assert images.images.shape == images.infections.shape == (6, 128, 128), "several sizes: squares"
    assert set(np.unique(images.infections)) == {0, 255} and not images.lungs.any()
    assert images.known == ("No finding", "Pneumonia") and images.source == "own set"
    whole = read((own_set / "images" / images.names[0]).read_bytes()).pixels
    assert len(np.unique(images.images[0])) > 100, "12 bits keep their greys"
    assert abs(float(images.images[0].mean()) / 255 - float(whole.mean())) < 0.01


def test_a_sites_own_strata_get_their_own_columns(own_set: Path, tmp_path: Path) -> None:
    tiny = ("network.widths=[4, 8]", "input.size=64", "batch=2", "stop.epochs=1")
    with pytest.raises(UsageError, match=r"'val_covid_dice' is not measured.*val_no_finding_dice, val_pneumonia_dice"):
        train(load_recipe("unet-small", tiny), TrainingJob(own_set, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    train(load_recipe("unet-small", [*tiny, "stop.metric=val_pneumonia_dice"]), TrainingJob(own_set, tmp_path / "run"))
    row = run_folder.read_rows(tmp_path / "run")[0]
    assert {"val_no_finding_dice", "val_pneumonia_dice", "val_negative_specificity"} <= set(row)


def test_lungs_are_wanted_where_they_are_learnt(own_set: Path) -> None:
    with pytest.raises(UsageError, match=r"has no lung mask, and the recipe's data.targets want one"):
        load_split(own_set, "Train")


def test_a_lung_recipe_reads_a_set_of_lung_masks_only(made_set: Path, tmp_path: Path) -> None:
    shutil.copytree(made_set, tmp_path / "lungs")
    for folder in (tmp_path / "lungs").glob("*/*/infection masks"):
        shutil.rmtree(folder)
    with pytest.raises(UsageError, match="no folder infection masks"):
        load_split(tmp_path / "lungs", "Train")
    images = load_split(tmp_path / "lungs", "Train", targets=("lung",))
    assert images.lungs.any(axis=(1, 2)).all() and not images.infections.any()


def test_a_limit_is_what_it_says(made_set: Path) -> None:
    assert len(load_split(made_set, "Train", 6).names) == 6
    few = load_split(made_set, "Train", 4, ("COVID-19",))
    assert len(few.names) == 4 and {few.known[place] for place in few.strata} == {"COVID-19"}


def test_dicom_images_can_be_learnt_from(own_set: Path) -> None:
    image = make_phantom(0, 96, 96)
    (own_set / "images" / "Train-0.png").unlink()
    (own_set / "images" / "Train-0.dcm").write_bytes(written(dataset(image.pixels, 12)))
    labels = (own_set / "labels.csv").read_text().replace("Train-0.png", "Train-0.dcm")
    (own_set / "labels.csv").write_text(labels)
    assert "Train-0.dcm" in load_split(own_set, "Train", targets=("infection",)).names


def test_an_image_that_cannot_be_read_is_named(own_set: Path) -> None:
    (own_set / "images" / "Train-0.png").write_bytes(b"no film")
    with pytest.raises(UsageError, match=r"Train-0.png: .*mend the set before training"):
        load_split(own_set, "Train", targets=("infection",))
