"""Is this an upright frontal chest radiograph? Judged from pixels and the model's answer alone.

In: an image's model pixels, its `Prediction`, and the model folder's `InputFilterLimits` with the arrays
that ``covseg models fit-filter`` fitted. Out: a score (0 a usual image, about 1 at the edge of
what Val holds, higher is stranger) and QC flags, or a refusal. It never sees a header.

An image is described by five blocks of numbers (bottleneck features, lung map, image thumbnail,
lung shape, grey values). Each block is whitened on training images. Two judges look at the result:
the *density* says how far the image lies from training images, whatever it is; the *margin*, a
linear layer trained against synthetic negatives, says how little it looks upright and frontal and
what it looks like instead. The score is the worse of the two.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.errors import RadiographRefused, Reason, Stage
from covseg.records import Prediction
from covseg.settings.model import InputFilterLimits

FloatArray = NDArray[np.float32]
Numbers = dict[str, NDArray[np.float32]]

KINDS = ("frontal chest", "inverted image", "rotated image", "other view or body part", "no radiograph")
FRONTAL, INVERTED, ROTATED, OTHER_VIEW, NO_RADIOGRAPH = range(5)
BLOCKS = ("features", "lung", "film", "shape", "grey")
GRID, THUMBNAIL = 64, 16  # pixels a side
QUANTILES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
PLACES = np.rint(np.multiply(QUANTILES, GRID**2 - 1)).astype(int)
RIDGE = 0.02  # added to the variances, so that directions without spread do not decide
CLIP = 8.0  # deviations; farther out is not stranger


def input_filter(
    model_pixels: FloatArray, prediction: Prediction, limits: InputFilterLimits | None, refuse: bool = True
) -> tuple[float | None, tuple[str, ...]]:
    """Let a frontal chest radiograph pass, flag a doubtful one, refuse anything else.

    Parameters
    ----------
    model_pixels : ndarray of float32, shape (S, S)
        Standardised, as the model saw them.
    limits : InputFilterLimits or None
        From the model folder, with its arrays; None for a model without an input filter.
    refuse : bool
        False flags an image above ``refuse_above`` as one above ``flag_above``.

    Returns
    -------
    score : float or None
        Higher is stranger; None when the model has no input filter.
    flags : tuple of str
        ``out_of_distribution`` above ``flag_above`` (up to ``refuse_above`` this is the border band), and with it
        ``inverted`` or ``rotated`` when the image looks so.

    Raises
    ------
    RadiographRefused
        Above ``refuse_above``: ``not_radiograph`` or ``not_frontal_chest``, by what it looks like;
        ``nonfinite_logits`` for features that are no numbers.

    Notes
    -----
    An image mirrored left to right passes: only the heart could tell, and it does not always.
    """
    if limits is None:
        return None, ()
    if not np.isfinite(prediction.features).all():
        raise RadiographRefused(
            Reason.NONFINITE_LOGITS, Stage.INPUT_FILTER, "the model returned NaN or infinity as features"
        )
    blocks = {name: block[None] for name, block in describe(model_pixels, prediction).items()}
    (score,), (kind,) = (array.tolist() for array in filter_scores(blocks, limits.numbers))
    if refuse and score > limits.refuse_above:
        reason = Reason.NOT_RADIOGRAPH if kind == NO_RADIOGRAPH else Reason.NOT_FRONTAL_CHEST
        raise RadiographRefused(
            reason,
            Stage.INPUT_FILTER,
            f"taken for: {KINDS[kind]}; score {score:.2f}, limit {limits.refuse_above:.2f}; "
            "the input filter's judgement, which can be wrong",
        )
    if score <= limits.flag_above:
        return score, ()
    turned = {INVERTED: ("inverted",), ROTATED: ("rotated",)}
    return score, (*turned.get(kind, ()), "out_of_distribution")


def describe(model_pixels: FloatArray, prediction: Prediction) -> dict[str, FloatArray]:
    """Return the blocks of `BLOCKS`, each a vector of float32."""
    image, lung = (_shrink(plane, GRID) for plane in (model_pixels, prediction.lung))
    return {
        "features": prediction.features,
        "lung": _shrink(lung, THUMBNAIL).ravel(),
        "film": _shrink(image, THUMBNAIL).ravel(),
        "shape": _shape(lung, image),
        "grey": _grey(model_pixels, image),
    }


def _shrink(image: FloatArray, side: int) -> FloatArray:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _shape(lung: FloatArray, image: FloatArray) -> FloatArray:
    """Measure the soft lung map: area, sureness, place, spread, symmetry, border contact, grey."""
    place = np.linspace(-1, 1, GRID, dtype=np.float32)
    total = float(lung.sum()) + 1e-3
    across, down = lung.sum(axis=0), lung.sum(axis=1)
    x, y = float(across @ place) / total, float(down @ place) / total
    hard = lung > 0.5
    middle = slice(GRID // 2 - 4, GRID // 2 + 4)
    return np.array(
        [
            lung.mean(),
            hard.mean(),
            (lung * (1 - lung)).mean(),
            lung[hard].mean() if hard.any() else 0,
            x,
            y,
            np.sqrt(max(float(across @ place**2) / total - x**2, 0)),
            np.sqrt(max(float(down @ place**2) / total - y**2, 0)),
            np.abs(lung - lung[:, ::-1]).mean(),
            np.abs(lung - lung[::-1]).mean(),
            lung[:, 0].mean() + lung[:, -1].mean(),
            lung[0].mean() + lung[-1].mean(),
            lung[:, middle].mean(),
            (image * lung).sum() / total,
            (image * (1 - lung)).mean(),
            np.abs(image - image[:, ::-1]).mean(),
        ],
        np.float32,
    )


def _grey(model_pixels: FloatArray, image: FloatArray) -> FloatArray:
    """Measure the histogram and the edges, fine and coarse: flat colours, text and noise show here."""
    steps = [
        cv2.norm(before, after, cv2.NORM_L1) / before.size
        for plane in (model_pixels, model_pixels[::4, ::4])
        for before, after in ((plane[1:], plane[:-1]), (plane[:, 1:], plane[:, :-1]))
    ]
    ordered = np.sort(image, axis=None)
    ends = [(ordered == end).mean() for end in (ordered[-1], ordered[0])]
    return np.array([*ordered[PLACES], *np.log(np.add(steps, 1e-3)), *ends], np.float32)


def filter_scores(blocks: dict[str, FloatArray], numbers: Numbers) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return scores ``(N,)`` and the kinds ``(N,)`` that the images look most like, `FRONTAL` left aside.

    The blocks ``(N, D)`` are stacked, from `describe`; the numbers are the input filter's arrays.
    """
    evidence, density = weigh(blocks, numbers)
    logits = evidence @ numbers["head.weight"] + numbers["head.bias"]
    scores = [_scaled(margin(logits), numbers["margin.scale"]), _scaled(density, numbers["density.scale"])]
    return np.maximum(*scores), logits[:, 1:].argmax(axis=1) + 1


