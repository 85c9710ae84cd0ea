"""What an evaluation came to, in one sentence, for whoever reads nothing else."""

from __future__ import annotations

from covseg.evaluation.records import Evaluation, Measured, ShiftLine
from covseg.metrics.intervals import short
from covseg.metrics.summary import COVID, NEGATIVES

AS_MUCH = 0.005  # a loss below this is none


def verdict(evaluation: Evaluation, infected: Measured) -> str:
    """Say how well infection is drawn, how often none is drawn rightly, and what costs most.

    Parameters
    ----------
    infected : Measured
        Dice per image of all images with infection; taken where the set has no stratum COVID-19.
    """
    covid = evaluation.headline["covid_dice"]
    dice, words = (covid, f"{COVID} images") if covid.n else (infected, "images with infection")
    parts = [_drawn(dice, words), _left_clean(evaluation), *_real_size(evaluation), *_worst(evaluation)]
    return "; ".join(parts) + "."


def _drawn(dice: Measured, words: str) -> str:
    return f"Mean Dice {dice} on {dice.n} {words}" if dice.known else f"No {words}"


def _left_clean(evaluation: Evaluation) -> str:
    every = evaluation.headline["negative_specificity"]
    if not every.known:
        return "no image without infection, so nothing is known of false alarms"
    lines = [(name, evaluation.line(name, "image level", "specificity")) for name in evaluation.data.strata]
    known = [f"{short(line.value, 2)} of {name}" for name, line in lines if line and line.known]
    apart = f" ({', '.join(known)})" if len(known) > 1 else ""
    share = "all" if every.value == 1 else f"{short(every.value, 2)} of"
    return f"{share} {every.n} {NEGATIVES} left unmarked{apart}"


def _real_size(evaluation: Evaluation) -> list[str]:
    return [
        f"at real size ({twin.images} images) {short(twin.covid_dice.value)}, shrunk {short(twin.covid_dice_as_it_is)}"
        for twin in evaluation.robustness.twins
        if twin.covid_dice.known
    ]


def _worst(evaluation: Evaluation) -> list[str]:
    """Name the shift that costs most of those not refused by design."""
    shifts = [line for line in evaluation.robustness.worst_first if not line.by_design]
    if not shifts:
        return []
    return [f"of {len(shifts)} shifts {_cost(shifts[0])}"]


def _cost(line: ShiftLine) -> str:
    losses = {
        "Dice": (line.covid_dice_lost.value, line.covid_dice_as_it_is, line.covid_dice.value),
        "specificity": (line.specificity_lost.value, line.specificity_as_it_is, line.specificity.value),
    }
    name, (lost, before, after) = max(losses.items(), key=lambda item: item[1][0])
    if not lost > AS_MUCH:
        return "none costs Dice or specificity"
    return f"{line.words} costs most, {name} {short(before)} to {short(after)}"
