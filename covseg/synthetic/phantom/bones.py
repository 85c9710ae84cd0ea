"""The skeleton of a made chest: ribs, clavicles, spine, shoulders.

In: a `Frame` and a random stream. Out: outlines and strokes by name, for ``image.py`` to draw.
"""

from __future__ import annotations

import numpy as np

from covseg.synthetic.phantom.frame import LEFT_SIGN, SIGNS, Frame, Points, Stroke, wall_at

POSTERIOR_RIBS, ANTERIOR_RIBS = 11, 8
VERTEBRA = 0.088  # height of a vertebra with its disc
CLAVICLE = ((0.11, 0.16), (0.26, 0.14), (0.52, 0.085), (0.78, 0.02), (1.0, 0.0), (1.14, 0.01))
SCAPULA = (
    (0.72, 0.10), (0.98, 0.04), (1.18, 0.08), (1.22, 0.16), (1.10, 0.26), (1.02, 0.44), (0.95, 0.60), (0.88, 0.50),
    (0.80, 0.30),
)  # fmt: skip


def make_bones(rng: np.random.Generator, frame: Frame) -> tuple[dict[str, list[Points]], dict[str, list[Stroke]]]:
    """Draw one skeleton.

    Returns
    -------
    outlines : dict of str to list of ndarray
        ``scapula``, ``humerus``, ``vertebra``.
    strokes : dict of str to list of Stroke
        ``posterior_rib``, ``anterior_rib``, ``clavicle``, ``process``.
    """
    reach, drop = rng.uniform(0.0, 0.16), rng.uniform(-0.03, 0.05)
    tilt = rng.normal(0, 0.02)
    outlines = {
        "scapula": [frame.outline(np.add(SCAPULA, (reach, drop)), sign) for sign in SIGNS],
        "humerus": [frame.ellipse(sign, (1.3 + 0.3 * reach, 0.06 + drop), (0.13, 0.065), 0.1) for sign in SIGNS],
        "vertebra": [_vertebra(frame, level) for level in np.arange(-0.3, 1.6, VERTEBRA)],
    }
    strokes = {
        **_ribs(rng, frame),
        "clavicle": [frame.stroke(sign, np.add(CLAVICLE, (0, sign * tilt)), 0.075) for sign in SIGNS],
        "process": [_processes(frame, sign) for sign in SIGNS],
    }
    return outlines, strokes


def _ribs(rng: np.random.Generator, frame: Frame) -> dict[str, list[Stroke]]:
    slope, spacing, first = rng.uniform(0.13, 0.23), rng.uniform(0.086, 0.098), rng.uniform(-0.09, -0.05)
    posterior, anterior = [], []
    for sign in SIGNS:
        for number in range(POSTERIOR_RIBS):
            back, front = _rib(first + spacing * number, number, slope)
            posterior.append(frame.stroke(sign, back, 0.075, 1 - 0.03 * number))
            if number < ANTERIOR_RIBS:
                anterior.append(frame.stroke(sign, front, 0.085, 1 - 0.05 * number))
    return {"posterior_rib": posterior, "anterior_rib": anterior}


def _rib(start: float, number: int, slope: float) -> tuple[Points, Points]:
    """Return the back arc from the spine to the lateral wall, and the front arc from there towards the sternum."""
    turn = start + slope + 0.02 * number + 0.03
    u = max(wall_at(max(turn, 0.02)), 0.34) + 0.005
    drop, fall = turn - start, 0.10 + 0.018 * number
    back = [(0.06, 0.0), (0.3 * u, -0.015), (0.55 * u, 0.1 * drop), (0.82 * u, 0.42 * drop), (0.96 * u, 0.75 * drop)]
    front = [
        (u, -0.01),
        (0.985 * u, 0.25 * fall),
        (0.87 * u, 0.62 * fall),
        (0.66 * u, 0.9 * fall),
        (0.42 * u, 1.02 * fall),
    ]
    return np.add([*back, (u, drop)], (0, start)), np.add(front, (0, turn))


def _vertebra(frame: Frame, level: float) -> Points:
    """Outline one vertebral body, waisted in the middle; lower ones are wider."""
    half = 0.105 + 0.025 * level
    corners = [(-half, 0.0), (half, 0.0), (half * 0.9, 0.036), (half, 0.072), (-half, 0.072), (-half * 0.9, 0.036)]
    return frame.place(np.add(corners, (0, level)), LEFT_SIGN)


def _processes(frame: Frame, sign: float) -> Stroke:
    """Draw one side's transverse processes, all with one pen."""
    levels = np.arange(-0.26, 1.5, VERTEBRA)
    ends = [np.column_stack([np.full(len(levels), u), levels - rise]) for u, rise in ((0.05, 0.0), (0.2, 0.012))]
    return Stroke(frame.place(np.stack(ends, axis=1), sign), 0.045 * frame.half[sign], 0.8)
