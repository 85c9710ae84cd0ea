"""What runs a model folder's network on a batch: PyTorch, the reference, ONNX Runtime, and OpenVINO.

The exported graph is checked against the reference before it is used.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from covseg.errors import EnvironmentFailed, ModelRefused, UsageError
from covseg.model_folder.export import INPUT, open_session
from covseg.model_folder.folder import ModelFolder
from covseg.stages.segment import Arrays, Backend

if TYPE_CHECKING:
    from covseg.model_folder.precision import Precision


class OnnxBackend:
    """ONNX Runtime, float32, CPU; no torch where the model folder carries its graph."""

    def __init__(self, folder: ModelFolder) -> None:
        import onnxruntime

        self._session = open_session(folder)
        self.name = f"onnxruntime-{onnxruntime.__version__}-cpu-fp32"

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Run one batch."""
        probability, presence, features = self._session.run(None, {INPUT: images[:, None]})
        return probability, presence, features


BACKENDS = ("onnx", "torch", "cuda", "openvino", "auto")
PRECISIONS = ("float32", "bfloat16", "int8")
CHEAPEST: tuple[Precision, ...] = ("int8", "bfloat16")  # what auto looks for, in turn
ROUNDED = {"openvino": ("bfloat16", "int8"), "cuda": ("bfloat16",)}  # what a backend has besides float32


def open_backend(folder: ModelFolder, name: str = "onnx", precision: str = "float32") -> Backend:
    """Open a backend by name.

    A backend runs one batch on one thread and may be called from several threads at once: two
    streams of one thread are faster than two threads in one stream.

    Parameters
    ----------
    name : str
        ``onnx``; ``torch``, on a GPU where there is one; ``cuda``, torch on a GPU or not at all; ``openvino``; ``auto``
        takes openvino in int8, else in bfloat16, where it is installed, the processor has the instructions and the
        model folder a passed proof; else onnx.
    precision : str
        ``float32``; openvino has ``bfloat16`` and ``int8`` too, cuda ``bfloat16``.

    Raises
    ------
    ModelRefused
        When the name is unknown, the backend has no such precision, or the precision no passed proof.
    UsageError, EnvironmentFailed
        When openvino or torch is not installed; when the processor cannot run the precision, or there is no GPU.
    """
    if name not in BACKENDS:
        raise ModelRefused(f"unknown backend {name!r}: wanted one of {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise ModelRefused(f"unknown precision {precision!r}: wanted one of {', '.join(PRECISIONS)}")
    if precision != "float32" and precision not in ROUNDED.get(name, ()):
        having = " or ".join(f"--backend {other}" for other, has in ROUNDED.items() if precision in has)
        raise ModelRefused(
            f"--precision {precision} with --backend {name}: wanted {having}, or float32"
            + (" (auto chooses by itself)" if name == "auto" else "")
        )
    if name == "auto":
        for cheapest in CHEAPEST:
            with suppress(UsageError, ModelRefused, EnvironmentFailed):
                return _openvino(folder, cheapest)
        return OnnxBackend(folder)
    if name == "openvino":
        return _openvino(folder, precision)
    return OnnxBackend(folder) if name == "onnx" else _torch(folder, name, precision)


def _torch(folder: ModelFolder, name: str, precision: str) -> Backend:
    try:
        from covseg.model_folder.torch_backend import TorchBackend
    except ModuleNotFoundError as error:
        raise UsageError(f"--backend {name} wants {error.name}: pip install 'covseg[train]'") from error
    return TorchBackend(folder, "cuda" if name == "cuda" else None, cast("Precision", precision))


def _openvino(folder: ModelFolder, precision: str) -> Backend:
    try:
        from covseg.model_folder.openvino_backend import OpenVinoBackend
    except ImportError as error:
        raise UsageError(f"--backend openvino wants OpenVINO ({error}): pip install 'covseg[openvino]'") from error
    return OpenVinoBackend(folder, cast("Precision", precision))
