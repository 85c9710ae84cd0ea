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
from covseg.settings.faults import first_fault
from covseg.settings.model import FILTER_ARRAYS, WANTED, InputFilterLimits, ModelConfig
from covseg.storage import LocalStore

SHIPPED = {name: Path(__file__).parents[1] / "models" / name for name in ("default", "benchmark")}
WEIGHTS, GRAPH, CONFIG = "weights.safetensors", "graph.onnx", "covseg.json"


class ModelFolder(BaseModel):
    """A checked model folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    config: ModelConfig
    reference: str | None = Field(None, description="the version in a registry that this is a cached copy of")

    @property
    def weights(self) -> Path:
        """Path of the safetensors file."""
        return self.path / WEIGHTS


def open_folder(ref: str | Path = "default", *, input_filter: bool = True) -> ModelFolder:
    """Find a model folder and check that its weights are the ones its JSON names.

    Parameters
    ----------
    ref : str or Path
        ``default`` or ``benchmark``, or the path of a model folder.
    input_filter : bool
        False leaves the input filter unread and off the card, for whoever fits another one.

    Raises
    ------
    ModelRefused
        When a file is missing, the JSON has unknown or wrong fields, or a digest differs.
    """
    path = SHIPPED.get(str(ref)) or Path(ref)
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise ModelRefused(
                f"no {name} in model folder {path}, wanted {CONFIG} and {WEIGHTS} there; a model is {WANTED}"
            )
    try:
        config = ModelConfig.model_validate_json((path / CONFIG).read_bytes())
    except ValidationError as error:
        raise ModelRefused(f"{path / CONFIG}: {first_fault(error)}; mend the file or pull the model again") from error
    _checked(path, WEIGHTS, config.weights_sha256)
    if config.graph_sha256 is not None:
        _checked(path, GRAPH, config.graph_sha256)
    if not input_filter:
        config = config.model_copy(update={"input_filter": None})
    elif config.input_filter is not None:
        _read_filter_arrays(path, config, config.input_filter)
    return ModelFolder(path=path, config=config)


def amend_config(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON of a folder's card in place; what `change` leaves alone stays as it is."""
    config = json.loads((path / CONFIG).read_bytes())
    change(config)
    LocalStore(path).write(CONFIG, (json.dumps(config, indent=1) + "\n").encode())


def _checked(path: Path, name: str, wanted: str) -> bytes:
    """Read a file of the folder whose digest must be the one that the card names."""
    if not (path / name).is_file():
        raise ModelRefused(f"no {name} in model folder {path}, though its {CONFIG} names one; pull the model again")
    data = (path / name).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise ModelRefused(
            f"{path / name} has sha256 {found[:16]}..., {CONFIG} names {wanted[:16]}...: "
            "the file was changed or cut short; pull the model again"
        )
    return data


def _read_filter_arrays(path: Path, config: ModelConfig, limits: InputFilterLimits) -> None:
    """Read the input filter's arrays into the card's limits."""
    if limits.weights_sha256 != config.weights_sha256:
        raise ModelRefused(
            f"the input filter in {path / CONFIG} was fitted to weights {limits.weights_sha256[:16]}..., the model has "
            f"{config.weights_sha256[:16]}...; fit it again: covseg models fit-filter {path} --data ROOT"
        )
    try:
        limits.numbers.update(load(_checked(path, FILTER_ARRAYS, limits.arrays_sha256)))
    except SafetensorError as error:
        raise ModelRefused(f"{path / FILTER_ARRAYS} cannot be read: {error}; fit the input filter again") from error
