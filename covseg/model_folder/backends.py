"""What runs a model folder's network on a batch: PyTorch, the reference, ONNX Runtime, and OpenVINO.

The exported graph is checked against the reference before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from covseg.errors import ModelRefused, UsageError
from covseg.model_folder.export import INPUT, open_session
from covseg.model_folder.folder import ModelFolder
from covseg.stages.segment import Arrays, Backend

if TYPE_CHECKING:
    from covseg.model_folder.precision import Precision


class TorchBackend:
    """PyTorch, float32, on the accelerator where there is one: the reference."""

    def __init__(self, folder: ModelFolder) -> None:
        import torch

        from covseg.model_folder.load import Answer, load

        self._torch = torch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        self._answer = Answer(load(folder)).eval().to(self._device).to(memory_format=torch.channels_last)
        self.name = f"torch-{torch.__version__.split('+')[0]}-{self._device.type}-fp32"

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Run one batch."""
        torch = self._torch
        with torch.inference_mode():
            batch = torch.from_numpy(images)[:, None].to(self._device, memory_format=torch.channels_last)
            probability, presence, features = (output.cpu().numpy() for output in self._answer(batch))
        return probability, presence, features


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


BACKENDS = ("onnx", "torch", "openvino", "auto")


def open_backend(folder: ModelFolder, name: str = "onnx", precision: str = "float32") -> Backend:
    """Open a backend by name.

    A backend runs one batch on one thread and may be called from several threads at once: two
    streams of one thread are faster than two threads in one stream.

    Parameters
    ----------
    name : str
        ``onnx``, ``torch``, ``openvino``; ``auto`` takes openvino in bfloat16 where it is installed, the processor has
        the instructions and the model folder a passed proof, else onnx.
    precision : str
        ``float32``; openvino has ``bfloat16`` and ``int8`` too.

    Raises
    ------
    ModelRefused
        When the name is unknown, the backend has no such precision, or the precision no passed proof.
    UsageError, EnvironmentFailed
        When openvino is not installed; when the processor cannot run the precision.
    """
    if name not in BACKENDS:
        raise ModelRefused(f"unknown backend {name!r}: wanted one of {', '.join(BACKENDS)}")
    if name != "openvino" and precision != "float32":
        raise ModelRefused(
            f"--precision {precision} with --backend {name}: wanted --backend openvino, or float32"
            + (" (auto chooses by itself)" if name == "auto" else "")
        )
    if name == "auto":
        return _openvino(folder, "bfloat16") if _bfloat16_is_proved(folder) else OnnxBackend(folder)
    if name == "openvino":
        return _openvino(folder, precision)
    return TorchBackend(folder) if name == "torch" else OnnxBackend(folder)


def _openvino(folder: ModelFolder, precision: str) -> Backend:
    try:
        from covseg.model_folder.openvino_backend import NEEDS, OpenVinoBackend
    except ImportError as error:
        raise UsageError(f"--backend openvino wants OpenVINO ({error}): pip install 'covseg[openvino]'") from error
    if precision not in NEEDS:
        raise ModelRefused(f"unknown precision {precision!r}: wanted one of {', '.join(NEEDS)}")
    return OpenVinoBackend(folder, cast("Precision", precision))


def _bfloat16_is_proved(folder: ModelFolder) -> bool:
    """Tell whether bfloat16 can run here, and may."""
    try:
        from covseg.model_folder.openvino_backend import runs_here
        from covseg.model_folder.openvino_graph import EDITS
        from covseg.model_folder.precision import check_proof

        check_proof(folder, "bfloat16", EDITS)
    except (ImportError, ModelRefused):
        return False
    return runs_here("bfloat16")
