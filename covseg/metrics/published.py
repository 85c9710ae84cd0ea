"""Published numbers on this task, with the convention each one was made under, and how to tell.

Sources: the dataset's paper (doi 10.1016/j.compbiomed.2021.105002) and public baselines on the same
official Test split of 583 COVID-19, 292 Non-COVID and 291 Normal images.
"""

from __future__ import annotations

from dataclasses import dataclass

ROUNDING = 5e-4  # numbers are printed with three or four digits


@dataclass(frozen=True)
class Anchor:
    """One published result.

    Parameters
    ----------
    source, convention : str
        Who, and the averaging convention that its numbers fit.
    dice, iou : float or None
        As printed.
    covid_dice, covid_iou : float or None
        COVID-19-only, per image: as printed, or re-expressed (then `convention` says so).
    """

    source: str
    dice: float | None
    iou: float | None
    convention: str
    covid_dice: float | None
    covid_iou: float | None = None


_INFERRED = "COVID-only inferred"
ANCHORS = (
    Anchor(
        "Tahir et al. 2021, best U-Net / U-Net++ / FPN",
        0.8821,
        0.8305,
        f"all images, empty = 1; {_INFERRED}",
        0.764,
        0.661,
    ),
    Anchor("UNet++ EfficientNet-B3", 0.896, 0.838, "all images, fits batches of 8; per class given", 0.768, 0.659),
    Anchor("cascade U-Net EfficientNet-B0", 0.8854, 0.7896, f"mixed, see the warning; {_INFERRED}", 0.771),
    Anchor("ResNet-34 U-Net", None, None, "per image, per class given; Non-COVID .2911", 0.7701, 0.6650),
    Anchor("U-Net in a 2025 comparison", 0.788, None, "COVID-19 only", 0.788),
    Anchor("U-Net3+ in a 2025 comparison", 0.793, None, "COVID-19 only", 0.793),
    Anchor("plain U-Net", 0.5971, 0.4521, "COVID-19 only", 0.597, 0.452),
    Anchor("Attention U-Net", 0.6926, 0.6095, "COVID-19 + Non-COVID, empties counted; COVID-only on Val", 0.73),
    Anchor("MobileNetV3 multi-task, 50 images/s on one CPU", 0.8565, 0.8017, "all images, empties counted", None),
    Anchor("floor on Val: U-Net MobileNetV3, 45 min on 2 cores", 0.790, None, "mixture; per class given", 0.629, 0.531),
)
SECOND_READER = (
    "A second reader is far from the first: radiologists' masks of 49 of these images agree with the truth at "
    "a mean Dice of .64 (infected fraction r = .85)."
)


def iou_of(dice: float) -> float:
    """Return the IoU of ONE mask from its Dice.

    Examples
    --------
    >>> round(iou_of(0.8854), 4)
    0.7944
    """
    return dice / (2 - dice)


def impossible_pair(dice: float, iou: float, tolerance: float = ROUNDING) -> str | None:
    """Say why a (mean Dice, mean IoU) pair cannot come from one convention; None when it can.

    D / (2 - D) is convex, so a mean IoU is never below it at the mean Dice (Jensen); and no IoU
    exceeds its Dice.

    Examples
    --------
    >>> impossible_pair(0.8854, 0.7896)
    'Dice 0.8854 with IoU 0.7896 mixes two conventions: averaged alike, IoU would be at least 0.7944'
    >>> impossible_pair(0.8821, 0.8305) is None
    True
    """
    bound = iou_of(dice)
    if iou < bound - tolerance:
        why = f"averaged alike, IoU would be at least {bound:.4f}"
        return f"Dice {dice:.4f} with IoU {iou:.4f} mixes two conventions: {why}"
    if iou > dice + tolerance:
        return f"Dice {dice:.4f} with IoU {iou:.4f} mixes two conventions: an IoU never exceeds its Dice"
    return None


def mixture(values: dict[str, float], counts: dict[str, int]) -> float:
    """Return the headline that strata of these sizes add up to.

    Examples
    --------
    >>> counts = {"COVID-19": 583, "Non-COVID": 292, "Normal": 291}
    >>> round(mixture({"COVID-19": 0.768, "Non-COVID": 0.990, "Normal": 1.0}, counts), 4)
    0.8815
    """
    total = sum(counts[stratum] for stratum in values)
    return sum(value * counts[stratum] for stratum, value in values.items()) / total
