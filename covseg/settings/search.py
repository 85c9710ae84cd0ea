"""What a search is asked to do: one list for command, flow and driver."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SearchSettings(BaseModel):
    """What the command and the flow `search` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str = Field(description="Name of a space (fast-space, accurate-space, unet-small-sweeps), or a TOML file.")
    data: str = Field(description="Folder or bucket URL with Train and Val (COVID-QU-Ex), or images/, masks/.")
    out: str = Field(description="Folder of the search; a cluster of several machines has to share it.")
    recipe: str | None = Field(default=None, description="Another recipe than the space's: a name, or a TOML file.")
    settings: tuple[str, ...] = Field(
        default=(), description="Fields of the recipe to change in every trial, such as stop.epochs=6; may be repeated."
    )
    trials: int = Field(default=24, ge=1, le=10_000, description="In all; a later run with more goes on.")
    parallel: int = Field(default=1, ge=1, le=1024, description="Trials at once.")
    gpus: float = Field(default=0, ge=0, le=8, description="GPUs of each trial; .5 puts two on one.")
    budget: float = Field(
        default=1.0, gt=0, le=100, description="Compute of a whole trial, as a multiple of the recipe's own."
    )
    objective: Literal["covid", "robust"] = Field(
        default="covid",
        description="COVID-19 Dice of Val at specificity .98; robust: its mean with that of shifted images of Val.",
    )
    pruning: bool = Field(default=True, description="Stop a trial early that lags behind the best.")
    like: str | None = Field(
        default=None, description="Folder of a search of this space: its configurations are tried, in its order."
    )
    storage: str | None = Field(
        default=None,
        description="postgresql://USER@HOST:PORT/DATABASE that drivers of one --out share; default: study.db in it.",
    )
    study: str | None = Field(
        default=None, min_length=1, description="Name of the study in --storage; default: that of OUT's last folder."
    )
    seed: int = Field(default=1, ge=0, description="Of the sampler; the recipe's own seed is the training's.")
    limit: int | None = Field(default=None, ge=6, description="About so many images of each split.")
    lung_model: str = Field(default="default", description="Model whose lung masks a network with a lung plane sees.")
    drop_leaks: bool = Field(default=False, description="Leave out images of Train that look like an image of Val.")
    loaders: int | None = Field(
        default=None, ge=0, le=64, description="Processes that read and augment; default: none on a CPU."
    )
    promote: int = Field(
        default=0, ge=0, le=20, description="Train so many of the best again with new seeds and compare; 0: none."
    )
    promote_seeds: int = Field(default=3, ge=1, le=50, description="Seeds of each finalist, and of the recipe.")
    twins: str | None = Field(
        default=None, description="CSV of Val's images at real size, on which finalists are judged too."
    )
    registry: str | None = Field(default=None, description="Where the best finalist becomes the candidate.")
    name: str | None = Field(default=None, description="Of the model that is promoted; default: the recipe's.")
