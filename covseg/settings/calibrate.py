"""What a calibration is asked to do: one list for command, flow and core."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class CalibrateSettings(BaseModel):
    """What `covseg calibrate` can be told, by flags or by a TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="'default' or the path of a model folder; its covseg.json is rewritten.")
    data: Path = Field(description="Folder with Train, Val (COVID-QU-Ex), or with images/, masks/, labels.csv.")
    split: str = Field(default="Val", description="Name of the split; the Test split is refused.")
    output: Path = Field(default=Path("calibration"), description="Folder for calibration.html and calibration.json.")
    specificity: float = Field(default=0.98, gt=0, le=1, description="Least specificity on images without infection.")
    specificity_on: tuple[str, ...] = Field(
        default=(), description="Strata whose specificity is demanded; default: all images without infection."
    )
    limit: int | None = Field(default=None, ge=10, description="About so many images, spread over the strata.")
    backend: Literal["onnx", "torch"] = Field(
        default="onnx", description="What runs the model; torch is the reference."
    )
    batch: int = Field(default=4, ge=1, le=64, description="Images a forward pass.")
    streams: int | None = Field(
        default=None, ge=1, description="Batches side by side, one CPU thread each; default: all."
    )
    dry_run: bool = Field(default=False, description="Leave the model as it is.")
