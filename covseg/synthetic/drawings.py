"""Images drawn from nothing but a random generator: pages, noise, photographs' statistics, other anatomy.

Out: one grey image ``(SIDE, SIDE)`` uint8. They are crude, and meant to be many; none
is a copy of a real negative.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Random = np.random.Generator
SIDE = 256  # pixels
WORDS = np.array(
    ["patient", "chest", "report", "the", "findings", "no", "acute", "normal", "2021", "left", "lower", "and", "12.5"]
)


def stretch(image: NDArray[Any]) -> Image:
    """Spread grey values over 0-255."""
    low, high = float(image.min()), float(image.max())
    return ((image - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)


def cloud(shape: tuple[int, int], random: Random, slope: float) -> NDArray[np.float64]:
    """Noise of unit deviation whose power falls with frequency to the power `slope`."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(random.normal(size=shape)) / frequency ** (slope / 2)
    field = np.fft.irfft2(spectrum, shape)
    return field / field.std()


def _soft(mask: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)


def _ellipse(centre: tuple[float, float], axes: tuple[float, float], angle: float = 0) -> NDArray[np.float32]:
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    point, radii = (tuple(int(SIDE * value) for value in pair) for pair in (centre, axes))
    cv2.ellipse(canvas, point, radii, angle, 0, 360, 1, -1)
    return canvas.astype(np.float32)


def text(random: Random) -> Image:
    """Write lines of words, dark on light or light on dark."""
    page = np.full((SIDE, SIDE), int(random.integers(215, 256)), np.uint8)
    size = random.uniform(0.3, 0.9)
    left, end = (int(n) for n in (random.integers(4, 40), random.integers(120, 250)))
    for row in range(int(random.integers(12, 60)), SIDE - int(random.integers(0, 90)), int(26 * size) + 4):
        line = " ".join(random.choice(WORDS, 12))[: int(random.uniform(0.3, 1) * (end - left) / (11 * size)) + 2]
        cv2.putText(
            page, line, (left, row), cv2.FONT_HERSHEY_SIMPLEX, size, int(random.integers(0, 90)), 1, cv2.LINE_AA
        )
    return page if random.random() < 0.7 else 255 - page


def noise(random: Random) -> Image:
    """Make white to cloudy noise."""
    return stretch(cloud((SIDE, SIDE), random, random.uniform(0, 4)))


def gradient(random: Random) -> Image:
    """Draw a ramp, a vignette or a nearly constant field."""
    row, column = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angle = random.uniform(0, 2 * np.pi)
    ramp = row * np.sin(angle) + column * np.cos(angle)
    rings = np.hypot(row - random.uniform(-0.5, 0.5), column - random.uniform(-0.5, 0.5)) * random.choice([-1, 1])
    field = [ramp, rings, 0.05 * random.normal(size=row.shape) + 0.1 * ramp][random.integers(3)]
    return stretch(field + random.uniform(0, 0.05) * random.normal(size=row.shape))


def pattern(random: Random) -> Image:
    """Draw stripes, checks or a test card."""
    row, column = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    angle, cycles = random.uniform(0, np.pi), random.uniform(2, 25)
    wave = np.sin(2 * np.pi * cycles * (row * np.sin(angle) + column * np.cos(angle)))
    if random.random() < 0.5:
        wave *= np.sin(2 * np.pi * random.uniform(2, 25) * (row * np.cos(angle) - column * np.sin(angle)))
    return stretch(np.sign(wave) if random.random() < 0.5 else wave)


def shapes(random: Random) -> Image:
    """Drop flat shapes over each other (dead leaves), with the statistics of photographs."""
    canvas = np.full((SIDE, SIDE), int(random.integers(256)), np.uint8)
    for _ in range(int(random.integers(4, 160))):
        centre = tuple(int(n) for n in random.integers(0, SIDE, 2))
        axes = tuple(int(n) for n in np.minimum(4 / random.uniform(0.02, 0.5, 2) ** 1.2, 140))
        grey = int(random.integers(256))
        if random.random() < 0.5:
            cv2.ellipse(canvas, centre, axes, random.uniform(0, 180), 0, 360, grey, -1, cv2.LINE_AA)
        else:
            corners = cv2.boxPoints((centre, axes, random.uniform(0, 90))).astype(np.int32)
            cv2.fillPoly(canvas, [corners], grey, cv2.LINE_AA)
    texture = random.uniform(0, 12) * cloud((SIDE, SIDE), random, random.uniform(1, 2.5))
    return np.clip(cv2.GaussianBlur(canvas, (0, 0), random.uniform(0.3, 3)) + texture, 0, 255).astype(np.uint8)


