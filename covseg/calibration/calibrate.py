"""Calibrate a model on a split: thresholds, minimum areas, image-level threshold, temperature.

The network runs once over the split through the pipeline; all settings are tried on counts. Intervals of the infected
fraction are fitted to the settings that were chosen. All of it is written into the model's JSON with how it was made
and the cross-fitted estimate.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from covseg.calibration.fit import (
    FOLDS,
    REPEATS,
    Fit,
    cross_fit_temperature,
    families,
    fit,
    fit_temperature,
    fold_sums,
    temper_all,
)
from covseg.calibration.intervals import Coverage, IntervalFit, fit_and_judge
from covseg.calibration.threshold_grid import (
    Grid,
    GridCounts,
    Table,
    count_grid,
    outcomes,
    presence_candidates,
    refused_counts,
    stack,
)
from covseg.data import BadMask, LabelledImage, LabelledSet, open_set, read_truth
from covseg.errors import UsageError
from covseg.evaluation.records import Record
from covseg.evaluation.run import entries_of
from covseg.metrics.image_level import calibration_error, log_loss
from covseg.metrics.image_results import true_fraction
from covseg.metrics.intervals import Difference, Estimate, Floats
from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import ModelFolder, amend_config
from covseg.outcome import Refused, Result
from covseg.pipeline import Pipeline, resolve, stream
from covseg.records import RESEARCH_ONLY
from covseg.registry import open_model
from covseg.settings.calibrate import CalibrateSettings
from covseg.settings.model import Thresholds
from covseg.stages.postprocess import raw_presence, temper
from covseg.stages.preprocess import resize
from covseg.storage import LocalStore

Counted = tuple[GridCounts, bool, float, int]  # with any true infection, true fraction, stratum
CLEANING = {"infection", "min_component_share", "min_infection_share"}  # what no temperature changes


@dataclass(frozen=True)
class Calibration:
    """What a calibration chose, and what it is worth.

    `start` and `chosen` are the thresholds before and after; the chosen presence is on the tempered scale. The fits go
    from one setting at a time to all together, and the last one is chosen. The reliability is log loss and calibration
    error before, after (optimistic), and cross-fitted. The intervals are None for a set without lung masks.
    """

    start: Thresholds
    chosen: Thresholds
    fits: list[Fit]
    reliability: dict[str, float]
    intervals: IntervalFit | None
    table: Table
    grid: Grid
    dataset: LabelledSet
    excluded: int
    refused: int

    @property
    def demanded(self) -> str:
        """Whose specificity the choice had to keep, in words."""
        return ", ".join(self.dataset.strata[place] for place in self.table.demanded) or "the others"


class CalibrationRecord(Record):
    """The choice, its estimate and how it was made; the parts are those of `Fit`.

    It is the content of ``calibration.json``, and also stands in the model's ``covseg.json``.
    """

    intended_use: str = RESEARCH_ONLY
    objective: str
    split: str
    digest: str
    counts: dict[str, int]
    left_out: int
    refused: int
    estimate: str
    presence_scale: str = "the image-level threshold is on the tempered probability"
    before: Thresholds
    chosen: Thresholds
    dice: Estimate
    specificity: Estimate
    crossfit_dice: Estimate
    crossfit_specificity: Estimate
    crossfit_specificity_by_stratum: dict[str, Estimate] = Field(default_factory=dict)
    gain: Difference
    specificity_gain: Difference
    reliability: dict[str, float]
    intervals: Coverage | None = None


def calibrate(settings: CalibrateSettings, progress: Callable[[int, int], None] = lambda *_: None) -> Calibration:
    """Choose the settings and, unless it is a dry run, write them into the model's JSON.

    Raises
    ------
    UsageError
        On the Test split, and when a class is absent: specificity and Dice both need images.
    """
    dataset = open_set(settings.data, settings.split).select((), settings.limit)
    if dataset.split.casefold() == "test":
        raise UsageError("the Test split is for the last look only: calibrate on Val")
    folder = open_model(settings.model)
    if folder.reference and not settings.dry_run:
        raise UsageError(f"{folder.reference} is immutable: covseg models pull it -o DIR, calibrate DIR, push that")
    demanded = dataset.places(settings.specificity_on)
    start = folder.config.thresholds
    grid = _with_start(Grid(), start)
    table, excluded = _count_all(settings, folder, dataset, grid, progress)
    table = replace(table, demanded=demanded)
    if not table.negative.any() or not table.positive.any():
        raise UsageError(
            f"{settings.data} {dataset.split} has one class only: wanted images with and without infection"
        )
    if not np.isfinite(table.presence).any():
        raise UsageError(
            f"the pipeline refused every image of {settings.data} {dataset.split}: run covseg predict to see why"
        )
    calibration = fit_all(table, grid, start, settings.specificity, dataset, excluded)
    if not settings.dry_run:
        write_thresholds(folder.path, calibration, settings)
    return calibration


def fit_all(
    table: Table, grid: Grid, start: Thresholds, least: float, dataset: LabelledSet, excluded: int
) -> Calibration:
    """Fit every family of settings and the temperature to counted images."""
    raw_start = start.model_copy(update={"presence": raw_presence(start), "presence_temperature": 1.0})
    grid = replace(grid, presence=_merge(presence_candidates(table.presence), raw_start.presence))
    before = outcomes(table, raw_start)
    fits = [fit(name, table, part, least, before) for name, part in families(grid, raw_start).items()]
    scored = np.isfinite(table.presence)
    probability, positive = table.presence[scored], table.positive[scored]
    temperature = fit_temperature(probability, positive)
    best = fits[-1].thresholds
    chosen = start.model_copy(
        update={
            **best.model_dump(include=CLEANING),
            "presence": temper(best.presence, temperature) if best.presence else 0.0,
            "presence_temperature": temperature,
        }
    )
    held_out = cross_fit_temperature(probability, positive, table.strata[scored])
    stages = {"before": probability, "after": temper_all(probability, temperature), "crossfit": held_out}
    quality = {f"log_loss_{name}": float(log_loss(stage, positive).mean()) for name, stage in stages.items()}
    quality |= {f"calibration_error_{name}": calibration_error(stage, positive) for name, stage in stages.items()}
    intervals = fit_and_judge(table, grid, best, least, temperature, dataset.strata)
    return Calibration(start, chosen, fits, quality, intervals, table, grid, dataset, excluded, int((~scored).sum()))


def _with_start(grid: Grid, start: Thresholds) -> Grid:
    """Let the grid contain the model's present settings, so that before and after share one table."""
    return replace(grid, **{name: _merge(getattr(grid, name), getattr(start, name)) for name in CLEANING})


