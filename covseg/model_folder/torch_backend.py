"""PyTorch on a GPU or a CPU: the reference in float32, and bfloat16 with a proof.

In: a model folder. Out: a backend that several threads may call at once. On a GPU each thread has a stream and pinned
memory of its own, so that one batch is copied while another is computed. A batch that does not fit into memory is run
in halves, and so are those after it; which images form a batch stays the plan's matter.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covseg.errors import EnvironmentFailed
from covseg.model_folder.folder import ModelFolder
from covseg.model_folder.load import Answer, load
from covseg.model_folder.precision import Precision, check_proof
from covseg.networks.lung_view import LungView
from covseg.stages.segment import Arrays

ALIKE = 1e-3  # of a probability; farther apart, a compiled network is not the one that was compiled
log = logging.getLogger(__name__)
Forward = Callable[[Tensor], Sequence[Tensor]]


class TorchBackend:
    """A network in eager mode or compiled, channels last.

    Parameters
    ----------
    folder : ModelFolder
    device : str or None
        ``cpu``, ``cuda`` or ``cuda:1``; None takes a GPU where there is one.
    precision : str
        ``float32`` (on a GPU without TF32), or ``bfloat16``: convolutions by autocast, but float32 for what decides
        where the network looks.
    proved : bool
        False runs bfloat16 without a proof: for whoever measures it.
    compiler : callable or None
        Makes a faster forward of a network, such as `fused`; used only where it answers as the network does.

    Raises
    ------
    EnvironmentFailed
        When a GPU is asked for and there is none.
    ModelRefused
        When bfloat16 has no passed proof.
    """

    def __init__(
        self,
        folder: ModelFolder,
        device: str | None = None,
        precision: Precision = "float32",
        *,
        proved: bool = True,
        compiler: Callable[[nn.Module], Forward] | None = None,
    ) -> None:
        if precision == "bfloat16" and proved:
            check_proof(folder, precision, None)
        self._device = _device(device)
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        else:
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        answer = Answer(load(folder)).eval().to(self._device).to(memory_format=torch.channels_last)
        if precision == "bfloat16":
            _round_convolutions(answer, self._device.type)
        side = folder.config.size
        self._forward: Forward = answer if compiler is None else checked(answer, compiler(answer), side, self._device)
        kind = {"float32": "fp32", "bfloat16": "bf16"}[precision] + ("" if self._forward is answer else "-compiled")
        self.name = f"torch-{torch.__version__.split('+')[0]}-{self._device.type}-{kind}"
        self._own = threading.local()
        self._most: int | None = None  # images at once; known once memory ran out

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Run one batch, in parts where memory does not hold the whole."""
        most = self._most or len(images)
        if len(images) > most:
            parts = [self.run(images[start : start + most]) for start in range(0, len(images), most)]
            lung_and_infection, presence, features = (np.concatenate(part) for part in zip(*parts, strict=True))
            return lung_and_infection, presence, features
        try:
            return self._run(images)
        except torch.OutOfMemoryError as error:
            if len(images) == 1:
                raise EnvironmentFailed(f"no memory on {self._device} for one image of this model") from error
            self._most = (len(images) + 1) // 2
            log.warning("no memory on %s for %d images at once: %d from now on", self._device, len(images), self._most)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self.run(images)

    def _run(self, images: NDArray[np.float32]) -> Arrays:
        with torch.inference_mode(), self._stream():
            batch = self._put(torch.from_numpy(np.ascontiguousarray(images))[:, None])
            masks, presence, features = self._get(self._forward(batch))
        return masks, presence, features

    def _stream(self) -> Any:
        """Return this thread's own stream, where there are streams."""
        if self._device.type != "cuda":
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._own.stream)

    def _put(self, batch: Tensor) -> Tensor:
        if self._device.type == "cuda":
            batch = batch.pin_memory()  # from PyTorch's cache of pinned memory, after the first time
        return batch.to(self._device, memory_format=torch.channels_last, non_blocking=True)

    def _get(self, answers: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        if self._device.type != "cuda":
            return [answer.float().numpy() for answer in answers]
        places = [torch.empty(answer.shape, dtype=torch.float32, pin_memory=True) for answer in answers]
        for place, answer in zip(places, answers, strict=True):
            place.copy_(answer, non_blocking=True)
        self._own.stream.synchronize()
        return [place.numpy() for place in places]


def fused(network: nn.Module) -> Forward:
    """Compile a network; on a GPU its kernels are replayed as one CUDA graph a batch size."""
    compiled: Forward = torch.compile(network, mode="reduce-overhead")
    return compiled


def checked(network: nn.Module, candidate: Forward, side: int, device: torch.device) -> Forward:
    """Return the candidate if it answers two images of noise as the network does, within `ALIKE`; else the network."""
    batch = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    batch = batch.to(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            pairs = list(zip(network(batch), candidate(batch), strict=True))
        apart = max(float((ours.float() - theirs.float()).abs().max()) for ours, theirs in pairs[:2])
        fault = "" if apart <= ALIKE else f"its answers are off by {apart:.3g}"
    except Exception as error:  # noqa: BLE001 - whatever a compiler raises, the network itself still runs
        fault = f"{type(error).__name__}: {error}"
    if fault:
        log.warning("the compiled network is not used: %s", fault)
    return network if fault else candidate


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentFailed(
            f"a GPU was asked for ({name}) and PyTorch {torch.__version__} sees none: check nvidia-smi and that "
            "PyTorch was installed with CUDA, or take --backend onnx"
        )
    return torch.device(name)


def _round_convolutions(network: nn.Module, kind: str) -> None:
    """Let networks run under autocast to bfloat16; of one that looks at a box, only what lies inside that box."""
    inner: list[Any] = [module.network for module in network.modules() if isinstance(module, LungView)]
    for part in inner or [network.network]:
        plain = part.forward_with_features

        def forward(images: Tensor, plain: Callable[[Tensor], Any] = plain) -> tuple[Tensor, ...]:
            with torch.autocast(kind, torch.bfloat16):
                return tuple(answer.float() for answer in plain(images))

        part.forward_with_features = forward
