"""Fractions, zones, scores and flags against counts made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covseg.records import Masks, Radiograph
from covseg.settings.model import FlagLimits
from covseg.stages.severity import QC_FLAGS, UPRIGHT, measure, qc_flags, step


def lungs() -> Masks:
    """Right lung 90 x 20 at the image's left, left lung 60 x 20; no infection."""
    side = np.zeros((100, 100), np.uint8)
    side[5:95, 10:30] = 1
    side[20:80, 60:80] = 2
    return Masks((side > 0).astype(np.uint8), np.zeros_like(side), side, False, 0.0, 0, None)


def infect(masks: Masks, rows: slice, columns: slice) -> Masks:
    infection = masks.infection.copy()
    infection[rows, columns] = 1
    return replace(masks, infection=infection & masks.lung, component_count=1, largest_component_share=1.0)


def radiograph(**facts) -> Radiograph:
    ramp = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (100, 1))
    return replace(Radiograph(ramp, "0", "PA", 0.2, "dicom", UPRIGHT), **facts)


def test_a_fraction_counts_infected_over_lung_pixels_by_patient_side():
    extent = measure(infect(lungs(), slice(5, 50), slice(0, 40)))
    assert extent.fractions["infected_fraction_right"] == 45 * 20 / (90 * 20)
    assert extent.fractions["infected_fraction_left"] == 0
    assert extent.infected_fraction == 900 / 3000
    assert extent.infected_fraction_of_image == 900 / 10_000


def test_zones_are_equal_height_thirds_of_each_lung():
    extent = measure(infect(lungs(), slice(5, 35), slice(0, 40)))
    right = [extent.fractions[f"infected_fraction_right_{level}"] for level in ("upper", "middle", "lower")]
    assert right == [1.0, 0.0, 0.0]
    assert extent.zones_affected_0_6 == 1
    assert extent.zones_extent_0_24 == 4
    assert extent.extent_0_8 == 2


def test_the_scales_reach_their_ends():
    full = measure(replace(lungs(), infection=lungs().lung))
    assert (full.extent_0_8, full.zones_extent_0_24, full.zones_affected_0_6, full.grade) == (8, 24, 6, "critical")
    none = measure(lungs())
    assert (none.extent_0_8, none.zones_extent_0_24, none.zones_affected_0_6, none.grade) == (0, 0, 0, "none")
    assert none.largest_component_share is None


def test_no_lung_is_never_zero_percent():
    empty = np.zeros((50, 50), np.uint8)
    extent = measure(Masks(empty, empty, empty, False, 0.0, 0, None))
    assert all(value is None for value in extent.fractions.values())
    assert extent.infected_fraction_of_image is None
    assert extent.extent_0_8 is extent.zones_extent_0_24 is extent.zones_affected_0_6 is extent.grade is None
    assert "lungs_not_found" in qc_flags(extent, radiograph(), FlagLimits())


def test_one_lung_leaves_the_other_side_null():
    masks = lungs()
    side = np.where(masks.side == 2, 0, masks.side).astype(np.uint8)
    extent = measure(replace(masks, side=side, lung=(side > 0).astype(np.uint8)))
    assert extent.fractions["infected_fraction_left"] is None
    assert extent.fractions["infected_fraction_right"] == 0
    assert "one_lung_only" in qc_flags(extent, radiograph(), FlagLimits())


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0, 0), (1e-9, 1), (0.2499, 1), (0.25, 2), (0.4999, 2), (0.5, 3), (0.75, 3), (0.7501, 4), (1, 4)],
)
def test_the_steps_have_the_published_edges(fraction, expected):
    assert step(fraction) == expected


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_sides_and_zones_add_up_to_the_whole(seed, share):
    masks = lungs()
    infection = (np.random.default_rng(seed).random((100, 100)) < share).astype(np.uint8) & masks.lung
    extent = measure(replace(masks, infection=infection))
    by_side = sum(
        extent.fractions[f"infected_fraction_{side}"] * area
        for side, area in (("right", extent.right_area_px), ("left", extent.left_area_px))
    )
    assert by_side == pytest.approx(extent.infected_area_px)
    assert 0 <= extent.infected_fraction <= 1
    assert extent.lung_area_px == extent.right_area_px + extent.left_area_px == 3000


def test_flags_come_from_the_closed_set_in_its_order():
    masks = replace(lungs(), merged=True, outside_share=0.9)
    flags = qc_flags(
        measure(masks),
        radiograph(kind="png", orientation=None, pixel_spacing_mm=None),
        FlagLimits(),
        ("rotated", "inverted"),
    )
    assert flags == tuple(flag for flag in QC_FLAGS if flag in flags)
    assert set(flags) == {
        "inverted", "rotated", "merged_lungs", "infection_outside_lung", "laterality_unverified", "missing_spacing",
    }  # fmt: skip


def test_a_flat_image_and_a_small_lung_are_flagged():
    flat = radiograph(samples=np.full((100, 100), 0.5, np.float32))
    flags = qc_flags(
        measure(lungs()), flat, FlagLimits(lung_area_fraction=(0.5, 0.6), lung_ratio_right_left=(0.9, 1.1))
    )
    assert flags == ("lung_area_out_of_range", "lung_ratio_out_of_range", "low_contrast")


@pytest.mark.parametrize(
    ("cut", "flagged"), [((0, 0, 0, 0), False), ((0, 0, 10, 0), False), ((5, 0, 10, 0), True), ((5, 5, 10, 20), True)]
)
def test_lungs_that_two_sides_of_the_frame_cut_are_flagged(cut, flagged):
    whole, (top, bottom, left, right) = lungs(), cut
    side = np.ascontiguousarray(whole.side[top : 100 - bottom, left : 100 - right])
    masks = replace(whole, side=side, lung=(side > 0).astype(np.uint8), infection=np.zeros_like(side))
    assert ("lungs_touch_border" in qc_flags(measure(masks), radiograph(), FlagLimits())) is flagged


def test_every_flag_is_explained_in_the_guide():
    guide = (Path(__file__).resolve().parents[1] / "docs" / "guide" / "results.md").read_text()
    assert [flag for flag in QC_FLAGS if f"`{flag}`" not in guide] == []
