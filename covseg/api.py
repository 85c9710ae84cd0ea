"""One image in memory to masks and numbers: the pipeline without files.

Examples
--------
>>> import covseg
>>> from covseg.synthetic.phantom import make_phantom
>>> model = covseg.load_model("default")
>>> scored = model.predict(make_phantom(seed=1).pixels)
>>> scored.row.status.value, scored.masks.label_map.shape == (scored.row.height, scored.row.width)
('scored', True)
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covseg.errors import RadiographRefused, Reason, Stage
from covseg.model_folder.backends import open_backend
from covseg.pipeline import Pipeline, Refused, Scored, resolve
from covseg.records import Entry, Radiograph
from covseg.registry import open_model


def load_model(ref: str | Path = "default", backend: str = "onnx", precision: str = "float32") -> Model:
    """Open a model that scores images held in memory; the arguments are those of `Model`."""
    return Model(ref, backend, precision)


class Model:
    """A model with the stages around it.

    Parameters
    ----------
    ref : str or Path
        A registered name such as ``default``, a reference, or the path of a model folder.
    backend : str
        ``onnx``, ``torch``, ``openvino`` or ``auto``.
    precision : str
        Of ``openvino``: ``float32``, ``bfloat16`` or ``int8``.

    Raises
    ------
    ModelRefused
        When the folder cannot be trusted.
    """

    def __init__(self, ref: str | Path = "default", backend: str = "onnx", precision: str = "float32") -> None:
        folder = open_model(ref)
        self._backend = open_backend(folder, backend, precision)
        self._pipeline = Pipeline(folder.config, resolve(folder, self._backend, batch=1), bucket="memory", key=b"")

    def predict(self, pixels: NDArray[Any], pixel_spacing_mm: float | None = None) -> Scored:
        """Score one image.

        Parameters
        ----------
        pixels : ndarray, shape (H, W)
            Grey, bone bright: float in [0, 1], or uint8 / uint16 over their whole range.
        pixel_spacing_mm : float or None
            Detector spacing; gives areas in mm2.

        Returns
        -------
        Scored
            ``row`` holds the numbers, ``masks.label_map`` uint8 ``(H, W)`` (0 background, 1 lung,
            2 infection), ``prediction`` the probabilities at model geometry. An image without a lung
            has None for every fraction, which is not a healthy lung.

        Raises
        ------
        ValueError
            When the array is not one grey image.
        RadiographRefused
            When the image is not a frontal chest radiograph.
        """
        grey = _grey(pixels)
        radiograph = Radiograph(grey, hashlib.sha256(grey.tobytes()).hexdigest(), None, pixel_spacing_mm, "array")
        image = self._pipeline.prepare(Entry("array", grey.nbytes, ""), radiograph)
        (result,) = self._pipeline.score(self._backend, [image])
        if isinstance(result, Refused):
            row = result.row
            raise RadiographRefused(Reason(str(row.reason)), Stage(str(row.stage)), str(row.detail))
        return result


def _grey(pixels: NDArray[Any]) -> NDArray[np.float32]:
    if pixels.ndim != 2 or min(pixels.shape) < 2:
        raise ValueError(f"found an array of shape {pixels.shape}; wanted one grey image (H, W)")
    if pixels.dtype in (np.uint8, np.uint16):
        return (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)
    if not np.issubdtype(pixels.dtype, np.floating) or not 0 <= pixels.min() <= pixels.max() <= 1:
        raise ValueError(f"found {pixels.dtype} pixels; wanted floats in [0, 1], uint8 or uint16")
    return pixels.astype(np.float32)