def _merge(values: tuple[float, ...], value: float) -> tuple[float, ...]:
    return tuple(sorted({*values, value}))


def _count_all(
    settings: CalibrateSettings,
    folder: ModelFolder,
    dataset: LabelledSet,
    grid: Grid,
    progress: Callable[[int, int], None],
) -> tuple[Table, int]:
    """Run the network once; return the stacked images and the number left out for a bad truth."""
    raw = folder.config.model_copy(update={"thresholds": Thresholds(lung=folder.config.thresholds.lung)})
    backend = open_backend(folder, settings.backend)
    pipeline = Pipeline(raw, resolve(folder.model_copy(update={"config": raw}), backend, settings.batch))
    labelled = {image.key: image for image in dataset.images}

    def finish(result: Result) -> Counted | None:
        return _count_image(result, dataset, labelled[result.row.key], grid, raw.thresholds.lung)

    counted: list[Counted] = []
    streams = settings.streams or len(os.sched_getaffinity(0))
    walk = stream(pipeline, backend, LocalStore(dataset.root), entries_of(dataset), streams, finish)
    for done, image in enumerate(walk, 1):
        counted += [image] if image else []
        progress(done, len(dataset.images))
    if not counted:
        raise UsageError(
            f"no image of {dataset.root} {dataset.split} can be judged; covseg data check names the reasons"
        )
    counts, positive, fraction, strata = map(list, zip(*counted, strict=True))
    excluded = len(dataset.images) - len(counted) + len(dataset.excluded)
    return stack(counts, positive, fraction, strata, grid), excluded


