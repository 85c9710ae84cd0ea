"""Where everything lies on a made chest radiograph: outlines and lines, as fractions of the image.

In: a random stream. Out: an `Anatomy`, vector shapes that any image size can be drawn from, so that
one seed is the same patient at every size. It knows nothing of pixels, exposure or infection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covseg.synthetic.phantom.bones import make_bones
from covseg.synthetic.phantom.frame import (  # fmt: skip
    COSTOPHRENIC,
    DOME,
    LEFT_SIGN,
    LUNG_WALL,
    RIGHT_SIGN,
    SIGNS,
    Frame,
    Points,
    Stroke,
    make_frame,
    smooth,
)

HEART = (
    (-0.20, 0.50), (-0.24, 0.64), (-0.24, 0.78), (-0.17, 0.92), (0.10, 0.98), (0.42, 0.97), (0.60, 0.92), (0.62, 0.83),
    (0.53, 0.70), (0.41, 0.58), (0.29, 0.47), (0.16, 0.41), (-0.08, 0.41),
)  # fmt: skip
PEDICLE = (
    (-0.13, -0.12), (-0.14, 0.1), (-0.15, 0.28), (-0.14, 0.42), (-0.17, 0.6), (0.18, 0.6), (0.22, 0.42), (0.15, 0.355),
    (0.19, 0.31), (0.235, 0.255), (0.20, 0.205), (0.13, 0.17), (0.13, 0.05), (0.14, -0.12),
)  # fmt: skip
TORSO = (
    (0.27, -0.75), (0.28, -0.32), (0.36, -0.20), (0.62, -0.13), (1.0, -0.085), (1.25, 0.0), (1.33, 0.14), (1.24, 0.30),
    (1.16, 0.46), (1.13, 0.75), (1.14, 1.05), (1.18, 1.7),
)  # fmt: skip
ARM = ((1.12, -0.03), (1.36, 0.0), (1.55, 0.2), (1.72, 0.7), (1.9, 1.3), (1.62, 1.3), (1.42, 0.7), (1.24, 0.3))
TRACHEA = ((0.0, -0.5), (0.0, -0.1), (-0.025, 0.2), (-0.03, 0.34))  # the aortic arch pushes it to the right
HILUM = {RIGHT_SIGN: (0.20, 0.45), LEFT_SIGN: (0.20, 0.42)}
BREASTS, GAS_BUBBLE, WIRE = 0.4, 0.8, 0.2  # share of the images that show them


@dataclass(frozen=True)
class Anatomy:
    """Outlines ``(N, 2)`` of (x, y) as fractions of the image, and the lines drawn inside them.

    `lungs` are the pleural outlines of ``right`` and ``left``; what heart and mediastinum hide is still inside.
    `pedicle` is the upper mediastinum with the aortic knob. By tissue, `outlines` are ``scapula``, ``humerus``,
    ``vertebra``, ``arm``, ``breast``, ``gas``, ``hilum``; `strokes` are ``posterior_rib``, ``anterior_rib``,
    ``clavicle``, ``process``, ``trachea``, ``vessel``, ``wire``. `center` and `half_width` are the midline and the half
    width of the thorax, as fractions of the image's width; the half width is the unit of lengths.
    """

    lungs: dict[str, Points]
    heart: Points
    pedicle: Points
    torso: Points
    abdomen: Points
    outlines: dict[str, list[Points]]
    strokes: dict[str, list[Stroke]]
    center: float
    half_width: float


def make_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one patient; the stream is consumed in a fixed order, and the image's size plays no part."""
    frame = make_frame(rng)
    lungs = {"right": _lung(rng, frame, RIGHT_SIGN), "left": _lung(rng, frame, LEFT_SIGN)}
    outlines, strokes = make_bones(rng, frame)
    outlines.update(_organs(rng, frame))
    strokes["trachea"] = [frame.stroke(LEFT_SIGN, TRACHEA, 0.11)]
    strokes["vessel"] = [pen for sign in SIGNS for pen in _vessels(rng, frame, sign)]
    strokes["wire"] = _wire(rng, frame)
    return Anatomy(
        lungs=lungs,
        heart=_heart(rng, frame),
        pedicle=frame.outline(np.add(PEDICLE, rng.normal(0, 0.006, (len(PEDICLE), 2))), LEFT_SIGN),
        torso=_torso(rng, frame),
        abdomen=_abdomen(frame),
        outlines=outlines,
        strokes=strokes,
        center=frame.center,
        half_width=float(np.mean(list(frame.half.values()))),
    )


