"""How likely is a row to be wrong, beside the rows around it? A number to sort by, from what the answer itself shows.

In: the model's answer (presence tempered), the infected fraction with its interval, the model's thresholds. Out:
`Doubt`. No second pass of the model. It ranks images, it is no probability of an error, and a low doubt does not say
that a number is right: an image on which the model is sure and wrong has none. Weights were chosen on Val; what the
score finds there and elsewhere stands in ``infra/decisions/doubt.md``, and
``covseg evaluate`` measures it for any model.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from covseg.records import Prediction
from covseg.settings.model import Thresholds

MARKED = {"undecided_pixels": 0.65, "near_threshold": 0.2, "wide_interval": 0.15}
EMPTY = {"colour_unmarked": 0.5, "near_threshold": 0.5}  # where nothing is marked
CERTAIN = ("lungs_not_found", "beyond_input_filter")  # of doubt 1 whatever the rest
REASONS = (*MARKED, "colour_unmarked", *CERTAIN)
REACH = 3.0  # of the presence's log-odds; farther from the threshold is not near it
HALF = 0.5  # mean of 4 p (1 - p) over the lung that counts in full: 1 would be a lung with nothing decided


@dataclass(frozen=True)
class Doubt:
    """How much an image asks for a look: `score` in [0, 1], and the largest part of it, of `REASONS`; None at 0."""

    score: float
    reason: str | None


def judge(
    prediction: Prediction,
    fraction: float | None,
    interval: tuple[float | None, float | None],
    thresholds: Thresholds,
    beyond_filter: bool = False,
) -> Doubt:
    """Weigh what is doubtful about one scored image.

    Parameters
    ----------
    prediction : Prediction
        Pixel probabilities before any threshold, presence tempered.
    fraction : float or None
        Infected share of the lung, [0, 1]; None where no lung was found.
    interval : tuple of float or None
        Ends of the fraction's interval; None for a model without intervals.
    thresholds : Thresholds
        The model's.
    beyond_filter : bool
        The input filter would have refused the image.
    """
    if beyond_filter or fraction is None:
        return Doubt(1.0, "beyond_input_filter" if beyond_filter else "lungs_not_found")
    found, weights = terms(prediction, fraction, interval, thresholds), MARKED if fraction > 0 else EMPTY
    parts = {name: weight * found[name] for name, weight in weights.items()}
    largest = max(parts, key=lambda name: parts[name])
    return Doubt(min(1.0, sum(parts.values())), largest if parts[largest] > 0 else None)


def terms(
    prediction: Prediction, fraction: float, interval: tuple[float | None, float | None], thresholds: Thresholds
) -> dict[str, float]:
    """Return what `MARKED` and `EMPTY` weigh, each in [0, 1].

    ``undecided_pixels``: mean of 4 p (1 - p) over the lung of a marked image. ``near_threshold``: how near the presence
    is to the image-level threshold, in log-odds. ``wide_interval``: width of the interval. ``colour_unmarked``: share
    of the lung whose pixels reach the pixel threshold although nothing is marked, less the farther the presence is
    below its threshold.
    """
    lung = prediction.lung >= thresholds.lung
    inside = prediction.infection[lung].astype(np.float64)
    low, high = interval
    presence, least = prediction.presence, thresholds.presence
    undecided = float(np.mean(4 * inside * (1 - inside))) / HALF if len(inside) else 0.0
    colour = float(np.mean(inside >= thresholds.infection)) if len(inside) else 0.0
    return {
        "undecided_pixels": min(1.0, undecided) if fraction > 0 else 0.0,
        "near_threshold": max(0.0, 1 - abs(_log_odds(presence) - _log_odds(least)) / REACH) if 0 < least < 1 else 0.0,
        "wide_interval": 0.0 if low is None or high is None else high - low,
        "colour_unmarked": colour * (min(1.0, presence / least) if least else 1.0) if fraction == 0 else 0.0,
    }


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-7), 1 - 1e-7)
    return log(clipped / (1 - clipped))
