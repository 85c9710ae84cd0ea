"""What runs a model folder's network on a batch: PyTorch, the reference, and ONNX Runtime.

The exported graph is checked against the reference before it is used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from covseg.errors import ModelRefused
from covseg.model_folder.export import INPUT, open_session
from covseg.model_folder.folder import ModelFolder
from covseg.stages.segment import Arrays, Backend


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


BACKENDS: dict[str, type[TorchBackend] | type[OnnxBackend]] = {"onnx": OnnxBackend, "torch": TorchBackend}


def open_backend(folder: ModelFolder, name: str = "onnx") -> Backend:
    """Open a backend by name.

    A backend runs one batch on one thread and may be called from several threads at once: two
    streams of one thread are faster than two threads in one stream.

    Raises
    ------
    ModelRefused
        When the name is unknown.
    """
    if name not in BACKENDS:
        raise ModelRefused(f"unknown backend {name!r}: wanted one of {', '.join(BACKENDS)}")
    return BACKENDS[name](folder)
