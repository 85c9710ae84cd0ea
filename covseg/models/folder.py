"""A model folder: ``weights.safetensors`` and ``covseg.json``, checked before anything runs.

In: a reference (``default``, a path, or a model in a registry, which is pulled into the cache first).
Out: a `ModelFolder`, the typed content of its JSON and the path of weights whose digest matches. Nothing
is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from covseg.errors import ModelRefused
from covseg.models.references import WANTED, is_reference
from covseg.records import RESEARCH_ONLY
from covseg.storage import LocalStore

SHIPPED = {name: Path(__file__).parent / name for name in ("default", "accurate")}
DEFAULT = SHIPPED["default"]
WEIGHTS, CARD, GATE = "weights.safetensors", "covseg.json", "gate.safetensors"


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
    """Limits of the QC flags; a released model's are the .005 and .995 quantiles of its Val films.

    `one_lung_share` and `contrast` are set by hand, and `infection_outside_lung` is no lower than .01.
    """

    lung_area_fraction: tuple[float, float] = (0.08, 0.6)
    lung_ratio_right_left: tuple[float, float] = (0.5, 2.0)
    one_lung_share: float = 0.05
    infection_outside_lung: float = 0.2
    contrast: float = 0.08


class GateLimits(_Frozen):
    """Parameters of the frontal-chest gate; see ``covseg/gate.py``. Quantiles of Val."""

    arrays_sha256: str = Field(description=f"of {GATE}, beside the weights")
    weights_sha256: str = Field(description="of the weights that the gate was fitted to; others need another fit")
    refuse_above: float = Field(description="a film with a higher score is refused")
    flag_above: float = Field(description="a film with a higher score is flagged out_of_distribution")
    _numbers: dict[str, NDArray[np.float32]] = PrivateAttr(default_factory=dict)

    @property
    def numbers(self) -> dict[str, NDArray[np.float32]]:
        """The arrays, once `open_folder` has read them; they travel with a pickled card."""
        return self._numbers

    def __eq__(self, other: object) -> bool:
        """Compare fields only: the digest stands for the arrays."""
        return isinstance(other, GateLimits) and self.model_dump() == other.model_dump()


class ModelCard(_Frozen):
    """The content of ``covseg.json``."""

    id: str
    network: str
    network_args: dict[str, Any] = {}
    size: int = Field(gt=0, description="side of the square model grid, pixels")
    normalisation: Literal["standardise", "unit"] = Field("standardise", description="see covseg/preprocess.py")
    labels: tuple[str, ...] = ("lung", "infection")
    thresholds: Thresholds = Thresholds()
    flags: FlagLimits = FlagLimits()
    gate: GateLimits | None = Field(None, description="None lets every film pass, without a score")
    presence_source: str = "image-level head, sigmoid"
    weights_sha256: str
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    licence: str
    citation: str
    intended_use: str = RESEARCH_ONLY


class ModelFolder(_Frozen):
    """A checked model folder."""

    path: Path
    card: ModelCard
    reference: str | None = Field(None, description="the version in a registry that this is a cached copy of")

    @property
    def weights(self) -> Path:
        """Path of the safetensors file."""
        return self.path / WEIGHTS


def open_folder(ref: str | Path = "default", *, gate: bool = True) -> ModelFolder:
    """Find a model folder and check that its weights are the ones its JSON names.

    Parameters
    ----------
    ref : str or Path
        ``default`` or ``accurate``, the path of a model folder, or ``[REGISTRY/]NAME@TAG`` (see
        `covseg.models.registry`).
    gate : bool
        False leaves the gate unread and off the card, for whoever fits another one.

    Raises
    ------
    ModelRefused
        When a file is missing, the JSON has unknown or wrong fields, or a digest differs.
    """
    if isinstance(ref, str) and is_reference(ref):
        from covseg.models.registry import pull

        folder, reference = pull(ref)
        return open_folder(folder).model_copy(update={"reference": reference})
    path = SHIPPED.get(str(ref)) or Path(ref)
    for name in (CARD, WEIGHTS):
        if not (path / name).is_file():
            raise ModelRefused(
                f"no {name} in model folder {path}, wanted {CARD} and {WEIGHTS} there; a model is {WANTED}"
            )
    try:
        card = ModelCard.model_validate_json((path / CARD).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelRefused(f"{path / CARD}: {where}: {first['msg']}; mend the file or pull the model again") from error
    _checked(path, WEIGHTS, card.weights_sha256)
    if not gate:
        card = card.model_copy(update={"gate": None})
    elif card.gate is not None:
        _fill_gate(path, card, card.gate)
    return ModelFolder(path=path, card=card)


def amend_card(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON of a folder's card in place; what `change` leaves alone stays as it is."""
    card = json.loads((path / CARD).read_bytes())
    change(card)
    LocalStore(path).write(CARD, (json.dumps(card, indent=1) + "\n").encode())


def _checked(path: Path, name: str, wanted: str) -> bytes:
    """Read a file of the folder whose digest must be the one that the card names."""
    if not (path / name).is_file():
        raise ModelRefused(f"no {name} in model folder {path}, though its {CARD} names one; pull the model again")
    data = (path / name).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise ModelRefused(
            f"{path / name} has sha256 {found[:16]}..., {CARD} names {wanted[:16]}...: "
            "the file was changed or cut short; pull the model again"
        )
    return data


def _fill_gate(path: Path, card: ModelCard, limits: GateLimits) -> None:
    """Read the gate's arrays into the card's limits."""
    if limits.weights_sha256 != card.weights_sha256:
        raise ModelRefused(
            f"the gate in {path / CARD} was fitted to weights {limits.weights_sha256[:16]}..., the model has "
            f"{card.weights_sha256[:16]}...; fit it again: covseg models gate {path} --data ROOT"
        )
    try:
        limits.numbers.update(load(_checked(path, GATE, limits.arrays_sha256)))
    except SafetensorError as error:
        raise ModelRefused(f"{path / GATE} cannot be read: {error}; fit the gate again") from error
