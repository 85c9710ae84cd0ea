"""``covseg calibrate``: choose a model's settings on Val and write them into its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from covseg.settings.calibrate import CalibrateSettings
from flows.cli.console import progress, show_result, table
from flows.cli.options import OUTPUT, Json, Options, same

if TYPE_CHECKING:
    from covseg.calibration.calibrate import Calibration


class CalibrateConfig(CalibrateSettings, Options):
    """What `covseg calibrate` can be told, by flags or by a TOML file."""

    output: Annotated[Path, OUTPUT] = same(CalibrateSettings, "output")
    json_: Json = False


def calibrate(config: CalibrateConfig) -> int:
    """Choose thresholds, minimum areas, temperature and intervals of the fraction on Val; write them into the model."""
    from covseg.calibration.calibrate import record
    from covseg.calibration.run import run
    from covseg.registry import open_model

    with progress("images") as report:
        calibration = run(config, report)
    folder = open_model(config.model).path
    where = "nothing written: dry run" if config.dry_run else f"written into {folder}/covseg.json"
    files = f"{where}; the curves are in {config.output}/calibration.html. Research use only, not for diagnosis."
    document = record(calibration, config.specificity).model_dump(mode="json")
    show_result(document, [*screen(calibration, config.specificity), files], as_json=config.json_)
    return 0


def screen(calibration: Calibration, least: float) -> list[str]:
    """Show the families of settings and the choice in about fifteen lines."""
    dataset, quality = calibration.dataset, calibration.reliability
    counts = ", ".join(f"{name} {count}" for name, count in dataset.counts.items())
    left_out = f"left out {calibration.excluded}, refused {calibration.refused}"
    loss = f"{quality['log_loss_before']:.3f} -> {quality['log_loss_crossfit']:.3f}"
    error = f"{quality['calibration_error_before']:.3f} -> {quality['calibration_error_crossfit']:.3f}"
    before, after = calibration.start.model_dump(), calibration.chosen.model_dump()
    return [
        f"{dataset.name} {dataset.split}: {counts}; {left_out}",
        f"objective: highest mean Dice on positives, specificity on {calibration.demanded} >= {least}; model grid",
        *_fits(calibration),
        f"specificity by stratum (cross-fitted): {_by_stratum(calibration)}",
        f"probability: log loss {loss}, calibration error {error} (cross-fitted)",
        *_intervals(calibration),
        *(f"{name:>22}  {before[name]:g} -> {value:g}" for name, value in after.items()),
    ]


def _by_stratum(calibration: Calibration) -> str:
    names, best = calibration.dataset.strata, calibration.fits[-1]
    return ", ".join(f"{names[place]} {estimate}" for place, estimate in best.crossfit_by_stratum.items())


def _intervals(calibration: Calibration) -> list[str]:
    if calibration.intervals is None:
        return ["intervals of the infected fraction: none, the set has no lung masks"]
    quality = calibration.intervals.quality
    held = ", ".join(f"{name} {estimate} n {estimate.n}" for name, estimate in quality.coverage.items())
    return [f"intervals of the infected fraction at {quality.level}, truth inside (cross-fitted): {held}"]


def _fits(calibration: Calibration) -> list[str]:
    header = ("what may move", "Dice", "spec", "Dice, cross-fitted", "spec, cross-fitted", "Dice gain")
    rows = []
    for fit in calibration.fits:
        numbers = f"{fit.dice.value:.3f}", f"{fit.specificity.value:.3f}"
        rows.append((fit.name, *numbers, str(fit.crossfit_dice), str(fit.crossfit_specificity), str(fit.gain)))
    return table(header, rows)
