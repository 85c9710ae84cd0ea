"""``covseg calibrate``: choose a model's settings on Val and write them into its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic import Field

from covseg.settings.calibrate import CalibrateSettings
from flows.cli.console import progress_line

if TYPE_CHECKING:
    from covseg.calibration.calibrate import Calibration


class CalibrateConfig(CalibrateSettings):
    """What `covseg calibrate` can be told, by flags or by a TOML file."""

    output: Annotated[Path, Parameter(alias="-o")] = Field(
        default=Path("calibration"), description="Folder for calibration.html and calibration.json."
    )


def calibrate(config: Annotated[CalibrateConfig, Parameter(name="*")]) -> int:
    """Choose thresholds, minimum areas, image-level threshold and temperature on Val; write them into the model."""
    from covseg.calibration.run import run
    from covseg.registry import open_model

    calibration = run(config, progress_line("images"))
    print("\n".join(screen(calibration, config.specificity)))
    place = open_model(config.model).path
    where = "nothing written: dry run" if config.dry_run else f"written into {place}/covseg.json"
    print(f"{where}; the curves are in {config.output}/calibration.html. Research use only, not for diagnosis.")
    return 0


def screen(calibration: Calibration, least: float) -> list[str]:
    """Show the families of settings and the choice in about fifteen lines."""
    dataset = calibration.dataset
    images = ", ".join(f"{name} {count}" for name, count in dataset.counts.items())
    lines = [
        f"{dataset.name} {dataset.split}: {images}; left out {calibration.excluded}, refused {calibration.refused}",
        f"objective: highest mean Dice on positives, specificity on negatives >= {least}; model grid",
        f"{'what may move':<24}{'Dice':>7}{'spec':>7}   {'Dice, cross-fitted':<20}{'spec, cross-fitted':<20}Dice gain",
    ]
    for one in calibration.fits:
        gain = f"{one.gain.value:+.3f} [{one.gain.low:+.3f}, {one.gain.high:+.3f}]"
        lines.append(
            f"{one.name:<24}{one.dice.value:>7.3f}{one.specificity.value:>7.3f}   "
            f"{one.crossfit_dice!s:<20}{one.crossfit_specificity!s:<20}{gain}"
        )
    quality, names = calibration.reliability, calibration.chosen.model_dump()
    lines.append(
        f"probability: log loss {quality['log_loss_before']:.3f} -> {quality['log_loss_crossfit']:.3f}, calibration "
        f"error {quality['calibration_error_before']:.3f} -> {quality['calibration_error_crossfit']:.3f} (cross-fitted)"
    )
    before = calibration.start.model_dump()
    return [*lines, *(f"{name:>22}  {before[name]:g} -> {value:g}" for name, value in names.items())]
