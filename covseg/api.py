"""One image in memory to masks and numbers: the pipeline without files.

Examples
--------
>>> import covseg
>>> from covseg.synthetic.phantom import make_phantom
>>> model = covseg.load_model("default")
>>> scored = model.predict(make_phantom(seed=1).pixels)
>>> scored.row.status.value, scored.masks.label_map.shape == (scored.row.height, scored.row.width)
('scored', True)
>>> scored.to_dict()["grade"], scored.show().size
('moderate', (512, 512))
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from covseg.errors import RadiographRefused, Reason, Stage
from covseg.model_folder.backends import open_backend
from covseg.outcome import Refused, Scored
from covseg.pipeline import Pipeline, resolve
from covseg.records import Entry, Grey, Radiograph
from covseg.registry import open_model
from covseg.stages.read import read

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydicom import Dataset

    Source = NDArray[Any] | str | Path | bytes | Image | Dataset


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

    def predict(self, image: Source, pixel_spacing_mm: float | None = None) -> Scored:
        """Score one image.

        Parameters
        ----------
        image : ndarray, path, bytes, PIL.Image.Image or pydicom.Dataset
            An array ``(H, W)`` is grey, bone bright: float in [0, 1], or uint8 / uint16 over their whole range. A path
            or bytes hold a PNG, JPEG or DICOM file. All but arrays are read as `covseg predict` reads them.
        pixel_spacing_mm : float or None
            Detector spacing; gives areas in mm2. None: what the file says.

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
        TypeError
            When the image is nothing of the above.
        FileNotFoundError
            When the path leads nowhere.
        RadiographRefused
            When it cannot be read, or is not a frontal chest radiograph.
        """
        radiograph, size = _radiograph(image)
        if pixel_spacing_mm is not None:
            radiograph = replace(radiograph, pixel_spacing_mm=pixel_spacing_mm)
        prepared = self._pipeline.prepare(Entry(radiograph.kind, size, ""), radiograph)
        (result,) = self._pipeline.score(self._backend, [prepared])
        if isinstance(result, Refused):
            row = result.row
            raise RadiographRefused(Reason(str(row.reason)), Stage(str(row.stage)), str(row.detail))
        return result


def _radiograph(image: Source) -> tuple[Radiograph, int]:
    """Return the image as the reader gives it, and the bytes that were read."""
    if isinstance(image, np.ndarray):
        grey = _grey(image)
        return Radiograph(grey, hashlib.sha256(grey.tobytes()).hexdigest(), kind="array"), grey.nbytes
    data = image if isinstance(image, bytes) else _file(image)
    return read(data), len(data)


def _file(image: object) -> bytes:
    """Return the bytes of a file, or of the file that an image of Pillow or pydicom would be."""
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    library, made = type(image).__module__.partition(".")[0], io.BytesIO()
    if library == "PIL" and hasattr(image, "save"):
        image.save(made, "png")
    elif library == "pydicom" and hasattr(image, "save_as"):
        image.save_as(made, enforce_file_format=True)
    else:
        found = type(image).__name__
        raise TypeError(f"found {found}; wanted an array (H, W), a path, bytes, a PIL image or a pydicom Dataset")
    return made.getvalue()


def _grey(pixels: NDArray[Any]) -> Grey:
    if pixels.ndim != 2 or min(pixels.shape) < 2:
        raise ValueError(f"found an array of shape {pixels.shape}; wanted one grey image (H, W)")
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return (pixels / 65535).astype(np.float32)
    if not np.issubdtype(pixels.dtype, np.floating) or not 0 <= pixels.min() <= pixels.max() <= 1:
        raise ValueError(f"found {pixels.dtype} pixels; wanted floats in [0, 1], uint8 or uint16")
    return pixels.astype(np.float32)
