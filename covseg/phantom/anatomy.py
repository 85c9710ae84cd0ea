"""Where everything lies on a made chest film: outlines and lines, as fractions of the film.

In: a random stream. Out: an `Anatomy`, vector shapes that any film size can be drawn from, so that
one seed is the same patient at every size. It knows nothing of pixels, exposure or infection.

Thorax coordinates (u, v) are used to build it: u is 0 at the midline and 1 at a lung's widest, v is
0 at the lung apex and 1 at the costophrenic angle. The patient's right is image left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
RIGHT_SIGN, LEFT_SIGN = -1.0, 1.0

# Lateral lung wall, apex to costophrenic angle, then the dome back to the midline; read off the mean
# lung masks of adult frontal films.
LUNG_WALL = ((0.14, 0.10), (0.19, 0.03), (0.30, 0.0), (0.46, 0.035), (0.60, 0.13), (0.73, 0.28), (0.83, 0.46), (0.91, 0.66))
COSTOPHRENIC = ((0.97, 0.86), (0.995, 0.985), (0.985, 1.0))
DOME = ((0.90, 0.935), (0.74, 0.875), (0.54, 0.85), (0.34, 0.86), (0.16, 0.88), (0.0, 0.90))
HEART = ((-0.20, 0.50), (-0.24, 0.64), (-0.24, 0.78), (-0.17, 0.92), (0.10, 0.98), (0.42, 0.97), (0.60, 0.92), (0.62, 0.83),
         (0.53, 0.70), (0.41, 0.58), (0.29, 0.47), (0.16, 0.41), (-0.08, 0.41))  # fmt: skip
VESSEL_PEDICLE = ((-0.13, -0.12), (-0.14, 0.1), (-0.15, 0.28), (-0.14, 0.42), (-0.17, 0.6), (0.18, 0.6), (0.22, 0.42),
                  (0.15, 0.355), (0.19, 0.31), (0.235, 0.255), (0.20, 0.205), (0.13, 0.17), (0.13, 0.05), (0.14, -0.12))  # fmt: skip
TORSO = ((0.27, -0.75), (0.28, -0.32), (0.36, -0.20), (0.62, -0.13), (1.0, -0.085), (1.25, 0.0), (1.33, 0.14), (1.24, 0.30),
         (1.16, 0.46), (1.13, 0.75), (1.14, 1.05), (1.18, 1.7))  # fmt: skip
SCAPULA = ((0.72, 0.10), (0.98, 0.04), (1.18, 0.08), (1.22, 0.16), (1.10, 0.26), (1.02, 0.44), (0.95, 0.60), (0.88, 0.50),
           (0.80, 0.30))  # fmt: skip


@dataclass(frozen=True)
class Stroke:
    """Lines drawn with one pen: points ``(K, N, 2)`` and thickness as fractions of the film, density in (0, 1]."""

    points: Points
    thickness: float
    density: float = 1.0


@dataclass(frozen=True)
class Anatomy:
    """Outlines ``(N, 2)`` of (x, y) as fractions of the film, and the lines drawn inside them.

    Parameters
    ----------
    lungs : dict of str to ndarray
        Pleural outline of ``right`` and ``left``; what heart and mediastinum hide is still inside.
    heart, pedicle, torso, abdomen : ndarray
        Outlines; `pedicle` is the upper mediastinum with the aortic knob.
    shapes : dict of str to list of ndarray
        Outlines by tissue: ``scapula``, ``humerus``, ``arm``, ``breast``, ``gas``, ``hilum``, ``vertebra``.
    strokes : dict of str to list of Stroke
        Lines by tissue: ``posterior_rib``, ``anterior_rib``, ``clavicle``, ``trachea``, ``spine``, ``vessel``, ``wire``.
    center, half_width : float
        Midline and half width of the thorax, as fractions of the film's width; the half width is the unit of lengths.
    """

    lungs: dict[str, Points]
    heart: Points
    pedicle: Points
    torso: Points
    abdomen: Points
    shapes: dict[str, list[Points]]
    strokes: dict[str, list[Stroke]]
    center: float
    half_width: float


@dataclass(frozen=True)
class _Frame:
    """How thorax coordinates lie on the film."""

    center: float
    apex: float
    height: float
    half: dict[float, float]  # by sign
    base_lift: dict[float, float]  # the right dome is higher
    turn: NDArray[np.float64]

    def place(self, points: NDArray, sign: float) -> Points:
        """Map (u, v) ``(N, 2)`` of one side to film fractions; u below 0 crosses the midline."""
        u, v = points[:, 0], points[:, 1]
        half = np.where(u >= 0, self.half[sign], self.half[-sign])
        x, y = self.center + sign * u * half, self.apex + v * self.height
        return np.column_stack([x - 0.5, y - 0.5]) @ self.turn.T + 0.5


def smooth(points: NDArray, closed: bool = True, steps: int = 8) -> Points:
    """Pass a Catmull-Rom spline through control points ``(N, 2)``; returns ``(M, 2)``."""
    points = np.asarray(points, dtype=float)
    ring = np.vstack([points[-1:], points, points[:2]]) if closed else np.vstack([points[:1], points, points[-1:]])
    a, b, c, d = ring[:-3, None], ring[1:-2, None], ring[2:-1, None], ring[3:, None]
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve.reshape(-1, 2) if closed else np.vstack([curve.reshape(-1, 2), points[-1:]])


def make_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one patient.

    Parameters
    ----------
    rng : numpy Generator
        Consumed in a fixed order; the film's size plays no part.
    """
    frame = _frame(rng)
    lungs = {"right": _lung(rng, frame, RIGHT_SIGN), "left": _lung(rng, frame, LEFT_SIGN)}
    size = rng.uniform(0.88, 1.12)
    heart = np.array(HEART) * (size, 1) + rng.normal(0, 0.008, (len(HEART), 2)) + (0, rng.uniform(-0.02, 0.02))
    shapes, strokes = _soft_shapes(rng, frame), _bones(rng, frame)
    strokes["vessel"] = [*_vessels(rng, frame, RIGHT_SIGN), *_vessels(rng, frame, LEFT_SIGN)]
    strokes["trachea"] = [_trachea(frame)]
    strokes["wire"] = _wires(rng, frame)
    return Anatomy(
        lungs=lungs,
        heart=smooth(frame.place(heart, LEFT_SIGN)),
        pedicle=smooth(frame.place(np.array(VESSEL_PEDICLE) + rng.normal(0, 0.006, (len(VESSEL_PEDICLE), 2)), LEFT_SIGN)),
        torso=_torso(rng, frame),
        abdomen=_abdomen(frame),
        shapes=shapes,
        strokes=strokes,
        center=frame.center,
        half_width=float(np.mean(list(frame.half.values()))),
    )


