"""What a training is asked to do: one list for command, flow and core."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TrainSettings(BaseModel):
    """What the command and the flow `train` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field(description="Name of a recipe (see covseg recipes), or the path of a TOML file.")
    data: str = Field(description="Folder or bucket URL with Train and Val (COVID-QU-Ex), or images/, masks/.")
    out: str = Field(description="Folder or bucket URL of the run; a cluster of several machines has to reach it.")
    settings: tuple[str, ...] = Field(
        default=(), description="Fields of the recipe to change, such as optimiser.lr=1e-3; may be repeated."
    )
    workers: int = Field(default=0, ge=0, le=1024, description="Ray workers; 0 trains in this process, without Ray.")
    least_workers: int | None = Field(
        default=None, ge=1, description="Ray: go on with so few when machines are lost, grow again; default: all."
    )
    gpus: float = Field(default=0, ge=0, le=8, description="GPUs of each Ray worker; in this process one is found.")
    seeds: int = Field(default=1, ge=1, le=50, description="Train so often, each with the next seed; mean and spread.")
    limit: int | None = Field(default=None, ge=6, description="About so many images of each split.")
    minutes: float | None = Field(default=None, gt=0, description="Stop after so long, state saved.")
    resume: bool = Field(default=False, description="Go on with the run in OUT.")
    lung_model: str = Field(
        default="default", description="Model whose lung masks a four-channel network sees (stage 1 of the cascade)."
    )
    drop_leaks: bool = Field(default=False, description="Leave out images of Train that look like an image of Val.")
    loaders: int | None = Field(
        default=None, ge=0, le=64, description="Processes that read and augment; default: none on a CPU."
    )
