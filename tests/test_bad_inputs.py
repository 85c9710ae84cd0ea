"""The bad inputs that tests, demo and sites share: each is refused, with the reason that it announces."""

from __future__ import annotations

import cv2
import pytest

from covseg.errors import RadiographRefused, Reason, Status
from covseg.stages.read import read
from covseg.synthetic.bad_inputs import bad_inputs, image

BAD = bad_inputs()
# Given later: by the input filter, the fetch, the model or the worker.
NOT_AT_READ = {
    *(Reason.NOT_FRONTAL_CHEST, Reason.CHECKSUM_MISMATCH, Reason.NONFINITE_LOGITS, Reason.WORKER_KILLED),
    *(Reason.CHANGED, Reason.MISSING, Reason.ACCESS_DENIED),
}


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_with_its_reason(name):
    data, reason = BAD[name]
    with pytest.raises(RadiographRefused) as refused:
        read(data)
    assert refused.value.reason is reason
    assert refused.value.stage == "read"
    assert refused.value.reason.status in (Status.OUT_OF_SCOPE, Status.QUARANTINED)


def test_every_reason_that_reading_can_give_has_an_input():
    assert {reason for _, reason in BAD.values()} == set(Reason) - NOT_AT_READ


def test_they_are_small_and_the_same_at_every_call():
    assert bad_inputs() == BAD
    assert sum(len(data) for data, _ in BAD.values()) < 2**20


def test_the_image_that_they_are_made_of_is_good():
    assert read(cv2.imencode(".png", image())[1].tobytes()).pixels.shape == (96, 96)