def axial(random: Random) -> Image:
    """Draw a cross-section of a trunk or a head: a bright outline, dark holes, a bright spine, in air."""
    u = random.uniform
    width, height = u(0.34, 0.48), u(0.24, 0.42)
    body = _ellipse((0.5, 0.5), (width, height))
    image = body * u(0.5, 0.8) + (body - _ellipse((0.5, 0.5), (width - 0.025, height - 0.025))) * u(-0.2, 0.3)
    for side in (-1, 1):
        hole = _ellipse(
            (0.5 + side * width * u(0.42, 0.55), 0.5 + u(-0.04, 0.02)),
            (width * u(0.3, 0.42), height * u(0.5, 0.8)),
            side * u(-15, 15),
        )
        image = np.where(hole > 0, u(0.05, 0.2) + 0.25 * random.random() * _vessels(random), image)
    image += u(0.2, 0.5) * _ellipse((0.5, 0.5 + height * u(0.5, 0.7)), (u(0.04, 0.07), u(0.03, 0.07)))
    image += u(0, 0.3) * _ellipse((0.5 + u(0, 0.06), 0.5 - height * u(0.1, 0.4)), (u(0.06, 0.14), u(0.06, 0.12)))
    image += (image > 0) * 0.03 * random.normal(size=image.shape)
    return stretch(np.clip(_soft(image, u(0.5, 1.5)), 0, 1.1))


def _vessels(random: Random) -> NDArray[np.float64]:
    return (stretch(cloud((SIDE, SIDE), random, 1.5)) > 175).astype(float)


def limb(random: Random) -> Image:
    """Draw one to five bright rods with knobs in soft tissue, in air: leg, arm, hand."""
    u = random.uniform
    image = np.zeros((SIDE, SIDE), np.float32)
    rods = int(random.integers(1, 6))
    lean, start = u(-30, 30), u(0.3, 0.5) - 0.12 * (rods - 1) / 2
    for rod in range(rods):
        centre = (start + 0.16 * rod + u(-0.02, 0.02), u(0.4, 0.6))
        length, thick = u(0.3, 0.7), u(0.02, 0.06) if rods > 1 else u(0.04, 0.1)
        flesh = _soft(_ellipse(centre, (thick * u(1.8, 3.5), length * 1.2), lean), 4)
        bone = _ellipse(centre, (thick, length), lean) - 0.4 * _ellipse(centre, (thick * 0.55, length * 0.9), lean)
        knob = _ellipse((centre[0] + u(-0.02, 0.02), centre[1] + u(-0.05, 0.05)), (thick * 1.6, thick * 1.4))
        image = np.maximum(image, flesh * u(0.25, 0.5)) + u(0.3, 0.5) * np.maximum(bone, knob * (random.random() < 0.6))
    turned = np.rot90(image, int(random.integers(4))) if random.random() < 0.4 else image
    return stretch(_soft(turned, u(0.8, 2)) + u(0, 0.03) * random.normal(size=image.shape))


def side_view(random: Random) -> Image:
    """Draw a chest from the side: one wide dark field between a bright spine and a bright front."""
    u = random.uniform
    image = 0.75 * _soft(_ellipse((0.5, 0.55), (u(0.3, 0.48), 0.6)), 6)
    field = _soft(_ellipse((0.5 + u(-0.05, 0.05), u(0.42, 0.52)), (u(0.2, 0.34), u(0.3, 0.42)), u(-20, 20)), 8)
    image *= 1 - u(0.45, 0.8) * field
    heart = _soft(_ellipse((u(0.3, 0.45), u(0.58, 0.7)), (u(0.1, 0.18), u(0.12, 0.2)), u(-40, 40)), 6)
    spine = _soft(_ellipse((u(0.68, 0.8), 0.5), (u(0.04, 0.08), 0.55), u(-8, 8)), 5)
    image += u(0.15, 0.4) * heart + u(0.15, 0.35) * spine
    image += u(0.3, 0.6) * _soft(_ellipse((0.5, u(0.95, 1.1)), (0.5, u(0.18, 0.32)), u(-10, 10)), 7)
    for rib in range(int(random.integers(4, 9))):
        centre = (0.5 + u(-0.03, 0.03), 0.18 + 0.08 * rib)
        arc = _ellipse(centre, (0.32, 0.1), u(15, 35)) - _ellipse(
            (centre[0], centre[1] + 0.012), (0.32, 0.1), u(15, 35)
        )
        image += u(0.03, 0.12) * _soft(np.clip(arc, 0, 1), 1)
    if random.random() < 0.5:
        image = image[:, ::-1]
    return stretch(image + 0.02 * cloud((SIDE, SIDE), random, 2) + u(0, 0.03) * random.normal(size=image.shape))
