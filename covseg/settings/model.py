"""The content of ``covseg.json``: which network, on which grid, with which thresholds and limits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from covseg.records import RESEARCH_ONLY

FILTER_ARRAYS = "gate.safetensors"
WANTED = "'default', 'benchmark', a model folder, or [REGISTRY/]NAME@TAG with a tag v1, v2 ..., candidate or champion"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Thresholds(_Frozen):
    """Where probabilities become masks; chosen on Val."""

    lung: float = Field(0.5, gt=0, lt=1)
    infection: float = Field(0.5, gt=0, lt=1)
    presence: float = Field(0.0, ge=0, le=1, description="below it the infection mask is emptied")
    presence_temperature: float = Field(
        1.0, gt=0, description="the logit of the image-level probability is divided by it, before everything else"
    )
    min_infection_share: float = Field(
        0.0, ge=0, le=1, description="of the model grid; a smaller infection mask is emptied"
    )
    min_component_share: float = Field(0.0, ge=0, le=1, description="of the model grid; smaller parts are dropped")


class FlagLimits(_Frozen):
    """Limits of the QC flags; a released model's are the .005 and .995 quantiles of its Val images.

    `one_lung_share` and `contrast` are set by hand, and `infection_outside_lung` is no lower than .01. Those from
    `lung_on_frame` on are of the acquisition, the same for every model: ``infra/decisions/quality-flags.md``.
    """

    lung_area_fraction: tuple[float, float] = (0.08, 0.6)
    lung_ratio_right_left: tuple[float, float] = (0.5, 2.0)
    one_lung_share: float = 0.05
    infection_outside_lung: float = 0.2
    contrast: float = 0.08
    lung_on_frame: float = Field(0.02, description="of a side of the frame; two sides with more lung on them cut it")
    shorter_side: int = Field(240, description="pixels of the source; training images have 256")
    detail_db: float = Field(-30.0, description="see ImageQuality in covseg/stages/image_quality.py, as all below")
    sharpness_db: tuple[float, float] = (-18.0, -10.5)
    direction_db: float = 8.0
    contrast_db: float = -43.0
    blockiness: float = 1.3
    grey_levels: int = 64
    border_share: float = Field(0.1, description="of a side; what training draws at most")
    letters: int = Field(3, description="in a row")


class InputFilterLimits(_Frozen):
    """Parameters of the input filter; see ``covseg/stages/input_filter.py``. Quantiles of Val."""

    arrays_sha256: str = Field(description=f"of {FILTER_ARRAYS}, beside the weights")
    weights_sha256: str = Field(
        description="of the weights that the input filter was fitted to; others need another fit"
    )
    refuse_above: float = Field(description="an image with a higher score is refused")
    flag_above: float = Field(description="an image with a higher score is flagged out_of_distribution")
    _numbers: dict[str, NDArray[np.float32]] = PrivateAttr(default_factory=dict)

    @property
    def numbers(self) -> dict[str, NDArray[np.float32]]:
        """The arrays, once `open_model` has read them; they travel with a pickled card."""
        return self._numbers

    def __eq__(self, other: object) -> bool:
        """Compare fields only: the digest stands for the arrays."""
        return isinstance(other, InputFilterLimits) and self.model_dump() == other.model_dump()


class FractionIntervals(_Frozen):
    """What an interval adds to the infected fraction, per bin: conformal quantiles of truth - prediction on Val.

    The bins: an empty mask, an empty mask of doubtful presence, then marked masks between the edges, in rising order.
    """

    level: float = Field(gt=0, lt=1, description="share of images like those of Val whose interval holds the truth")
    doubtful_presence: float = Field(ge=0, le=1, description="an empty mask is doubtful from this presence on")
    edges: tuple[float, ...] = Field(description="of the bins of marked masks, rising; a bin holds its lower edge")
    low: tuple[float, ...] = Field(description="added to the fraction for the lower end; at most 0")
    high: tuple[float, ...] = Field(description="added to the fraction for the upper end; at least 0")
    n: tuple[int, ...] = Field(description="images behind each bin")

    @property
    def bins(self) -> list[str]:
        """What each bin holds, in words."""
        presence, edges = f"{self.doubtful_presence:.3g}", [0, *self.edges, 1]
        empty = [f"nothing marked, presence {words} {presence}" for words in ("under", "from")]
        return [*empty, *(f"marked, {low:g} to {high:g} of the lung" for low, high in pairwise(edges))]

    @model_validator(mode="after")
    def _one_of_each_a_bin(self) -> Self:
        bins, found = len(self.edges) + 3, {len(self.low), len(self.high), len(self.n)}
        if found != {bins}:
            raise ValueError(f"low, high and n have {sorted(found)} entries, wanted {bins}, one a bin")
        if list(self.edges) != sorted(self.edges) or max(self.low) > 0 or min(self.high) < 0:
            raise ValueError("wanted rising edges, low at most 0 and high at least 0")
        return self


class ModelConfig(_Frozen):
    """The content of ``covseg.json``."""

    id: str
    network: str
    network_args: dict[str, Any] = {}
    size: int = Field(gt=0, description="side of the square model grid, pixels")
    normalisation: Literal["standardise", "unit"] = Field("standardise", description="see covseg/stages/preprocess.py")
    source_side: int | None = Field(
        None, gt=0, description="side of the square images that it learnt from; others are brought there first"
    )
    labels: tuple[str, ...] = ("lung", "infection")
    thresholds: Thresholds = Thresholds()
    flags: FlagLimits = FlagLimits()
    input_filter: InputFilterLimits | None = Field(
        None, alias="gate", description="None lets every image pass, without a score"
    )
    intervals: FractionIntervals | None = Field(
        None,
        exclude_if=lambda intervals: intervals is None,
        description="None leaves fraction_low and fraction_high null",
    )
    presence_source: str = "image-level head, sigmoid"
    weights_sha256: str
    graph_sha256: str | None = Field(None, description="of graph.onnx, beside the weights; None where there is none")
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    licence: str
    citation: str
    intended_use: str = RESEARCH_ONLY