def _frame(rng: np.random.Generator) -> _Frame:
    half = rng.uniform(0.345, 0.445)
    uneven = rng.normal(0, 0.012)
    angle = np.radians(rng.normal(0, 2.2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    apex = rng.uniform(0.09, 0.17)
    return _Frame(
        center=rng.normal(0.5, 0.012),
        apex=apex,
        height=rng.uniform(0.60, 0.74),
        half={RIGHT_SIGN: half + uneven, LEFT_SIGN: half - uneven},
        base_lift={RIGHT_SIGN: rng.uniform(0.0, 0.03), LEFT_SIGN: -rng.uniform(0.015, 0.045)},
        turn=turn,
    )


def _lung(rng: np.random.Generator, frame: _Frame, sign: float) -> Points:
    """Outline one pleural space, down to its dome."""
    base = _lifted(np.array(COSTOPHRENIC + DOME), frame.base_lift[sign])
    outline = np.vstack([np.array(LUNG_WALL), base, [(0.04, 0.6), (0.06, 0.25)]])
    outline[3:9] += rng.normal(0, 0.008, (6, 2))
    return smooth(frame.place(outline, sign))


def _lifted(dome: NDArray, lift: float) -> NDArray:
    """Raise one dome; at the midline, where both meet, they stay level."""
    return dome - np.column_stack([np.zeros(len(dome)), lift * np.clip(dome[:, 0] / 0.3, 0, 1)])


def _abdomen(frame: _Frame) -> Points:
    """Outline what lies below the two domes."""
    sides = []
    for sign in (RIGHT_SIGN, LEFT_SIGN):
        dome = _lifted(np.array([(1.12, 1.12), (1.06, 1.03), (0.985, 1.0), *DOME]), frame.base_lift[sign])
        sides.append(smooth(frame.place(dome, sign), closed=False))
    floor = [frame.place(np.array([(1.12, 1.9)]), sign) for sign in (LEFT_SIGN, RIGHT_SIGN)]
    return np.vstack([sides[0], sides[1][::-1], *floor])


def _torso(rng: np.random.Generator, frame: _Frame) -> Points:
    girth = rng.uniform(0.94, 1.12)
    half = np.array(TORSO) * (girth, 1)
    right, left = (smooth(frame.place(half, sign), closed=False) for sign in (RIGHT_SIGN, LEFT_SIGN))
    return np.vstack([right, left[::-1]])


def _soft_shapes(rng: np.random.Generator, frame: _Frame) -> dict[str, list[Points]]:
    """Outline arms, shoulders, breasts, hila, gas and vertebrae."""
    reach, drop = rng.uniform(0.0, 0.16), rng.uniform(-0.03, 0.05)
    arm = np.array([(1.12, -0.03), (1.36, 0.0), (1.55, 0.2), (1.72, 0.7), (1.9, 1.3), (1.62, 1.3), (1.42, 0.7), (1.24, 0.3)])
    arm[3:7, 0] += rng.uniform(-0.22, 0.1)
    shapes: dict[str, list[Points]] = {name: [] for name in ("scapula", "humerus", "arm", "breast", "gas", "hilum", "vertebra")}
    for sign in (RIGHT_SIGN, LEFT_SIGN):
        shapes["scapula"].append(smooth(frame.place(np.array(SCAPULA) + (reach, drop), sign)))
        shapes["arm"].append(smooth(frame.place(arm, sign)))
        shapes["humerus"].append(_ellipse(frame, sign, (1.3 + 0.3 * reach, 0.06 + drop), (0.13, 0.065), 0.1))
        height = 0.45 if sign == RIGHT_SIGN else 0.42
        shapes["hilum"].append(_ellipse(frame, sign, (0.20, height), (0.075, 0.075), 0))
    if rng.random() < 0.4:
        center, radii = (rng.uniform(0.6, 0.7), rng.uniform(0.78, 0.9)), (rng.uniform(0.32, 0.42), rng.uniform(0.2, 0.28))
        shapes["breast"] = [_ellipse(frame, sign, center, radii, 0.1) for sign in (RIGHT_SIGN, LEFT_SIGN)]
    if rng.random() < 0.8:
        dome = 0.93 - frame.base_lift[LEFT_SIGN]
        shapes["gas"] = [_ellipse(frame, LEFT_SIGN, (rng.uniform(0.4, 0.6), dome + 0.035), (rng.uniform(0.12, 0.22), 0.05), 0.1)]
    for level in np.arange(-0.3, 1.6, 0.088):
        shapes["vertebra"].append(_vertebra(frame, level))
    return shapes


def _ellipse(frame: _Frame, sign: float, center: tuple[float, float], radii: tuple[float, float], tilt: float) -> Points:
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    u, v = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    return frame.place(np.column_stack([center[0] + u + tilt * v, center[1] + v - tilt * u]), sign)


def _vertebra(frame: _Frame, level: float) -> Points:
    """Outline one vertebral body, waisted in the middle; lower ones are wider."""
    half = 0.105 + 0.025 * level
    corners = np.array([(-half, 0.0), (half, 0.0), (half * 0.9, 0.036), (half, 0.072), (-half, 0.072), (-half * 0.9, 0.036)])
    return frame.place(corners + (0, level), LEFT_SIGN)


def wall_at(v: float) -> float:
    """Return u of the lateral lung wall at height v."""
    wall = np.array(LUNG_WALL[2:] + COSTOPHRENIC[:2])
    return float(np.interp(v, wall[:, 1], wall[:, 0]))


def _bones(rng: np.random.Generator, frame: _Frame) -> dict[str, list[Stroke]]:
    """Draw ribs, clavicles and the spine's processes."""
    unit = frame.half[RIGHT_SIGN]
    slope, spacing, first = rng.uniform(0.13, 0.23), rng.uniform(0.086, 0.098), rng.uniform(-0.09, -0.05)
    strokes: dict[str, list[Stroke]] = {name: [] for name in ("posterior_rib", "anterior_rib", "clavicle", "spine")}
    lift = rng.normal(0, 0.02)
    for sign in (RIGHT_SIGN, LEFT_SIGN):
        for number in range(11):
            posterior, anterior = _rib(first + spacing * number, number, slope)
            strokes["posterior_rib"].append(_stroke(frame, sign, posterior, 0.075 * unit, 1 - 0.03 * number))
            if number < 8:
                strokes["anterior_rib"].append(_stroke(frame, sign, anterior, 0.085 * unit, 1 - 0.05 * number))
        clavicle = np.array([(0.11, 0.16), (0.26, 0.14), (0.52, 0.085), (0.78, 0.02), (1.0, 0.0), (1.14, 0.01)])
        clavicle[:, 1] += lift * (1 if sign == LEFT_SIGN else -1)
        strokes["clavicle"].append(_stroke(frame, sign, clavicle, 0.075 * unit, 1.0))
        levels = np.arange(-0.26, 1.5, 0.088)
        processes = np.stack([np.column_stack([np.full(len(levels), u), levels - rise]) for u, rise in ((0.05, 0), (0.2, 0.012))], axis=1)
        placed = frame.place(processes.reshape(-1, 2), sign).reshape(processes.shape)
        strokes["spine"].append(Stroke(placed, 0.045 * unit, 0.8))
    return strokes


def _rib(start: float, number: int, slope: float) -> tuple[NDArray, NDArray]:
    """Return the back arc from the spine to the lateral wall, and the front arc from there towards the sternum."""
    turn = start + slope + 0.02 * number + 0.03
    u = max(wall_at(max(turn, 0.02)), 0.34) + 0.005
    drop = turn - start
    posterior = np.array([(0.06, start), (0.3 * u, start - 0.015), (0.55 * u, start + 0.1 * drop), (0.82 * u, start + 0.42 * drop),
                          (0.96 * u, start + 0.75 * drop), (u, turn)])  # fmt: skip
    fall = 0.10 + 0.018 * number
    anterior = np.array([(u, turn - 0.01), (0.985 * u, turn + 0.25 * fall), (0.87 * u, turn + 0.62 * fall), (0.66 * u, turn + 0.9 * fall),
                         (0.42 * u, turn + 1.02 * fall)])  # fmt: skip
    return posterior, anterior


def _stroke(frame: _Frame, sign: float, points: NDArray, thickness: float, density: float) -> Stroke:
    return Stroke(smooth(frame.place(points, sign), closed=False)[None], thickness, density)


def _trachea(frame: _Frame) -> Stroke:
    """Draw the windpipe: down the midline, pushed a little to the right by the aortic arch."""
    return _stroke(frame, LEFT_SIGN, np.array([(0.0, -0.5), (0.0, -0.1), (-0.025, 0.2), (-0.03, 0.34)]), 0.11 * frame.half[LEFT_SIGN], 1.0)


def _vessels(rng: np.random.Generator, frame: _Frame, sign: float) -> list[Stroke]:
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
        placed = frame.place(lines.reshape(-1, 2), sign).reshape(lines.shape)
        strokes.append(Stroke(placed, 0.021 * 0.68**generation * frame.half[sign], 0.85**generation))
        spread = rng.uniform(0.15, 0.45, count)
        angles = np.concatenate([curve[:, -1] + spread, curve[:, -1] - spread])
        starts = np.concatenate([lines[:, -1], lines[:, -1]])
    return strokes


def _wires(rng: np.random.Generator, frame: _Frame) -> list[Stroke]:
    """Lay an electrode lead over one film in five."""
    if rng.random() > 0.2:
        return []
    start, sign = rng.uniform(0.3, 0.9), float(rng.choice([RIGHT_SIGN, LEFT_SIGN]))
    path = np.array([(start, -0.3), (start + rng.normal(0, 0.1), 0.2), (start + rng.normal(0, 0.15), 0.5), (start + 0.1, 0.75)])
    return [_stroke(frame, sign, path, 0.012 * frame.half[sign], 1.0)]
