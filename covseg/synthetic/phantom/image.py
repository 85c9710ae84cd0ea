"""Rough attenuation physics: an anatomy and an opacity field to an image.

In: vector shapes. Out: grey values in [0, 1], bone bright. Attenuation is summed along the beam,
scatter veils it, and the exposure maps it to grey the way a digital detector's default curve does.
Shapes are drawn at no more than `DRAWN` pixels a side, then enlarged: finer detail than that is
noise, and noise is made at full size. The weights of the tissues were chosen by eye and by histogram
beside real images.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from covseg.records import Mask
from covseg.synthetic.phantom.anatomy import Anatomy
from covseg.synthetic.phantom.draw import Field, blurred, draw, fill, smooth_noise
from covseg.synthetic.phantom.exposure import Exposure, develop, mark
from covseg.synthetic.phantom.frame import Stroke

DRAWN = 512


@dataclass(frozen=True)
class _Canvas:
    """Where one image is drawn: its size in pixels, and the half width of the thorax in pixels."""

    anatomy: Anatomy
    height: int
    width: int

    @property
    def unit(self) -> float:
        return self.anatomy.half_width * self.width

    @property
    def aside(self) -> Field:
        """Distance from the midline in half widths, ``(width,)``."""
        place = np.arange(self.width) / self.width
        return (np.abs(place - self.anatomy.center) / self.anatomy.half_width).astype(np.float32)

    def area(self, name: str, softness: float) -> Field:
        """Fill the outlines of a tissue, edges blurred by `softness` half widths."""
        outlines = self.anatomy.outlines.get(name) or []
        return self.soft(fill(outlines, self.height, self.width), softness)

    def lines(self, name: str, softness: float) -> Field:
        """Draw the strokes of a tissue."""
        return self.soft(draw(self.anatomy.strokes[name], self.height, self.width), softness)

    def bones(self, name: str) -> Field:
        """Draw the strokes of a bone with a denser cortex along both edges."""
        strokes = self.anatomy.strokes[name]
        whole = draw(strokes, self.height, self.width)
        inner = [Stroke(stroke.points, stroke.thickness * 0.6, stroke.density) for stroke in strokes]
        marrow = draw(inner, self.height, self.width)
        return blurred(cv2.addWeighted(whole, 1 / 255, marrow, -0.3 / 255, 0, dtype=cv2.CV_32F), 0.005 * self.unit)

    def soft(self, layer: Mask, softness: float) -> Field:
        """Turn a drawn layer 0-255 into [0, 1] with soft edges."""
        return blurred(layer.astype(np.float32) / np.float32(255), softness * self.unit)

    def grain(self, rng: np.random.Generator, cells: int) -> Field:
        """Return texture of zero mean and unit deviation."""
        return smooth_noise(rng, self.height, self.width, cells)


def lung_masks(anatomy: Anatomy, height: int, width: int) -> dict[str, Mask]:
    """Draw the two lungs as a reader would outline them: without heart, mediastinum and abdomen.

    Returns
    -------
    dict of str to ndarray of uint8, shape (height, width)
        ``right`` and ``left``, the patient's; 0 or 1, never overlapping.
    """
    hidden = fill([anatomy.heart, anatomy.pedicle, anatomy.abdomen], height, width, antialias=False)
    masks = {}
    for side, outline in anatomy.lungs.items():
        masks[side] = (fill([outline], height, width, antialias=False) & ~hidden) // 255
    masks["left"] &= 1 - masks["right"]
    return masks


def expose(
    anatomy: Anatomy, opacity: Field, exposure: Exposure, rng: np.random.Generator, size: tuple[int, int]
) -> Field:
    """Take the image.

    Parameters
    ----------
    opacity : ndarray of float32
        Infection in [0, 1], on any grid; resized.
    rng : numpy Generator
        For texture and noise.
    size : tuple of int
        Height and width of the image in pixels.

    Returns
    -------
    ndarray of float32, shape (height, width)
        Grey values in [0, 1].
    """
    canvas = _Canvas(anatomy, min(size[0], DRAWN), min(size[1], DRAWN))
    attenuation = _body(canvas, rng)
    attenuation += _skeleton(canvas, rng, exposure.bone)
    attenuation += exposure.aeration * _lungs(canvas, opacity, rng)
    attenuation += 0.25 * canvas.lines("wire", 0.002)
    grey = cv2.resize(develop(attenuation, exposure), size[::-1], interpolation=cv2.INTER_LINEAR)
    grey += (exposure.noise * (0.6 + 0.6 * grey)) * rng.standard_normal(size, dtype=np.float32)
    mark(grey, exposure)
    return np.clip(grey, 0, 1, out=grey)


def _body(canvas: _Canvas, rng: np.random.Generator) -> Field:
    """Sum the soft tissue, as if the lungs were full of it; 1 is about the upper abdomen."""
    anatomy, height, width = canvas.anatomy, canvas.height, canvas.width
    torso = fill([anatomy.torso], height, width)
    arms = fill(anatomy.outlines["arm"], height, width)
    body = np.maximum(0.62 * _thickness(torso, 0.5 * canvas.unit), 0.5 * _thickness(arms, 0.2 * canvas.unit))
    body *= 1 + 0.03 * canvas.grain(rng, 7)
    rounded = np.sqrt(np.clip(1 - (canvas.aside / 1.3) ** 4, 0, 1))
    below = canvas.soft(fill([anatomy.abdomen], height, width) & torso, 0.012) * rounded
    heart, pedicle = (
        canvas.soft(fill([outline], height, width), 0.025) for outline in (anatomy.heart, anatomy.pedicle)
    )
    body += 0.30 * below + np.maximum(0.19 * pedicle, 0.22 * heart) * (1 - 0.8 * below)
    body += 0.06 * canvas.area("breast", 0.02) + 0.07 * canvas.area("hilum", 0.06)
    return body - 0.22 * canvas.area("gas", 0.02) - 0.12 * canvas.lines("trachea", 0.02)


def _skeleton(canvas: _Canvas, rng: np.random.Generator, density: float) -> Field:
    """Sum the bones; ribs fade towards the midline, where cartilage and spine take over."""
    bones = 0.10 * canvas.bones("posterior_rib") * np.clip(4 * canvas.aside - 0.3, 0, 1)
    bones += 0.06 * canvas.bones("anterior_rib") * np.clip(2.5 * canvas.aside - 1, 0, 1)
    bones += 0.13 * canvas.bones("clavicle")
    bones += 0.11 * canvas.area("scapula", 0.012) + 0.16 * canvas.area("humerus", 0.02)
    bones += 0.10 * canvas.area("vertebra", 0.012) + 0.05 * canvas.lines("process", 0.015)
    return density * bones * (1 + 0.06 * canvas.grain(rng, 90))


def _lungs(canvas: _Canvas, opacity: Field, rng: np.random.Generator) -> Field:
    """Sum what air takes away, and vessels and infection give back; -1 is a whole lung of air."""
    air = _air(canvas)
    filled = cv2.resize(opacity, (canvas.width, canvas.height), interpolation=cv2.INTER_LINEAR)
    mottle = np.clip(1 + 0.12 * canvas.grain(rng, 30) + 0.08 * canvas.grain(rng, 70), 0.5, 1.5)
    parenchyma = 1 + 0.02 * canvas.grain(rng, 24) + 0.012 * canvas.grain(rng, 60)
    vessels = (0.16 + 0.06 * filled) * canvas.lines("vessel", 0.006) * (0.25 + air)
    return air * (0.6 * filled * mottle - parenchyma) + vessels


def _air(canvas: _Canvas) -> Field:
    """Depth of aerated lung along the beam, [0, 1]: thin at the edges, thickest in the middle of each lung."""
    masks = lung_masks(canvas.anatomy, canvas.height, canvas.width)
    lung = masks["right"] | masks["left"]
    inside = cv2.distanceTransform(lung, cv2.DIST_L2, 3)
    return blurred(lung * (1 - 0.4 * np.exp(-inside / np.float32(0.12 * canvas.unit))), 0.012 * canvas.unit)


def _thickness(mask: Mask, reach: float) -> Field:
    """Thickness of a rounded body [0, 1]: a quarter ellipse from its outline inwards."""
    inside = np.minimum(cv2.distanceTransform(mask // 255, cv2.DIST_L2, 3) / np.float32(reach), 1)
    return blurred(np.sqrt(1 - (1 - inside) ** 2), 0.06 * reach)
