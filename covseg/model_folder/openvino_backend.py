"""OpenVINO on a CPU: float32, bfloat16 or int8, each only with a passed proof in the model folder."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from covseg.errors import EnvironmentFailed
from covseg.model_folder.folder import ModelFolder
from covseg.model_folder.openvino_graph import EDITS, read_graph, to_bfloat16, unpack
from covseg.model_folder.precision import INT8, Precision, check_proof
from covseg.stages.segment import Arrays

NEEDS = {"float32": "FP32", "bfloat16": "BF16", "int8": "INT8"}
CPU = Path("/proc/cpuinfo")
BATCHES = (4, 1)  # images of the compiled models: fixed sizes are a fifth faster; a batch is cut into these


def runs_here(precision: Precision) -> bool:
    """Tell whether this processor has instructions for a precision.

    For int8 they are those that add products of bytes without saturation (VNNI): without them sums are others than
    those of the proof.
    """
    if precision == "int8" and CPU.is_file() and not re.search(r"\b(avx512_vnni|avx_vnni)\b", CPU.read_text()):
        return False
    return NEEDS[precision] in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def version() -> str:
    """Return OpenVINO's version without the number of its build."""
    return str(ov.__version__).partition("-")[0]


class OpenVinoBackend:
    """A model in one precision; as many streams of one thread as the process may use cores.

    Parameters
    ----------
    folder : ModelFolder
        With its own graph.
    precision : str
        ``float32``, ``bfloat16`` or ``int8``.
    proved : bool
        False runs it without a proof: for whoever makes one.

    Raises
    ------
    ModelRefused
        When the precision has no passed proof.
    EnvironmentFailed
        When this processor cannot run it.
    """

    def __init__(self, folder: ModelFolder, precision: Precision = "float32", *, proved: bool = True) -> None:
        if proved:
            check_proof(folder, precision, EDITS)
        if not runs_here(precision):
            raise EnvironmentFailed(
                f"this processor has no instructions for {precision} ({NEEDS[precision]}): take --backend onnx"
            )
        self.name = f"openvino-{version()}-cpu-{precision}"
        self._int8 = (folder.path / INT8).read_bytes() if precision == "int8" else b""
        if self._int8:  # another calibration of the same weights gives other masks
            self.name += f"-{hashlib.sha256(self._int8).hexdigest()[:8]}"
        self._folder, self._precision = folder, precision
        self._lock, self._threads = threading.Lock(), threading.local()
        self._compiled: dict[int, ov.CompiledModel] = {}

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Run one batch."""
        parts, start = [], 0
        while start < len(images):
            size = next(size for size in BATCHES if size <= len(images) - start)
            request = self._request(size)
            request.infer({0: np.ascontiguousarray(images[start : start + size, None])})
            parts.append([request.get_output_tensor(place).data.copy() for place in range(3)])
            start += size
        columns = zip(*parts, strict=True)
        probability, presence, features = (one[0] if len(one) == 1 else np.concatenate(one) for one in columns)
        return probability, presence, features

    def _request(self, size: int) -> ov.InferRequest:
        """Return this thread's request for batches of a size."""
        known: dict[str, ov.InferRequest] = self._threads.__dict__
        name = f"batch{size}"
        if name not in known:
            with self._lock:
                if size not in self._compiled:
                    self._compiled[size] = self._compile(size)
            known[name] = self._compiled[size].create_infer_request()
        return known[name]

    def _compile(self, size: int) -> ov.CompiledModel:
        model = unpack(self._int8) if self._precision == "int8" else read_graph(self._folder)
        side, streams = self._folder.config.size, len(os.sched_getaffinity(0))
        model.reshape([size, 1, side, side])
        if self._precision == "bfloat16":
            to_bfloat16(model)
        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # what is bfloat16 or int8 stands in the graph
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "ENABLE_CPU_PINNING": False,
        }
        return ov.Core().compile_model(model, "CPU", options)
