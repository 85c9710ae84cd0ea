"""The calibration as one offline HTML page: what was tried, what was chosen, and what it is worth."""

from __future__ import annotations

import numpy as np

from covseg.calibration.calibrate import Calibration, along, frontier
from covseg.calibration.fit import temper_all
from covseg.metrics.image_level import reliability
from covseg.pages import charts
from covseg.pages.environment import render_page


def render_calibration(calibration: Calibration, model: str, least: float) -> bytes:
    """Return the page of a model, by its id, and of the least specificity that was demanded."""
    return render_page(
        "covseg.calibration",
        "calibration.html.j2",
        model=model,
        least=least,
        calibration=calibration,
        charts=_charts(calibration, least),
    )


def _charts(calibration: Calibration, least: float) -> list[tuple[str, str]]:
    best = calibration.fits[-1]
    held = (best.crossfit_specificity.value, best.crossfit_dice.value)
    marks = [(best.specificity.value, best.dice.value, "chosen (optimistic)"), (*held, "chosen (cross-fitted)")]
    levels, dice = frontier(calibration)
    shown = levels >= min(0.6, least)
    curve = charts.lines(
        {"best of all settings": (levels[shown], dice[shown])}, "The trade: COVID-19 Dice for specificity",
        ("specificity on negatives", "mean Dice on positives"), marks,
    )  # fmt: skip
    drawn = [(curve, "Dice against specificity")]
    names = {"infection": "pixel threshold", "presence": "image-level threshold (network's own scale)",
             "min_infection_share": "minimum infection, share of image"}  # fmt: skip
    for setting, words in names.items():
        values, scores, clean = along(calibration, setting)
        title = f"Along the {words.split(',')[0].split(' (')[0]}, others as chosen"
        picture = charts.lines({"Dice": (values, scores), "specificity": (values, clean)}, title, (words, ""))
        drawn.append((picture, title))
    return [*drawn, (_reliability(calibration), "Reliability before and after")]


def _reliability(calibration: Calibration) -> str:
    scored = np.isfinite(calibration.table.presence)
    presence, positive = calibration.table.presence[scored], calibration.table.positive[scored]
    stages = {"before": presence, "after": temper_all(presence, calibration.chosen.presence_temperature)}
    curves = {}
    for name, values in stages.items():
        x, y, _ = map(np.array, zip(*reliability(values, positive), strict=True))
        curves[name] = (x, y)
    title = f"Probability of any infection, temperature {calibration.chosen.presence_temperature:.2f}"
    return charts.lines(curves, title, ("predicted", "observed"), diagonal=True, markers=True)
