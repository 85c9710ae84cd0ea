"""Clean masks to the extent of infection: fractions, zones, extent scores, grade, QC flags.

In: `Masks` at source size. Out: `Extent`, the numbers of one table row. A mask gives projected
extent only: never volume, density or opacity type, and a grade is a share of area, not clinical
severity. 0 % does not mean clear lungs: Non-COVID pneumonia is labelled empty in the training data.

Sources: extent per lung, Wong et al. 2020 (doi 10.1148/radiol.2020201160, fig. 2), the
"geographic extent" of Cohen et al. 2020 (doi 10.7759/cureus.9448).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import LEFT, RIGHT, Mask, Masks, Radiograph, as_bytes
from covseg.settings.model import FlagLimits, FractionIntervals

GRADE_TABLE = "area-share-1"
GRADES = ("none", "mild", "moderate", "severe", "critical")
ZONE_METHOD = "equal-height-thirds-of-each-lung"
SIDES = (("right", RIGHT), ("left", LEFT))
LEVELS = ("upper", "middle", "lower")
ZONES = [f"infected_fraction_{side}_{level}" for side, _ in SIDES for level in LEVELS]
QC_FLAGS = (
    "inverted", "rotated", "lungs_not_found", "one_lung_only", "merged_lungs", "lung_area_out_of_range",
    "lung_ratio_out_of_range", "infection_outside_lung", "low_contrast", "out_of_distribution",
    "ensemble_disagreement", "lungs_touch_border", "low_resolution", "sharpness_out_of_range", "uneven_sharpness",
    "evened_contrast", "heavy_compression", "few_grey_levels", "border", "burned_in_text", "laterality_unverified",
    "duplicate_content", "missing_spacing",
)  # fmt: skip
NOTES = ("laterality_unverified", "missing_spacing", "burned_in_text")  # said of the file: no number is in doubt


@dataclass(frozen=True)
class Extent:
    """Numbers of one scored image, areas in source pixels; fractions are None where there is no lung to divide by."""

    fractions: dict[str, float | None]  # in [0, 1]: infected_fraction, ..._right, ..._left and the six zones
    lung_area_px: int
    infected_area_px: int
    right_area_px: int  # of the right lung
    left_area_px: int
    image_area_px: int
    component_count: int
    largest_component_share: float | None
    merged: bool
    outside_share: float
    on_frame: tuple[float, ...]  # lung along the top, bottom, left and right side of the frame, shares of the side

    @property
    def infected_fraction(self) -> float | None:
        """Of the whole lung."""
        return self.fractions["infected_fraction"]

    @property
    def infected_fraction_of_image(self) -> float | None:
        """Of the whole image; None without a lung."""
        return _share(self.infected_area_px, self.image_area_px) if self.lung_area_px else None

    @property
    def extent_0_8(self) -> int | None:
        """Sum over both lungs of 0 none, 1 (0, .25), 2 [.25, .50), 3 [.50, .75], 4 (.75, 1]."""
        return self._sum_of_steps([f"infected_fraction_{side}" for side, _ in SIDES])

    @property
    def zones_extent_0_24(self) -> int | None:
        """The same steps, summed over six zones."""
        return self._sum_of_steps(ZONES)

    @property
    def zones_affected_0_6(self) -> int | None:
        """Count of zones with any infected pixel."""
        return None if self.infected_fraction is None else sum(bool(self.fractions[zone]) for zone in ZONES)

    @property
    def grade(self) -> str | None:
        """Name of the step of the whole fraction, from `GRADE_TABLE`."""
        return None if self.infected_fraction is None else GRADES[step(self.infected_fraction)]

    def cells(self, pixel_spacing_mm: float | None) -> dict[str, float | str | None]:
        """Return the columns of the table that these numbers fill; areas in mm2 only with a detector spacing."""
        mm2 = None if pixel_spacing_mm is None else self.infected_area_px * pixel_spacing_mm**2
        return {
            **self.fractions,
            "infected_fraction_of_image": self.infected_fraction_of_image,
            "lung_area_px": self.lung_area_px,
            "lung_area_fraction": self.lung_area_px / self.image_area_px,
            "infected_area_px": self.infected_area_px,
            "infected_area_mm2": mm2,
            "extent_0_8": self.extent_0_8,
            "zones_extent_0_24": self.zones_extent_0_24,
            "zones_affected_0_6": self.zones_affected_0_6,
            "grade": self.grade,
            "grade_table": GRADE_TABLE,
            "zone_method": ZONE_METHOD,
            "component_count": self.component_count,
            "largest_component_share": self.largest_component_share,
            "lung_ratio_right_left": _share(self.right_area_px, self.left_area_px),
            "infection_outside_lung_fraction": self.outside_share,
        }

    def _sum_of_steps(self, names: list[str]) -> int | None:
        if self.infected_fraction is None:
            return None
        return sum(step(value) for name in names if (value := self.fractions[name]) is not None)


def step(fraction: float) -> int:
    """Put a fraction on the five-step scale 0-4.

    Examples
    --------
    >>> [step(value) for value in (0, 0.1, 0.25, 0.5, 0.75, 0.76)]
    [0, 1, 2, 3, 3, 4]
    """
    return sum((fraction > 0, fraction >= 0.25, fraction >= 0.5, fraction > 0.75))


def measure(masks: Masks) -> Extent:
    """Count pixels per side and zone, of masks at source geometry; with no lung every fraction is None (never 0)."""
    fractions: dict[str, float | None] = {}
    totals = {}
    for (name, _), (lung_rows, infected_rows) in zip(SIDES, _rows_by_side(masks), strict=True):
        totals[name] = (int(lung_rows.sum()), int(infected_rows.sum()))
        fractions[f"infected_fraction_{name}"] = _share(totals[name][1], totals[name][0])
        for level, lung, infected in _zones(lung_rows, infected_rows):
            fractions[f"infected_fraction_{name}_{level}"] = _share(infected, lung)
    lung_area, infected_area = (sum(pair[column] for pair in totals.values()) for column in (0, 1))
    fractions["infected_fraction"] = _share(infected_area, lung_area)
    return Extent(
        fractions, lung_area, infected_area, totals["right"][0], totals["left"][0], masks.lung.size,
        masks.component_count, masks.largest_component_share, masks.merged, masks.outside_share,
        tuple(float(side.mean()) for side in (masks.lung[0], masks.lung[-1], masks.lung[:, 0], masks.lung[:, -1])),
    )  # fmt: skip


def _rows_by_side(masks: Masks) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return pixels a row of the lung and of its infection, right then left; rows above and below the lungs are gone.

    Sides are 0, 1 and 2, so a sum over a row and one over its second bits count both.
    """
    left, top, width, height = cv2.boundingRect(masks.side)
    if not width:
        return [(np.zeros(0, np.int64), np.zeros(0, np.int64)) for _ in SIDES]
    part = np.s_[top : top + height, left : left + width]
    side = masks.side[part]
    counts = [_right_and_left(plane) for plane in (side, side * masks.infection[part])]
    return list(zip(*counts, strict=True))