def _count_image(result: Result, dataset: LabelledSet, image: LabelledImage, grid: Grid, lung: float) -> Counted | None:
    shape = None if isinstance(result, Refused) else result.masks.infection.shape
    try:
        truth = read_truth(dataset, image, shape)
    except BadMask:
        return None
    positive = bool(truth.infection.any())
    facts = positive, true_fraction(truth.infection, truth.lung), dataset.strata.index(image.stratum)
    if isinstance(result, Refused):
        return refused_counts(grid, positive), *facts
    side = result.prediction.infection.shape[0]
    on_grid = (resize(truth.infection * 255, side, side) > 127).astype(np.uint8)
    return count_grid(result.prediction, on_grid, grid, lung), *facts


def write_thresholds(path: Path, calibration: Calibration, settings: CalibrateSettings) -> None:
    """Put the choice into ``covseg.json``, beside how it was made; everything else in it stays."""

    def change(config: dict[str, Any]) -> None:
        config["thresholds"] = calibration.chosen.model_dump(mode="json")
        config.pop("intervals", None)  # they were of the thresholds before
        if calibration.intervals:
            config["intervals"] = calibration.intervals.intervals.model_dump(mode="json")
        made = record(calibration, settings.specificity)
        config.setdefault("metrics", {})["calibration"] = made.model_dump(mode="json", exclude={"intended_use"})

    amend_config(path, change)


def record(calibration: Calibration, least: float) -> CalibrationRecord:
    """Return the choice, its estimate and how it was made."""
    best, dataset = calibration.fits[-1], calibration.dataset
    return CalibrationRecord(
        objective=f"highest mean Dice over images with infection, image-level specificity on {calibration.demanded} "
        f">= {least}",
        split=dataset.split, digest=dataset.digest, counts=dataset.counts, left_out=calibration.excluded,
        refused=calibration.refused,
        estimate=f"{FOLDS}-fold cross-fitted, {REPEATS} repeats, on the model grid; intervals over images",
        before=calibration.start, chosen=calibration.chosen, dice=best.dice, specificity=best.specificity,
        crossfit_dice=best.crossfit_dice, crossfit_specificity=best.crossfit_specificity, gain=best.gain,
        crossfit_specificity_by_stratum={
            dataset.strata[stratum]: estimate for stratum, estimate in best.crossfit_by_stratum.items()
        },
        specificity_gain=best.specificity_gain,
        reliability={name: round(value, 5) for name, value in calibration.reliability.items()},
        intervals=calibration.intervals and calibration.intervals.quality,
    )  # fmt: skip


def frontier(calibration: Calibration) -> tuple[Floats, Floats]:
    """Return the highest Dice of all settings at each specificity on these images."""
    table = calibration.table
    sums = fold_sums(table, calibration.grid, np.zeros(len(table.positive), np.int64))
    dice = (sums.dice[0] / sums.positives[0]).ravel()
    specificity = (1 - sums.alarms[0] / sums.negatives[0]).ravel()
    levels = np.unique(specificity)
    best = np.full(len(levels), -np.inf)
    np.maximum.at(best, np.searchsorted(levels, specificity), dice)
    # a setting with a higher specificity also serves a lower demand
    return levels, np.maximum.accumulate(best[::-1])[::-1]


def along(calibration: Calibration, setting: str) -> tuple[Floats, Floats, Floats]:
    """Return the values of one setting, and Dice and specificity with all others as chosen."""
    best, table = calibration.fits[-1].thresholds, calibration.table
    values = getattr(calibration.grid, setting)
    rows = []
    for value in values:
        dice, kept = outcomes(table, best.model_copy(update={setting: value}))
        rows.append((dice[table.positive].mean(), 1 - kept[table.negative].mean()))
    return np.array(values), *np.array(rows).T