def _lung(rng: np.random.Generator, frame: Frame, sign: float) -> Points:
    """Outline one pleural space, down to its dome."""
    outline = np.vstack([LUNG_WALL, frame.raised(COSTOPHRENIC + DOME, sign), [(0.04, 0.6), (0.06, 0.25)]])
    outline[3:9] += rng.normal(0, 0.008, (6, 2))
    return frame.outline(outline, sign)


def _heart(rng: np.random.Generator, frame: Frame) -> Points:
    """Outline the heart, its apex to the patient's left."""
    size = (rng.uniform(0.88, 1.12), 1.0)
    shape = np.multiply(HEART, size) + rng.normal(0, 0.008, (len(HEART), 2))
    shape[:, 1] += rng.uniform(-0.02, 0.02)
    return frame.outline(shape, LEFT_SIGN)


def _abdomen(frame: Frame) -> Points:
    """Outline what lies below the two domes."""
    below = ((1.6, 1.9), (1.6, 1.24), (1.2, 1.12), (1.06, 1.04), (0.985, 1.0), *DOME)
    right, left = (smooth(frame.place(frame.raised(below, sign), sign), closed=False) for sign in SIGNS)
    return np.concatenate([right, left[::-1]])


def _torso(rng: np.random.Generator, frame: Frame) -> Points:
    girth = (rng.uniform(0.94, 1.12), 1.0)
    right, left = (smooth(frame.place(np.multiply(TORSO, girth), sign), closed=False) for sign in SIGNS)
    return np.concatenate([right, left[::-1]])


def _organs(rng: np.random.Generator, frame: Frame) -> dict[str, list[Points]]:
    """Outline arms, hila, and on some images breasts and the gas in the stomach."""
    arm = np.array(ARM)
    arm[3:7, 0] += rng.uniform(-0.22, 0.1)
    breast = (rng.uniform(0.6, 0.7), rng.uniform(0.78, 0.9)), (rng.uniform(0.32, 0.42), rng.uniform(0.2, 0.28))
    gas = (rng.uniform(0.4, 0.6), 0.965 - frame.lift[LEFT_SIGN]), (rng.uniform(0.12, 0.22), 0.05)
    shown = rng.random(2) < (BREASTS, GAS_BUBBLE)
    return {
        "arm": [frame.outline(arm, sign) for sign in SIGNS],
        "hilum": [frame.ellipse(sign, HILUM[sign], (0.075, 0.075)) for sign in SIGNS],
        "breast": [frame.ellipse(sign, *breast, 0.1) for sign in SIGNS] if shown[0] else [],
        "gas": [frame.ellipse(LEFT_SIGN, *gas, 0.1)] if shown[1] else [],
    }


def _vessels(rng: np.random.Generator, frame: Frame, sign: float) -> list[Stroke]:
    """Grow vessels from the hilum outwards, thinner and fainter with every fork."""
    angles = np.linspace(-1.4, 1.5, 8) + rng.normal(0, 0.15, 8)
    starts = np.tile([0.19, 0.43], (8, 1)) + rng.normal(0, 0.025, (8, 2))
    strokes = []
    for generation in range(5):
        count = len(angles)
        length = rng.uniform(0.07, 0.15, count) * 0.9**generation
        curve = angles[:, None] + rng.normal(0, 0.3, (count, 1)) * np.linspace(0, 1, 5)
        steps = np.stack([np.cos(curve), np.sin(curve)], axis=2) * (length / 5)[:, None, None]
        lines = starts[:, None] + np.concatenate([np.zeros((count, 1, 2)), steps.cumsum(axis=1)], axis=1)
        strokes.append(Stroke(frame.place(lines, sign), 0.021 * 0.68**generation * frame.half[sign], 0.85**generation))
        spread = rng.uniform(0.15, 0.45, count)
        angles = np.concatenate([curve[:, -1] + spread, curve[:, -1] - spread])
        starts = np.concatenate([lines[:, -1], lines[:, -1]])
    return strokes


def _wire(rng: np.random.Generator, frame: Frame) -> list[Stroke]:
    """Lay an electrode's lead over some images."""
    start, sign, bend = rng.uniform(0.3, 0.9), float(rng.choice(SIGNS)), rng.normal(0, 0.12, 2)
    path = [(start, -0.3), (start + bend[0], 0.2), (start + bend[1], 0.5), (start + 0.1, 0.75)]
    return [frame.stroke(sign, path, 0.012)] if rng.random() < WIRE else []
