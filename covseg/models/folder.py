"""A model folder: ``weights.safetensors`` and ``covseg.json``, checked before anything runs.

In: a reference (``default``, or a path). Out: a `ModelFolder`, the typed content of its JSON and
the path of weights whose digest matches. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from covseg.errors import ModelRefused

DEFAULT = Path(__file__).parent / "default"
WEIGHTS, CARD = "weights.safetensors", "covseg.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
    """Limits of the QC flags; quantiles of Val unless the comment says otherwise."""

    lung_area_fraction: tuple[float, float] = (0.08, 0.6)
    lung_ratio_right_left: tuple[float, float] = (0.5, 2.0)
    one_lung_share: float = 0.05
    infection_outside_lung: float = 0.2
    contrast: float = 0.08
    out_of_distribution: float = float("inf")


class GateLimits(_Frozen):
    """Parameters of the frontal-chest gate; see ``covseg/gate.py``."""

    arrays: str | None = Field(None, description="safetensors file of the gate, beside the weights")
    refuse_above: float = float("inf")


class ModelCard(_Frozen):
    """The content of ``covseg.json``."""

    id: str
    network: str
    network_args: dict[str, Any] = {}
    size: int = Field(gt=0, description="side of the square model grid, pixels")
    normalisation: str = "standardise"
    labels: tuple[str, ...] = ("lung", "infection")
    thresholds: Thresholds = Thresholds()
    flags: FlagLimits = FlagLimits()
    gate: GateLimits = GateLimits()
    presence_source: str = "image-level head, sigmoid"
    weights_sha256: str
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    licence: str
    citation: str
    intended_use: str = "Research use only, not for diagnosis."


class ModelFolder(_Frozen):
    """A checked model folder."""

    path: Path
    card: ModelCard

    @property
    def weights(self) -> Path:
        """Path of the safetensors file."""
        return self.path / WEIGHTS


def open_folder(ref: str | Path = "default") -> ModelFolder:
    """Find a model folder and check that its weights are the ones its JSON names.

    Parameters
    ----------
    ref : str or Path
        ``default`` or the path of a model folder.

    Raises
    ------
    ModelRefused
        When a file is missing, the JSON has unknown or wrong fields, or the digest differs.
    """
    path = DEFAULT if str(ref) == "default" else Path(ref)
    for name in (CARD, WEIGHTS):
        if not (path / name).is_file():
            raise ModelRefused(
                f"no {name} in model folder {path}: wanted 'default' or a folder with {CARD} and {WEIGHTS}"
            )
    try:
        card = ModelCard.model_validate_json((path / CARD).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelRefused(f"{path / CARD}: {where}: {first['msg']}; mend the file or pull the model again") from error
    found = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    if found != card.weights_sha256:
        raise ModelRefused(
            f"{path / WEIGHTS} has sha256 {found[:16]}..., {CARD} names {card.weights_sha256[:16]}...: "
            "the weights were changed or cut short; pull the model again"
        )
    return ModelFolder(path=path, card=card)
