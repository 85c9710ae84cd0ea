"""Rough attenuation physics: an anatomy and an opacity field to a film.

In: vector shapes. Out: grey values in [0, 1], bone bright. Attenuation is summed along the beam,
scatter veils it, and the exposure maps it to grey the way a digital detector's default curve does.
Shapes are drawn at no more than `DRAWN` pixels a side, then enlarged: finer detail than that is
noise, and noise is made at full size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.phantom.anatomy import Anatomy, Points, Stroke
from covseg.phantom.infection import Field, smooth_noise

DRAWN = 512
SUBPIXEL = 4  # bits of cv2's fixed-point coordinates


@dataclass(frozen=True)
class Exposure:
    """How one film was taken.

    Parameters
    ----------
    shoulder, gamma, veil, noise, blur, crispness : float
        How early the curve flattens towards white, its exponent, share of scatter, deviation of the noise in grey, blur as a fraction of the width, edge enhancement.
    black, white : float
        Percentiles of attenuation that become black and white.
    aeration : float
        How much less than soft tissue the lungs attenuate.
    bone : float
        Density of bone, relative.
    marker : str
        Letter of the side marker.
    collimation : tuple of float
        Black margins: left, top, right, bottom, as fractions of the film.
    """

    shoulder: float
    gamma: float
    veil: float
    noise: float
    blur: float
    crispness: float
    black: float
    white: float
    aeration: float
    bone: float
    marker: str
    collimation: tuple[float, float, float, float]


def make_exposure(rng: np.random.Generator) -> Exposure:
    """Draw how a film was taken."""
    margins = rng.uniform(0, 0.03, 4) * (rng.random(4) < 0.25)
    return Exposure(
        shoulder=rng.uniform(0.6, 2.0),
        gamma=rng.uniform(1.2, 1.9),
        veil=rng.uniform(0.1, 0.3),
        noise=rng.uniform(0.004, 0.012),
        blur=rng.uniform(0.0005, 0.002),
        crispness=rng.uniform(0.1, 0.6),
        black=rng.uniform(0.5, 2.5),
        white=rng.uniform(98.0, 99.8),
        aeration=rng.uniform(0.36, 0.46),
        bone=rng.uniform(0.7, 1.2),
        marker=str(rng.choice(["R", "L"])),
        collimation=(float(margins[0]), float(margins[1]), float(margins[2]), float(margins[3])),
    )


def lung_masks(anatomy: Anatomy, height: int, width: int) -> dict[str, NDArray[np.uint8]]:
    """Draw the two lungs as a reader would outline them: without heart, mediastinum and abdomen.

    Returns
    -------
    dict of str to ndarray of uint8, shape (height, width)
        ``right`` and ``left``, the patient's; 0 or 1, never overlapping.
    """
    hidden = _fill([anatomy.heart, anatomy.pedicle, anatomy.abdomen], height, width, smooth_edge=False)
    masks = {}
    for side, outline in anatomy.lungs.items():
        mask = _fill([outline], height, width, smooth_edge=False)
        mask[hidden > 0] = 0
        masks[side] = mask // 255
    masks["left"] &= 1 - masks["right"]
    return masks


def expose(anatomy: Anatomy, opacity: Field, exposure: Exposure, rng: np.random.Generator, height: int, width: int) -> Field:
    """Take the film.

    Parameters
    ----------
    anatomy : Anatomy
    opacity : ndarray of float32
        Infection, any grid; resized.
    exposure : Exposure
    rng : numpy Generator
        For texture and noise.
    height, width : int
        Of the film in pixels.

    Returns
    -------
    ndarray of float32, shape (height, width)
        Grey values in [0, 1].
    """
    drawn_height, drawn_width = min(height, DRAWN), min(width, DRAWN)
    attenuation = _attenuation(anatomy, opacity, exposure, rng, drawn_height, drawn_width)
    grey = _develop(attenuation, exposure)
    if (drawn_height, drawn_width) != (height, width):
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    grey += (exposure.noise * (0.6 + 0.6 * grey)) * rng.standard_normal((height, width), dtype=np.float32)
    _mark(grey, exposure)
    return np.clip(grey, 0, 1, out=grey)


def _attenuation(
    anatomy: Anatomy, opacity: Field, exposure: Exposure, rng: np.random.Generator, height: int, width: int
) -> Field:
    """Sum what every tissue takes from the beam; 1 is about the upper abdomen."""
    unit = anatomy.half_width * width

    def area(outlines: list[Points], soft: float) -> Field:
        return _blurred(_fill(outlines, height, width).astype(np.float32) / 255, soft * unit)

    def lines(strokes: list[Stroke], soft: float) -> Field:
        return _blurred(_draw(strokes, height, width).astype(np.float32) / 255, soft * unit)

    torso = _fill([anatomy.torso], height, width)
    air = _air(anatomy, height, width, unit)
    grain = 1 + 0.07 * smooth_noise(rng, height, width, 24) + 0.05 * smooth_noise(rng, height, width, 60)
    bone = exposure.bone * (1 + 0.06 * smooth_noise(rng, height, width, 90))
    shapes, strokes = anatomy.shapes, anatomy.strokes
    total = 0.62 * _thickness(torso, 0.5 * unit) * (1 + 0.03 * smooth_noise(rng, height, width, 7))
    total += 0.42 * np.maximum(area(shapes["arm"], 0.05) - torso / 255, 0) * (torso < 128)
    below = area([anatomy.abdomen], 0.012) * (torso / 255)
    total += 0.30 * below + np.maximum(0.19 * area([anatomy.pedicle], 0.03), 0.22 * area([anatomy.heart], 0.02)) * (1 - 0.8 * below)
    total += 0.06 * area(shapes["breast"], 0.02) + 0.07 * area(shapes["hilum"], 0.06)
    total -= 0.22 * area(shapes["gas"], 0.02)
    total -= exposure.aeration * air * np.maximum(grain, 0.5)
    filled = cv2.resize(opacity, (width, height), interpolation=cv2.INTER_LINEAR)
    mottle = np.clip(1 + 0.15 * smooth_noise(rng, height, width, 30) + 0.10 * smooth_noise(rng, height, width, 70), 0.5, 1.5)
    total += 0.6 * exposure.aeration * air * filled * mottle
    total += (0.09 + 0.03 * filled) * lines(strokes["vessel"], 0.006) * (0.25 + air)
    aside = np.abs(np.arange(width, dtype=np.float32) / width - anatomy.center) / anatomy.half_width
    total += 0.12 * bone * _rib_profile(strokes["posterior_rib"], height, width, unit) * np.clip(4 * aside - 0.3, 0, 1)
    total += 0.08 * bone * _rib_profile(strokes["anterior_rib"], height, width, unit) * np.clip(2.5 * aside - 1, 0, 1)
    total += 0.17 * bone * _rib_profile(strokes["clavicle"], height, width, unit)
    total += bone * (0.11 * area(shapes["scapula"], 0.012) + 0.16 * area(shapes["humerus"], 0.02))
    total += bone * (0.10 * area(shapes["vertebra"], 0.012) + 0.05 * lines(strokes["spine"], 0.015))
    total -= 0.12 * lines(strokes["trachea"], 0.02)
    total += 0.25 * lines(strokes["wire"], 0.002)
    return total.astype(np.float32)


def _air(anatomy: Anatomy, height: int, width: int, unit: float) -> Field:
    """Depth of aerated lung along the beam, [0, 1]: thin at the edges, thickest in the middle of each lung."""
    depth = np.zeros((height, width), np.float32)
    for mask in lung_masks(anatomy, height, width).values():
        inside = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        depth += (mask > 0) * (0.5 + 0.5 * (1 - np.exp(-inside / (0.12 * unit))))
    return _blurred(depth, 0.012 * unit)


def _thickness(mask: NDArray[np.uint8], reach: float) -> Field:
    """Thickness of a rounded body [0, 1]: a quarter ellipse from its outline inwards."""
    inside = np.minimum(cv2.distanceTransform(mask // 255, cv2.DIST_L2, 3) / reach, 1)
    return np.sqrt(1 - (1 - inside) ** 2)


def _rib_profile(strokes: list[Stroke], height: int, width: int, unit: float) -> Field:
    """Draw bones with a denser cortex along both edges."""
    whole = _draw(strokes, height, width).astype(np.float32)
    marrow = _draw([Stroke(stroke.points, stroke.thickness * 0.6, stroke.density) for stroke in strokes], height, width)
    return _blurred((whole - 0.3 * marrow) / 255, 0.007 * unit)


def _develop(attenuation: Field, exposure: Exposure) -> Field:
    """Veil with scatter, blur, and map attenuation to grey."""
    height, width = attenuation.shape
    small = cv2.resize(attenuation, (64, 64), interpolation=cv2.INTER_AREA)
    scatter = cv2.resize(cv2.GaussianBlur(small, (0, 0), 7), (width, height), interpolation=cv2.INTER_LINEAR)
    veiled = _blurred((1 - exposure.veil) * attenuation + exposure.veil * scatter, exposure.blur * width)
    veiled += exposure.crispness * (veiled - _blurred(veiled, 0.012 * width))
    low, high = np.percentile(veiled[::4, ::4], [exposure.black, exposure.white])
    linear = np.clip((veiled - low) / (high - low), 0, 1.1)
    flattened = (1 - np.exp(-exposure.shoulder * linear)) / (1 - np.exp(-exposure.shoulder))
    return flattened**exposure.gamma


def _mark(grey: Field, exposure: Exposure) -> None:
    """Blacken what the collimator shut out and set the lead marker on the side it names."""
    height, width = grey.shape
    left, top, right, bottom = exposure.collimation
    grey[:, : round(left * width)] = grey[:, width - round(right * width) :] = 0
    grey[: round(top * height)] = grey[height - round(bottom * height) :] = 0
    scale = height / 460
    x = 0.05 if exposure.marker == "R" else 0.90
    place = (round(x * width), round(0.12 * height))
    letter = np.zeros(grey.shape, np.uint8)
    cv2.putText(letter, exposure.marker, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, round(2.2 * scale)), cv2.LINE_AA)
    np.maximum(grey, letter.astype(np.float32) / 255, out=grey)


def _blurred(layer: Field, sigma: float) -> Field:
    return cv2.GaussianBlur(layer, (0, 0), sigma) if sigma > 0.35 else layer


def _fixed(points: Points, height: int, width: int) -> NDArray[np.int32]:
    """Film fractions to cv2's fixed-point pixel coordinates (pixel centres at whole numbers)."""
    return np.round((points * (width, height) - 0.5) * (1 << SUBPIXEL)).astype(np.int32)


def _fill(outlines: list[Points], height: int, width: int, smooth_edge: bool = True) -> NDArray[np.uint8]:
    canvas = np.zeros((height, width), np.uint8)
    for outline in outlines:
        cv2.fillPoly(canvas, [_fixed(outline, height, width)], 255, cv2.LINE_AA if smooth_edge else cv2.LINE_8, SUBPIXEL)
    return canvas


def _draw(strokes: list[Stroke], height: int, width: int) -> NDArray[np.uint8]:
    """Draw lines, the densest last, so that a faint one never covers it."""
    canvas = np.zeros((height, width), np.uint8)
    for stroke in sorted(strokes, key=lambda stroke: stroke.density):
        thickness = max(1, round(stroke.thickness * width))
        points = list(_fixed(stroke.points, height, width))
        cv2.polylines(canvas, points, False, 255 * stroke.density, thickness, cv2.LINE_AA, SUBPIXEL)
    return canvas
