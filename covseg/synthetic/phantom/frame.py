"""Thorax coordinates, and how they lie on an image.

(u, v): u is 0 at the midline and 1 at a lung's widest, v is 0 at the lung apex and 1 at the
costophrenic angle. A side's sign tells where u grows to: the patient's right is image left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
RIGHT_SIGN, LEFT_SIGN = -1.0, 1.0
SIGNS = (RIGHT_SIGN, LEFT_SIGN)

# The lung wall from the apex down, and the dome from the costophrenic angle back to the midline; read
# off the mean lung masks of adult frontal images.
LUNG_WALL = (
    (0.14, 0.10), (0.19, 0.03), (0.30, 0.0), (0.46, 0.035), (0.60, 0.13), (0.73, 0.28), (0.83, 0.46), (0.91, 0.66),
)  # fmt: skip
COSTOPHRENIC = ((0.97, 0.86), (0.995, 0.985), (0.985, 1.0))
DOME = ((0.90, 0.935), (0.74, 0.875), (0.54, 0.85), (0.34, 0.86), (0.16, 0.88), (0.0, 0.90))


@dataclass(frozen=True)
class Stroke:
    """Lines drawn with one pen: points ``(K, N, 2)`` and thickness as fractions of the image, density in (0, 1]."""

    points: Points
    thickness: float
    density: float = 1.0


@dataclass(frozen=True)
class Frame:
    """How thorax coordinates lie on one image.

    Parameters
    ----------
    center, apex, height : float
        Midline, top and height of the lungs, as fractions of the image.
    half : dict of float to float
        Half width of the thorax by sign, as a fraction of the image's width.
    lift : dict of float to float
        How much higher each dome is than `DOME`, by sign; the right one is higher.
    turn : ndarray, shape (2, 2)
        Rotation about the middle of the image.
    """

    center: float
    apex: float
    height: float
    half: dict[float, float]
    lift: dict[float, float]
    turn: Points

    def place(self, points: ArrayLike, sign: float) -> Points:
        """Map (u, v) ``(..., 2)`` of one side to image fractions (x, y); u below 0 crosses the midline."""
        u, v = np.moveaxis(np.asarray(points, dtype=float), -1, 0)
        half = np.where(u >= 0, self.half[sign], self.half[-sign])
        x, y = self.center + sign * u * half, self.apex + v * self.height
        return np.stack([x - 0.5, y - 0.5], axis=-1) @ self.turn.T + 0.5

    def outline(self, points: ArrayLike, sign: float) -> Points:
        """Map control points of one side to a smooth closed outline ``(N, 2)``."""
        return smooth(self.place(points, sign))

    def ellipse(self, sign: float, center: tuple[float, float], radii: tuple[float, float], slant: float = 0) -> Points:
        """Return the outline of an ellipse, ``(32, 2)``."""
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        u, v = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
        return self.place(np.column_stack([center[0] + u + slant * v, center[1] + v - slant * u]), sign)

    def stroke(self, sign: float, points: ArrayLike, thickness: float, density: float = 1.0) -> Stroke:
        """Draw a smooth line through control points of one side; thickness in half widths of the thorax."""
        line = smooth(self.place(points, sign), closed=False)
        return Stroke(line[None], thickness * self.half[RIGHT_SIGN], density)

    def raised(self, dome: ArrayLike, sign: float) -> Points:
        """Lift a side's dome to its height; at the midline, where both meet, they stay level."""
        points = np.array(dome, dtype=float)
        points[:, 1] -= self.lift[sign] * np.clip(points[:, 0] / 0.3, 0, 1)
        return points


def make_frame(rng: np.random.Generator) -> Frame:
    """Draw how one patient stands before the detector: size, shift and tilt."""
    half = rng.uniform(0.345, 0.445)
    uneven = rng.normal(0, 0.012)
    angle = np.radians(rng.normal(0, 2.2))
    return Frame(
        center=rng.normal(0.5, 0.012),
        apex=rng.uniform(0.09, 0.17),
        height=rng.uniform(0.60, 0.74),
        half={RIGHT_SIGN: half + uneven, LEFT_SIGN: half - uneven},
        lift={RIGHT_SIGN: rng.uniform(0.0, 0.03), LEFT_SIGN: -rng.uniform(0.015, 0.045)},
        turn=np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]),
    )


def smooth(points: Points, closed: bool = True, steps: int = 8) -> Points:
    """Pass a Catmull-Rom spline through control points ``(N, 2)``; returns ``(M, 2)``."""
    ends = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    ring = np.concatenate([ends[0], points, ends[1]])
    a, b, c, d = ring[:-3, None], ring[1:-2, None], ring[2:-1, None], ring[3:, None]
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve.reshape(-1, 2) if closed else np.concatenate([curve.reshape(-1, 2), points[-1:]])


def wall_at(v: float) -> float:
    """Return u of the lateral lung wall at height v."""
    wall = np.array(LUNG_WALL[2:] + COSTOPHRENIC[:2])
    return float(np.interp(v, wall[:, 1], wall[:, 0]))
