"""Doubt: what raises it, what it never says, and how the input filter's three modes show in a row."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covseg.model_folder.folder import ModelFolder
from covseg.outcome import PreparedImage, Refused, Scored
from covseg.pipeline import Pipeline, resolve
from covseg.records import Entry, Prediction, Radiograph
from covseg.settings.model import Thresholds
from covseg.stages.doubt import EMPTY, REASONS, judge, terms
from covseg.stages.read import read
from covseg.stages.segment import Backend

LIMITS = Thresholds(lung=0.5, infection=0.4, presence=0.6)
NO_INTERVAL = (None, None)


def answer(infection: float, presence: float) -> Prediction:
    """Lungs over the left half, everywhere the same probability of infection."""
    lung = np.zeros((8, 8), np.float32)
    lung[:, :4] = 0.9
    return Prediction(lung, np.full((8, 8), infection, np.float32), presence, np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("infection", "presence", "fraction", "interval", "reason"),
    [
        (0.5, 0.999, 1.0, NO_INTERVAL, "undecided_pixels"),
        (0.99, 0.62, 1.0, NO_INTERVAL, "near_threshold"),
        (0.999, 0.9999, 1.0, (0.1, 1.0), "wide_interval"),
        (0.9, 0.1, 0.0, NO_INTERVAL, "colour_unmarked"),
        (0.01, 0.55, 0.0, NO_INTERVAL, "near_threshold"),
        (0.9, 0.9, None, NO_INTERVAL, "lungs_not_found"),
        (0.001, 0.001, 0.0, NO_INTERVAL, None),
    ],
)
def test_the_largest_part_of_a_doubt_is_named(infection, presence, fraction, interval, reason):
    found = judge(answer(infection, presence), fraction, interval, LIMITS)
    assert found.reason == reason
    assert (found.score == 0) == (reason is None)
    assert (found.score == 1) == (reason == "lungs_not_found")


def test_an_image_that_the_input_filter_would_refuse_has_a_doubt_of_one():
    found = judge(answer(0.001, 0.001), 0.0, NO_INTERVAL, LIMITS, beyond_filter=True)
    assert (found.score, found.reason) == (1.0, "beyond_input_filter")


def test_colour_that_the_image_level_threshold_hides_counts_more_the_nearer_the_presence_is_to_it():
    shares = [terms(answer(0.9, presence), 0.0, NO_INTERVAL, LIMITS)["colour_unmarked"] for presence in (0.0, 0.3, 0.6)]
    assert shares == pytest.approx([0.0, 0.5, 1.0])
    assert terms(answer(0.9, 0.3), 0.2, NO_INTERVAL, LIMITS)["colour_unmarked"] == 0


def test_pixels_outside_the_lung_raise_no_doubt():
    sure = answer(0.001, 0.001)
    unsure_outside = np.where(sure.lung > 0, sure.infection, np.float32(0.5))
    before, after = (judge(one, 0.3, NO_INTERVAL, LIMITS) for one in (sure, replace(sure, infection=unsure_outside)))
    assert before == after


def test_a_model_without_an_image_level_threshold_has_doubt_too():
    found = judge(answer(0.9, 0.2), 0.0, NO_INTERVAL, Thresholds(presence=0.0))
    assert (found.score, found.reason) == (EMPTY["colour_unmarked"], "colour_unmarked")


probabilities = st.floats(0, 1, allow_nan=False)


@given(probabilities, probabilities, st.none() | probabilities, st.none() | st.tuples(probabilities, probabilities))
def test_doubt_lies_between_zero_and_one_and_its_reason_is_of_the_closed_set(infection, presence, fraction, ends):
    interval = NO_INTERVAL if ends is None else (min(ends), max(ends))
    found = judge(answer(infection, presence), fraction, interval, LIMITS)
    assert 0 <= found.score <= 1
    assert found.reason in (*REASONS, None)


def test_an_answer_without_a_lung_pixel_is_weighed_without_a_warning():
    nothing = replace(answer(0.9, 0.5), lung=np.zeros((8, 8), np.float32))
    assert terms(nothing, 0.0, NO_INTERVAL, LIMITS)["colour_unmarked"] == 0


def in_mode(model_folder: ModelFolder, backend: Backend, data_root, mode: str) -> Scored | Refused:
    """A lateral radiograph, which the input filter refuses."""
    pipeline = Pipeline(model_folder.config, resolve(model_folder, backend, 1, mode), key=b"a key for tests")
    radiograph: Radiograph = read((data_root / "gate-negatives" / "lateral" / "000009-5.jpg").read_bytes())
    prepared: PreparedImage = pipeline.prepare(Entry("lateral.jpg", 1, ""), radiograph)
    (result,) = pipeline.score(backend, [prepared])
    return result


def test_a_refusal_says_what_the_image_was_taken_for_and_keeps_it_for_a_picture(model_folder, backend, data_root):
    result = in_mode(model_folder, backend, data_root, "refuse")
    assert isinstance(result, Refused)
    limit = model_folder.config.input_filter.refuse_above
    assert re.match(r"taken for: (other view or body part|rotated image); score [12]\.\d\d, ", result.row.detail)
    assert f"limit {limit:.2f}; the input filter's judgement, which can be wrong" in result.row.detail
    assert result.image.entry.key == "lateral.jpg"
    assert (result.row.input_filter, result.row.doubt) == ("refuse", None)


def test_flag_scores_what_would_be_refused_and_says_so_in_flag_and_doubt(model_folder, backend, data_root):
    result = in_mode(model_folder, backend, data_root, "flag")
    assert isinstance(result, Scored)
    row = result.row
    assert row.gate_score > model_folder.config.input_filter.refuse_above
    assert "out_of_distribution" in row.qc_flags
    assert (row.doubt, row.doubt_reason, row.input_filter) == (1.0, "beyond_input_filter", "flag")


def test_off_asks_nothing(model_folder, backend, data_root):
    result = in_mode(model_folder, backend, data_root, "off")
    assert isinstance(result, Scored)
    assert (result.row.gate_score, result.row.input_filter) == (None, "off")
    assert "out_of_distribution" not in result.row.qc_flags


def test_the_mode_is_part_of_the_digest_and_the_default_leaves_it_as_it_was(model_folder, backend):
    configs = {mode: resolve(model_folder, backend, 1, mode) for mode in ("refuse", "flag", "off")}
    assert len({config.digest for config in configs.values()}) == 3
    assert "input_filter" not in configs["refuse"].model_dump()
    assert configs["flag"].model_dump()["input_filter"] == "flag"