def _right_and_left(side: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    total, twice_left = (
        cv2.reduce(plane, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.int64)
        for plane in (side, cv2.bitwise_and(side, LEFT))
    )
    return total - twice_left, twice_left // LEFT


def _zones(lung_rows: NDArray[np.int64], infected_rows: NDArray[np.int64]) -> list[tuple[str, int, int]]:
    """Cut one lung's bounding height into equal thirds; return (level, lung pixels, infected pixels)."""
    occupied = np.flatnonzero(lung_rows)
    if not len(occupied):
        return [(level, 0, 0) for level in LEVELS]
    top, bottom = int(occupied[0]), int(occupied[-1]) + 1
    edges = [top + round((bottom - top) * third / 3) for third in range(4)]
    return [
        (level, int(lung_rows[start:stop].sum()), int(infected_rows[start:stop].sum()))
        for level, start, stop in zip(LEVELS, edges[:-1], edges[1:], strict=True)
    ]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def fraction_interval(
    fraction: float | None, presence: float, intervals: FractionIntervals | None
) -> tuple[float | None, float | None]:
    """Return the ends of the infected fraction's interval, in [0, 1] around it; None without a lung or intervals.

    Parameters
    ----------
    fraction : float or None
        Infected share of the lung.
    presence : float
        Probability of any infection, tempered.
    intervals : FractionIntervals or None
        From the model's JSON.
    """
    if fraction is None or intervals is None:
        return None, None
    place = interval_bin(fraction, presence, intervals.doubtful_presence, intervals.edges)
    return max(0.0, fraction + intervals.low[place]), min(1.0, fraction + intervals.high[place])


def interval_bin(fraction: float, presence: float, doubtful_presence: float, edges: tuple[float, ...]) -> int:
    """Return the bin of `FractionIntervals` that an image falls into.

    Examples
    --------
    >>> [interval_bin(fraction, 0.2, 0.1, (0.5,)) for fraction in (0, 0.1, 0.5)], interval_bin(0, 0.01, 0.1, (0.5,))
    ([1, 2, 3], 0)
    """
    return 2 + bisect_right(edges, fraction) if fraction > 0 else int(presence >= doubtful_presence)


UPRIGHT = "L\\F"  # rows run to the patient's left, columns to the feet


def qc_flags(
    extent: Extent, radiograph: Radiograph, limits: FlagLimits, other_flags: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Raise the flags of the closed set that this image deserves, in the set's order.

    Parameters
    ----------
    radiograph : Radiograph
        For contrast, spacing and laterality.
    limits : FlagLimits
        From the model's JSON.
    other_flags : tuple of str
        What the input filter raised (inverted, rotated, out_of_distribution) and what `quality_flags` did.
    """
    raised = {
        "infection_outside_lung": extent.outside_share > limits.infection_outside_lung,
        "low_contrast": _deviation_under(limits.contrast, radiograph),
        "missing_spacing": radiograph.pixel_spacing_mm is None,
        "laterality_unverified": radiograph.orientation != UPRIGHT,
        **(_lung_flags(extent, limits) if extent.lung_area_px else {"lungs_not_found": True}),
    }
    return tuple(flag for flag in QC_FLAGS if flag in other_flags or raised.get(flag))


def _deviation_under(limit: float, radiograph: Radiograph) -> bool:
    """Tell whether grey values deviate by less than a limit: bytes settle it for a tenth, unless they are near it."""
    near = 1 / 255  # rounding to bytes moves a deviation by at most half a grey level
    coarse = float(cv2.meanStdDev(as_bytes(radiograph.samples))[1][0, 0]) / 255
    return coarse < limit if abs(coarse - limit) > near else float(radiograph.pixels.std()) < limit


def _lung_flags(extent: Extent, limits: FlagLimits) -> dict[str, bool]:
    (least_area, most_area), (least_ratio, most_ratio) = limits.lung_area_fraction, limits.lung_ratio_right_left
    right, left = extent.right_area_px, extent.left_area_px
    one_lung = min(right, left) < limits.one_lung_share * extent.lung_area_px
    return {
        "lung_area_out_of_range": not least_area <= extent.lung_area_px / extent.image_area_px <= most_area,
        "one_lung_only": one_lung,
        "lung_ratio_out_of_range": not one_lung and not least_ratio <= right / left <= most_ratio,
        "merged_lungs": extent.merged,
        "lungs_touch_border": sum(share > limits.lung_on_frame for share in extent.on_frame) > 1,
    }
