"""``covseg calibrate``: choose a model's settings on Val and write them into its JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from covseg.evaluation.calibrate import Calibration


class CalibrateConfig(BaseModel):
    """What `covseg calibrate` can be told, by flags or by a TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="'default' or the path of a model folder; its covseg.json is rewritten.")
    data: Path = Field(description="Folder with Train, Val (COVID-QU-Ex), or with images/, masks/, labels.csv.")
    split: str = Field(default="Val", description="Name of the split; the Test split is refused.")
    output: Annotated[Path, Parameter(alias="-o")] = Field(
        default=Path("calibration"), description="Folder for calibration.html and calibration.json."
    )
    specificity: float = Field(default=0.98, gt=0, le=1, description="Least specificity on films without infection.")
    limit: int | None = Field(default=None, ge=10, description="About so many films, spread over the strata.")
    backend: Literal["onnx", "torch"] = Field(
        default="onnx", description="What runs the model; torch is the reference."
    )
    batch: int = Field(default=4, ge=1, le=64, description="Films a forward pass.")
    streams: int | None = Field(
        default=None, ge=1, description="Batches side by side, one CPU thread each; default: all."
    )
    dry_run: bool = Field(default=False, description="Leave the model as it is.")

    def choose(self, progress: Callable[[int, int], None] = lambda *_: None) -> Calibration:
        """Choose the settings, write them into the model, and leave page and record in `output`."""
        from covseg.evaluation.calibrate import Request, calibrate, record
        from covseg.evaluation.calibration_page import render_calibration
        from covseg.models.folder import open_folder
        from covseg.records import RESEARCH_ONLY
        from covseg.storage import LocalStore

        streams = self.streams or len(os.sched_getaffinity(0))
        found = calibrate(Request(**self.model_dump(exclude={"output", "streams"}), streams=streams), progress)
        store = LocalStore(self.output)
        told = {"intended_use": RESEARCH_ONLY} | record(found, self.specificity)
        store.write("calibration.json", json.dumps(told, indent=1).encode())
        store.write("calibration.html", render_calibration(found, open_folder(self.model).card.id, self.specificity))
        return found


def calibrate(config: Annotated[CalibrateConfig, Parameter(name="*")]) -> int:
    """Choose thresholds, minimum areas, presence gate and temperature on Val; write them into the model."""
    from covseg.models.folder import open_folder
    from flows.commands.evaluate import progress_line

    found = config.choose(progress_line("films"))
    print("\n".join(screen(found, config.specificity)))
    place = open_folder(config.model).path
    where = "nothing written: dry run" if config.dry_run else f"written into {place}/covseg.json"
    print(f"{where}; the curves are in {config.output}/calibration.html. Research use only, not for diagnosis.")
    return 0


def screen(found: Calibration, least: float) -> list[str]:
    """Show the families of settings and the choice in about fifteen lines."""
    films = ", ".join(f"{name} {count}" for name, count in found.films.counts.items())
    lines = [
        f"{found.films.name} {found.films.split}: {films}; left out {found.excluded}, refused {found.refused}",
        f"objective: highest mean Dice on positives, specificity on negatives >= {least}; model grid",
        f"{'what may move':<24}{'Dice':>7}{'spec':>7}   {'Dice, cross-fitted':<20}{'spec, cross-fitted':<20}Dice gain",
    ]
    for one in found.fits:
        gain = f"{one.gain.value:+.3f} [{one.gain.low:+.3f}, {one.gain.high:+.3f}]"
        lines.append(
            f"{one.name:<24}{one.dice.value:>7.3f}{one.specificity.value:>7.3f}   "
            f"{one.crossfit_dice!s:<20}{one.crossfit_specificity!s:<20}{gain}"
        )
    quality, names = found.reliability, found.chosen.model_dump()
    lines.append(
        f"probability: log loss {quality['log_loss_before']:.3f} -> {quality['log_loss_crossfit']:.3f}, calibration "
        f"error {quality['calibration_error_before']:.3f} -> {quality['calibration_error_crossfit']:.3f} (cross-fitted)"
    )
    before = found.start.model_dump()
    return [*lines, *(f"{name:>22}  {before[name]:g} -> {value:g}" for name, value in names.items())]