def _scaled(value: FloatArray, scale: FloatArray) -> FloatArray:
    """Put a judge's value on the scale where Val's median is 0 and its edge is 1."""
    return (value - scale[0]) / (scale[1] - scale[0])


def margin(logits: FloatArray) -> FloatArray:
    """Return log-odds ``(N,)`` of anything else against a frontal image, from logits ``(N, kinds)``."""
    with np.errstate(invalid="ignore"):  # NaN in, NaN out: `input_filter` refuses it
        return np.asarray(np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, FRONTAL], np.float32)


def weigh(blocks: dict[str, FloatArray], numbers: Numbers) -> tuple[FloatArray, FloatArray]:
    """Turn blocks into evidence for the linear layer ``(N, K)`` and the density judge's value ``(N,)``."""
    along, distances = project(blocks, numbers)
    strange = (distances - numbers["distance.mean"]) / numbers["distance.deviation"]
    return np.clip(np.concatenate([along, strange], axis=1), -CLIP, CLIP), strange.mean(axis=1)


def project(blocks: dict[str, FloatArray], numbers: Numbers) -> tuple[FloatArray, FloatArray]:
    """Return places on the blocks' principal axes, in deviations, and log distances from training images.

    Two distances a block: in the plane of its axes (Mahalanobis), and off that plane.
    """
    places, distances = [], []
    for name in BLOCKS:
        offset = (blocks[name] - numbers[f"{name}.mean"]) / numbers[f"{name}.deviation"]
        along = offset @ numbers[f"{name}.axes"]
        places.append(along / np.sqrt(numbers[f"{name}.variance"] + RIDGE))
        beside = np.maximum((offset**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        distances += [np.log((places[-1] ** 2).sum(axis=1) + 1e-6), np.log(beside + 1e-6)]
    return np.concatenate(places, axis=1), np.stack(distances, axis=1)
