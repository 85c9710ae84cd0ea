"""Model pixels to probabilities, in batches; no threshold is applied here.

In: prepared images ``(N, S, S)`` float32. Out: one `Prediction` an image. What runs the network is a `Backend`;
those of a model folder are in `covseg.model_folder.backends`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from covseg.records import Prediction

Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


class Backend(Protocol):
    """Runs a network on a batch."""

    name: str

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Return probabilities ``(N, 2, S, S)``, presence ``(N,)``, features ``(N, F)``."""
        ...


def segment(backend: Backend, images: NDArray[np.float32]) -> list[Prediction]:
    """Return one `Prediction` an image of the batch ``(N, S, S)``; an empty batch gives []."""
    if not len(images):
        return []
    probability, presence, features = backend.run(images)
    return [
        Prediction(
            lung=probability[row, 0],
            infection=probability[row, 1],
            presence=float(presence[row]),
            features=features[row],
        )
        for row in range(len(images))
    ]
