"""The number that shifted images of Val take part in: known answers, and which images they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("albumentations", reason="the train extra is not installed")

from covseg.data.images import STRATA
from covseg.synthetic.phantom.writer import write_dataset
from covseg.synthetic.shifts import SHIFTS
from covseg.training.batches import Samples
from covseg.training.dataset import load_split
from covseg.training.job import TrainingJob
from covseg.training.recipe import load_recipe
from covseg.training.run_folder import read_rows
from covseg.training.shifted import CHOSEN_BY, EVERY, shifted_sets
from covseg.training.train import train
from covseg.training.validate import ROBUST, robust_dice
from tests.training.test_validate import FALSE, HIT, rows

TINY = ["network.widths=[4, 8]", "input.size=64", "stop.epochs=1", "batch=4"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_dataset(root, {"Train": 12, "Val": 24}, size=64)
    return root


def test_it_is_the_mean_of_val_and_of_the_mean_of_the_shifts_at_the_higher_threshold() -> None:
    plain = rows((2, 1, FALSE, 1.0), (0, 4, HIT, 2.0))  # threshold 1: all four are called, Dice 1
    fallen = rows((2, 1, FALSE, -3.0), (0, 1, HIT, 2.0), (0, 1, HIT, 0.5))  # its own threshold would call both
    false = rows((2, 1, FALSE, 3.0), (0, 2, HIT, 2.0))  # the shift calls a clean image: the threshold rises to 3
    same = rows((2, 1, FALSE, 1.0), (0, 2, HIT, 2.0))
    for shifted, wanted in (([same], 1.0), ([fallen], 0.75), ([false], 0.5), ([same, fallen, false], 0.75)):
        assert robust_dice(plain, shifted, ("infection",), STRATA) == pytest.approx(wanted)
    assert np.isnan(robust_dice(rows((0, 4, HIT, 2.0)), [same], ("infection",), STRATA)), "no negative, no threshold"


def test_a_third_of_each_stratum_is_shifted_the_same_way_every_time_and_the_truth_stays(labelled: Path) -> None:
    images = load_split(labelled, "Val")
    samples = Samples(images, load_recipe("unet-small", TINY))
    sets, again = shifted_sets(samples), shifted_sets(samples)
    assert len(sets) == len(CHOSEN_BY)
    rows = [row for stratum in np.unique(images.strata) for row in np.flatnonzero(images.strata == stratum)[::EVERY]]
    for one, other in zip(sets, again, strict=True):
        assert one.images.names == [images.names[row] for row in sorted(rows)]
        assert (one.images.infections == images.infections[sorted(rows)]).all()
        assert (one.images.images == other.images.images).all() and one.images.images.dtype == np.uint8
        assert (one.images.images != images.images[sorted(rows)]).any(axis=(1, 2)).all()


def test_what_selects_leaves_shifts_that_nothing_was_selected_or_trained_on() -> None:
    assert all(SHIFTS[name].seen and SHIFTS[name].mask is None for name in CHOSEN_BY)


def test_a_training_that_is_judged_by_it_has_it_in_every_row(labelled: Path, tmp_path: Path) -> None:
    for metric, has in ((ROBUST, True), ("val_operating_dice", False)):
        recipe = load_recipe("unet-small", [*TINY, f"stop.metric={metric}"])
        train(recipe, TrainingJob(labelled, tmp_path / metric))
        [row] = read_rows(tmp_path / metric)
        assert (ROBUST in row) == has
    assert 0 <= read_rows(tmp_path / ROBUST)[0][ROBUST] <= 1
