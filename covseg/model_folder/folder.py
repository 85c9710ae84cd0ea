"""A model folder: ``weights.safetensors`` and ``covseg.json``, checked before anything runs.

In: the name of a shipped model, or a path. Out: a `ModelFolder`, the typed content of its JSON and the path of
weights whose digest matches. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from covseg.errors import ModelRefused
from covseg.settings.model import GATE, WANTED, GateLimits, ModelCard
from covseg.storage import LocalStore

SHIPPED = {name: Path(__file__).parents[1] / "models" / name for name in ("default", "accurate")}
DEFAULT = SHIPPED["default"]
WEIGHTS, CARD = "weights.safetensors", "covseg.json"


class ModelFolder(BaseModel):
    """A checked model folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        ``default`` or ``accurate``, or the path of a model folder.
    gate : bool
        False leaves the gate unread and off the card, for whoever fits another one.

    Raises
    ------
    ModelRefused
        When a file is missing, the JSON has unknown or wrong fields, or a digest differs.
    """
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
