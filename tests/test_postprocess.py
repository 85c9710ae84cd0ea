"""Clean masks: holes, specks, right and left, merged lungs, thresholds."""

import numpy as np

from covseg.records import Prediction
from covseg.settings.model import Thresholds
from covseg.stages.postprocess import clean_lung, postprocess

SIZE = 128


def two_lungs() -> np.ndarray:
    lung = np.zeros((SIZE, SIZE), np.uint8)
    lung[20:100, 15:55] = 1
    lung[20:90, 75:110] = 1
    return lung


def answer(lung: np.ndarray, infection: np.ndarray, presence: float = 0.9) -> Prediction:
    return Prediction(lung.astype(np.float32), infection.astype(np.float32), presence, np.zeros(4, np.float32))


def test_the_patients_right_lung_is_on_image_left():
    _, side, merged = clean_lung(two_lungs())
    assert not merged
    assert set(np.unique(side[:, :60])) == {0, 1}
    assert set(np.unique(side[:, 60:])) == {0, 2}


def test_the_mirror_image_swaps_the_areas_of_the_sides():
    _, side, _ = clean_lung(two_lungs())
    _, mirrored, _ = clean_lung(np.ascontiguousarray(two_lungs()[:, ::-1]))
    assert (side == 1).sum() == (mirrored == 2).sum() == 80 * 40


def test_holes_are_filled_and_specks_dropped():
    raw = two_lungs()
    raw[50:60, 30:40] = 0
    raw[2:5, 2:5] = 1
    lung, _, _ = clean_lung(raw)
    assert np.array_equal(lung, two_lungs())


def test_a_hole_that_reaches_the_border_is_background():
    raw = np.zeros((SIZE, SIZE), np.uint8)
    raw[:, 10:50] = 1
    raw[40:60, 20:30] = 0
    raw[40:60, 0:20] = 0
    lung, _, _ = clean_lung(raw)
    assert not lung[45, 25]


def test_lungs_that_touch_are_split_at_their_midline():
    raw = two_lungs()
    raw[50:60, 50:80] = 1
    _, side, merged = clean_lung(raw)
    assert merged
    assert (side == 1).any()
    assert (side == 2).any()
    assert abs(int((side == 1).sum()) - 80 * 40) < 300


def test_one_narrow_part_is_one_lung_on_its_side_of_the_image():
    raw = two_lungs()
    raw[:, :60] = 0
    _, side, merged = clean_lung(raw)
    assert not merged
    assert set(np.unique(side)) == {0, 2}


def test_no_lung_gives_empty_masks():
    masks = postprocess(answer(np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE))), Thresholds())
    assert not masks.lung.any()
    assert not masks.infection.any()
    assert masks.outside_share == 1.0


def test_infection_outside_the_lung_is_clipped_and_its_share_reported():
    infection = np.zeros((SIZE, SIZE))
    infection[20:40, 15:35] = 1
    infection[105:125, 15:35] = 1
    masks = postprocess(answer(two_lungs(), infection), Thresholds())
    assert masks.infection.sum() == 400
    assert masks.outside_share == 0.5
    assert masks.component_count == 1
    assert masks.largest_component_share == 1.0


def test_the_presence_threshold_empties_the_infection():
    infection = two_lungs() * 0.9
    assert postprocess(answer(two_lungs(), infection, 0.2), Thresholds(presence=0.3)).infection.sum() == 0
    assert postprocess(answer(two_lungs(), infection, 0.4), Thresholds(presence=0.3)).infection.sum() > 0


def test_small_parts_and_small_masks_are_dropped():
    infection = np.zeros((SIZE, SIZE))
    infection[30:34, 20:24] = 1
    infection[60:80, 20:40] = 1
    parts = postprocess(answer(two_lungs(), infection), Thresholds(min_component_share=20 / SIZE**2))
    assert parts.infection.sum() == 400
    whole = postprocess(answer(two_lungs(), infection), Thresholds(min_infection_share=500 / SIZE**2))
    assert whole.infection.sum() == 0


def test_the_label_map_says_0_1_2():
    infection = np.zeros((SIZE, SIZE))
    infection[30:40, 20:30] = 1
    label_map = postprocess(answer(two_lungs(), infection), Thresholds()).label_map
    assert label_map.dtype == np.uint8
    assert label_map[0, 0] == 0
    assert label_map[90, 20] == 1
    assert label_map[35, 25] == 2
