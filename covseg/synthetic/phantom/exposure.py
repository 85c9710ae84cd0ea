"""How one image was taken: beam, detector curve, collimator and side marker.

In: attenuation. Out: grey values. It knows nothing of anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from covseg.synthetic.phantom.draw import Field, blurred

LUNG_FLOOR = 0.08  # attenuation that black never exceeds: an image without air around the body keeps grey lungs


@dataclass(frozen=True)
class Exposure:
    """How one image was taken.

    Parameters
    ----------
    shoulder, gamma : float
        How early the curve flattens towards white, and its exponent.
    black, white : float
        Percentiles of attenuation that become black and, with `headroom` 1, white.
    headroom : float
        How much further white lies than that.
    veil : float
        Share of scatter.
    blur : float
        Deviation, as a fraction of the width.
    crispness : float
        Strength of the detector's edge enhancement.
    noise : float
        Deviation in grey, about, at full size.
    aeration : float
        How much less than soft tissue the lungs attenuate.
    bone : float
        Density of bone, relative.
    marker : str
        Letter of the side marker.
    margins : tuple of float
        Left, top, right and bottom, black by collimation, as fractions of the image.
    """

    shoulder: float
    gamma: float
    black: float
    white: float
    headroom: float
    veil: float
    blur: float
    crispness: float
    noise: float
    aeration: float
    bone: float
    marker: str
    margins: tuple[float, ...]


def make_exposure(rng: np.random.Generator) -> Exposure:
    """Draw how an image was taken."""
    return Exposure(
        shoulder=rng.uniform(0.6, 2.0),
        gamma=rng.uniform(1.25, 1.8),
        black=rng.uniform(0.5, 2.5),
        white=rng.uniform(98.0, 99.8),
        headroom=rng.uniform(1.0, 1.12),
        veil=rng.uniform(0.1, 0.3),
        blur=rng.uniform(0.0005, 0.002),
        crispness=rng.uniform(0.1, 0.6),
        noise=rng.uniform(0.003, 0.008),
        aeration=rng.uniform(0.36, 0.46),
        bone=rng.uniform(0.7, 1.2),
        marker=str(rng.choice(["R", "L"])),
        margins=tuple(float(margin) for margin in rng.uniform(0, 0.03, 4) * (rng.random(4) < 0.25)),
    )


def develop(attenuation: Field, exposure: Exposure) -> Field:
    """Veil with scatter, blur, enhance edges, and map attenuation to grey in [0, 1]."""
    height, width = attenuation.shape
    small = cv2.resize(attenuation, (64, 64), interpolation=cv2.INTER_AREA)
    scatter = cv2.resize(cv2.GaussianBlur(small, (0, 0), 7), (width, height), interpolation=cv2.INTER_LINEAR)
    veiled = blurred(cv2.addWeighted(attenuation, 1 - exposure.veil, scatter, exposure.veil, 0), exposure.blur * width)
    veiled += exposure.crispness * (veiled - blurred(veiled, 0.012 * width))
    low, high = np.percentile(veiled[::4, ::4], [exposure.black, exposure.white])
    low = min(low, LUNG_FLOOR)
    linear = np.clip((veiled - np.float32(low)) / np.float32(exposure.headroom * (high - low)), 0, 1.1)
    flat = (1 - np.exp(-np.float32(exposure.shoulder) * linear)) / np.float32(1 - np.exp(-exposure.shoulder))
    return cv2.pow(flat, exposure.gamma)


def mark(grey: Field, exposure: Exposure) -> None:
    """Blacken what the collimator shut out, and set the lead marker on the side it names."""
    height, width = grey.shape
    left, top, right, bottom = exposure.margins
    grey[:, : round(left * width)] = grey[:, width - round(right * width) :] = 0
    grey[: round(top * height)] = grey[height - round(bottom * height) :] = 0
    scale = height / 460
    place = (round((0.05 if exposure.marker == "R" else 0.90) * width), round(0.12 * height))
    letter = np.zeros(grey.shape, np.uint8)
    pen = max(1, round(2.2 * scale))
    cv2.putText(letter, exposure.marker, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, pen, cv2.LINE_AA)
    np.maximum(grey, letter.astype(np.float32) / 255, out=grey)
