"""The content of ``calibration.json``, which also stands in the model's ``covseg.json``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from covseg.metrics.intervals import Difference, Estimate
from covseg.records import RESEARCH_ONLY
from covseg.settings.model import Thresholds


class CalibrationRecord(BaseModel):
    """The choice, its estimate and how it was made; the parts are those of `covseg.calibration.fit.Fit`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    intended_use: str = RESEARCH_ONLY
    objective: str
    split: str
    digest: str
    counts: dict[str, int]
    left_out: int
    refused: int
    estimate: str
    presence_scale: str = "the image-level threshold is on the tempered probability"
    before: Thresholds
    chosen: Thresholds
    dice: Estimate
    specificity: Estimate
    crossfit_dice: Estimate
    crossfit_specificity: Estimate
    gain: Difference
    specificity_gain: Difference
    reliability: dict[str, float]
