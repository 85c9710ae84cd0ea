"""What an evaluation is asked to do: one list for command, flow and core."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EvaluateSettings(BaseModel):
    """What the command and the flow `evaluate` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="default", description="'default', 'benchmark', a model folder, or [REGISTRY/]NAME@TAG.")
    data: Path = Field(
        description="Folder with Train, Val, Test (COVID-QU-Ex), with images/, masks/, labels.csv, or with images/ and "
        "scores.csv (readers' scores)."
    )
    split: str = Field(default="Val", description="Name of the split; 'all' for a set without splits.")
    output: Path = Field(
        default=Path("evaluation"),
        description="Folder for metrics.json, cases.parquet and evaluation.html; of scores external.json, "
        "scores.parquet and external.html.",
    )
    strata: tuple[str, ...] = Field(default=(), description="Only these strata; default: all.")
    limit: int | None = Field(default=None, ge=2, description="About so many images, spread over the strata.")
    lung: Literal["predicted", "truth"] = Field(
        default="predicted", description="Which lung mask clips the infection; truth only to compare with such papers."
    )
    backend: Literal["onnx", "torch", "auto"] = Field(
        default="onnx",
        description="What runs the model; torch is the reference; auto takes the cheapest proved precision.",
    )
    batch: int = Field(default=4, ge=1, le=64, description="Images a forward pass.")
    streams: int | None = Field(
        default=None, ge=1, description="Batches side by side, one CPU thread each; default: all."
    )
    control: bool = Field(
        default=True, description="Also ask what the model reads with the lungs, or all else, painted flat."
    )
    shifts: tuple[str, ...] = Field(
        default=(), description="Also judge images shifted in size, sharpness, format and exposure: names, or 'all'."
    )
    twins: Path | None = Field(
        default=None, description="CSV of the same images in another form, such as at real size; see the guide."
    )
    draws: int = Field(default=2000, ge=100, le=100_000, description="Resamples of the bootstrap.")
