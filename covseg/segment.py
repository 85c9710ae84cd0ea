"""Model pixels to probabilities, in batches; no threshold is applied here.

In: prepared films ``(N, S, S)`` float32. Out: one `Prediction` a film. The torch backend is the
reference; the exported ones are checked against it before they are used.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from covseg.errors import ModelRefused
from covseg.models.folder import ModelFolder
from covseg.records import Prediction

Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


class Backend(Protocol):
    """Runs a network on a batch."""

    name: str

    def run(self, films: NDArray[np.float32]) -> Arrays:
        """Return probabilities ``(N, 2, S, S)``, presence ``(N,)``, features ``(N, F)``."""
        ...


class TorchBackend:
    """PyTorch, float32, on the accelerator where there is one: the reference."""

    def __init__(self, folder: ModelFolder) -> None:
        import torch

        from covseg.models.network import Answer, load

        self._torch = torch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        self._answer = Answer(load(folder)).eval().to(self._device).to(memory_format=torch.channels_last)
        self.name = f"torch-{torch.__version__.split('+')[0]}-{self._device.type}-fp32"

    def run(self, films: NDArray[np.float32]) -> Arrays:
        """Run one batch."""
        torch = self._torch
        with torch.inference_mode():
            batch = torch.from_numpy(films)[:, None].to(self._device, memory_format=torch.channels_last)
            probability, presence, features = (output.cpu().numpy() for output in self._answer(batch))
        return probability, presence, features


class OnnxBackend:
    """ONNX Runtime, float32, CPU: no torch at run time once the graph is cached."""

    def __init__(self, folder: ModelFolder) -> None:
        import onnxruntime

        from covseg.models.export import exported

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(exported(folder)), options, providers=["CPUExecutionProvider"])
        self.name = f"onnxruntime-{onnxruntime.__version__}-cpu-fp32"

    def run(self, films: NDArray[np.float32]) -> Arrays:
        """Run one batch."""
        probability, presence, features = self._session.run(None, {"films": films[:, None]})
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


def segment(backend: Backend, films: NDArray[np.float32]) -> list[Prediction]:
    """Return one `Prediction` a film of the batch ``(N, S, S)``; an empty batch gives []."""
    if not len(films):
        return []
    probability, presence, features = backend.run(films)
    return [
        Prediction(
            lung=probability[row, 0],
            infection=probability[row, 1],
            presence=float(presence[row]),
            features=features[row],
        )
        for row in range(len(films))
    ]
