"""One frozen, documented tree of everything that decides what a training run learns.

In: a TOML file of `covseg/recipes` (or of your own) and ``a.b=c`` settings. Out: a `Recipe`. An unknown
key is an error that names it. What an author did not give is listed in `Recipe.ours`.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from covseg.errors import UsageError
from covseg.networks.table import NETWORKS, NetworkEntry, trained, unknown
from covseg.settings.faults import first_fault, meant
from covseg.training.augment_config import AugmentConfig, Frozen
from covseg.training.loss_table import LossConfig

FOLDER = Path(__file__).parents[1] / "recipes"
Target = Literal["lung", "infection"]


class NetworkConfig(Frozen):
    """Which network, and what its encoder starts from."""

    kind: str = Field(description="Name of the network, see covseg/networks/table.py.")
    encoder: str = Field("", description="Name of the encoder in the network's library; empty for our own networks.")
    weights: str = Field(
        "none", description="'imagenet' (hub), 'none', or a path or URL of an encoder's state dict, or a run's."
    )
    widths: tuple[int, ...] = Field((), description="Channels of each level, top first; empty keeps the network's own.")
    dropout: float = Field(0.0, ge=0, lt=1, description="On the features before the mask head.")
    attention: Literal["none", "scse", "gates"] = Field(
        "none", description="Inside the decoder: 'scse', or 'gates' on the skips; not every network has both."
    )
    zero_mask_channel: bool = Field(True, description="Start a fourth (lung) channel at zero, not as a red filter.")
    classes: bool = Field(False, description="A head for the three strata, beside the masks.")

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in trained():
            raise ValueError(unknown(kind, trained()))
        return kind

    @property
    def entry(self) -> NetworkEntry:
        """What is known of the network."""
        return NETWORKS[self.kind]


class InputConfig(Frozen):
    """How an image reaches the network."""

    size: int = Field(ge=32, le=2048, multiple_of=32, description="Side of the square grid, pixels.")
    channels: Literal[1, 2, 3, 4] = Field(
        1, description="Grey; grey and the lung mask; grey as RGB; RGB and the lung mask."
    )
    view: int = Field(
        0, ge=0, multiple_of=32, exclude_if=lambda side: not side,
        description="Side of the lungs' box on the grid of a network that sees no more.",
    )  # fmt: skip
    normalisation: Literal["standardise", "unit", "imagenet"] = Field(
        "unit", description="Zero mean and unit deviation per image; [0, 1]; ImageNet mean and deviation per channel."
    )
    early_size: int | None = Field(None, ge=32, multiple_of=32, description="A smaller grid for the first epochs.")
    early_share: float = Field(0.0, ge=0, le=1, description="Share of the epochs that use `early_size`.")

    @property
    def sees_lung(self) -> bool:
        """Whether the network gets the lung mask as a plane of its own."""
        return self.channels in (2, 4)

    @property
    def planes(self) -> int:
        """Planes of a prepared image: grey, and the lung mask where the network sees it."""
        return 1 + self.sees_lung


class OptimiserConfig(Frozen):
    """How a gradient becomes a step."""

    name: Literal["adam", "adamw"] = "adamw"
    lr: float = Field(gt=0, le=1, description="Highest learning rate.")
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up: float = Field(0.0, ge=0, lt=1, description="Share of all steps in which the rate rises from 0.")
    clip: float = Field(0.0, ge=0, description="Largest gradient norm; 0 does not clip.")
    average: float = Field(0.0, ge=0, lt=1, description="Decay of the running average of weights; 0 keeps none.")
    average_every: int = Field(4, ge=1, description="Steps between two updates of the average.")


class DataConfig(Frozen):
    """Which images, and what the lung channel shows."""

    strata: tuple[str, ...] = Field((), description="Only images of these; empty takes every stratum of the set.")
    targets: tuple[Target, ...] = Field(("infection",), description="lung, infection, or both in this order.")
    lung: Literal["predicted", "truth"] = Field(
        "predicted", description="The fourth channel and the constraint; truth is declared in every table."
    )

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        known = (["lung"], ["infection"], ["lung", "infection"])
        if list(self.targets) not in known:
            raise ValueError(f"targets {list(self.targets)}: wanted one of {', '.join(map(str, known))}")
        return self


class StopConfig(Frozen):
    """When training ends, and which epoch is kept."""

    epochs: int = Field(ge=1, le=10_000)
    patience: int | None = Field(None, ge=1, description="Epochs without a better metric; None trains to the end.")
    metric: str = Field(
        "val_covid_dice",
        description="Kept at its highest: a column of metrics.csv; per image, threshold .5, model grid",
    )


class Recipe(Frozen):
    """All that decides what is learnt."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")
    title: str
    published: str = Field("", description="Id of the published system and its printed result.")
    network: NetworkConfig
    input: InputConfig
    loss: LossConfig
    optimiser: OptimiserConfig
    augment: AugmentConfig = AugmentConfig()
    data: DataConfig = DataConfig()
    stop: StopConfig
    batch: int = Field(ge=1, le=4096, description="Images a step over all ranks together.")
    lung_constraint: bool = Field(
        False,
        description="Infection is kept only inside the lung mask (of the fourth channel, in training's own numbers).",
    )
    amp: bool = Field(False, description="bfloat16 autocast on an accelerator.")
    seed: int = Field(1, ge=0)
    ours: tuple[str, ...] = Field((), description="Fields that the author did not give; their values are ours.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for path in self.ours:
            value: Any = self
            for part in path.split("."):
                if not hasattr(value, part):
                    raise ValueError(f"ours: {path!r} is no field of a recipe")
                value = getattr(value, part)
        for wrong in self._contradictions():
            raise ValueError(wrong)
        return self

    def _contradictions(self) -> Iterator[str]:
        """Say which settings would be ignored, or would train one thing and release another."""
        network, channels, entry = self.network, self.input.channels, self.network.entry
        if self.input.normalisation == "imagenet" and channels < 3:
            yield "input.normalisation: imagenet needs input.channels 3 or 4"
        takes: dict[str, Callable[[NetworkEntry], bool]] = {
            f"input.channels: {channels}": lambda known: channels in known.channels,
            "network.dropout": lambda known: known.dropout or not network.dropout,
            f"network.attention: {network.attention!r}": lambda known: network.attention in ("none", *known.attention),
            "input.view": lambda known: known.view == bool(self.input.view),
            "network.widths": lambda known: known.widths or not network.widths,
            "network.encoder": lambda known: bool(known.encoders) or not network.encoder,
        }
        for setting, taken in takes.items():
            if not taken(entry):
                takers = ", ".join(name for name in trained() if taken(NETWORKS[name]))
                yield f"{setting} is for {takers}, not {network.kind}"
        if entry.encoders and not network.encoder:
            yield f"network.encoder: {network.kind} wants one, a name in {entry.encoders}"
        if self.lung_constraint and self.data.targets != ("infection",):
            yield "lung_constraint: is for data.targets=['infection'], whose lungs another model draws"
        if self.loss.classes and not network.classes:
            yield "loss.classes: the network has no head for strata; set network.classes=true"

    @property
    def label(self) -> str:
        """Name for tables; says so when wanted encoder weights were not there."""
        wanted = load_recipe(self.name).network.weights if self.name in shipped() else ""
        if wanted == "imagenet" and self.network.weights == "none":
            return f"{self.name}, not a reproduction (weights: none)"
        return self.name

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def shipped() -> list[str]:
    """Names of the recipes that come with covseg."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(ref: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path and lay ``a.b=c`` settings over it.

    Raises
    ------
    UsageError
        When there is no such recipe, a key is unknown, or a value is out of its range; the message names the key.

    Examples
    --------
    >>> load_recipe("unet-small", ["optimiser.lr=1e-3"]).optimiser.lr
    0.001
    """
    path = FOLDER / f"{ref}.toml" if str(ref) in shipped() else Path(ref)
    if not path.is_file():
        hint = meant(str(ref), shipped())
        raise UsageError(f"no recipe {str(ref)!r}: wanted one of {', '.join(shipped())}, or a TOML file{hint}")
    try:
        tree = tomllib.loads(path.read_text())
        for setting in settings:
            _lay(tree, setting)
        return Recipe.model_validate(tree)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}; wanted TOML") from error
    except ValidationError as error:
        raise UsageError(f"recipe {ref}: {_explain(error)}") from error


def _lay(tree: dict[str, Any], setting: str) -> None:
    """Put one ``a.b=c`` into the tree; the value is read as TOML, or as a bare word."""
    key, sign, text = setting.partition("=")
    if not sign or not key.strip():
        raise UsageError(f"--set {setting}: wanted key=value, such as --set optimiser.lr=1e-3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, last = key.strip().split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UsageError(f"--set {setting}: {parent!r} is a value, not a table")
    tree[last] = value


def _explain(error: ValidationError) -> str:
    """Name the first wrong key, and the key that was probably meant."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return first_fault(error)
    where = [str(part) for part in first["loc"]]
    fields = _fields(where[:-1])
    return f"unknown key {'.'.join(where)}" + (meant(where[-1], fields) or f"; known: {', '.join(fields)}")


def _fields(where: Sequence[str]) -> list[str]:
    model: Any = Recipe
    for part in where:
        model = model.model_fields[part].annotation
    return list(described(model))


def described(table: type[BaseModel]) -> dict[str, str]:
    """Return the keys of a recipe's table and what each means."""
    if issubclass(table, LossConfig):
        return table.described()
    return {name: field.description or "" for name, field in table.model_fields.items()}
