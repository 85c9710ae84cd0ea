"""What an encoder starts from: ImageNet from the hub, a file, a bucket, or nothing. Checked before the first step.

In: the recipe's ``network.weights``. Out: an encoder that is filled, and a record of where from. A file is
a safetensors or a PyTorch state dict (read without unpickling objects); its tensors are matched by name,
or, where names differ, by order and shape: the same network from another library.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from covseg.errors import CovsegError, UsageError
from covseg.storage import open_store
from covseg.training.recipe import Recipe

State = dict[str, Tensor]
LEAST_MOMENTUM = 0.1
RGB = 3  # channels of a first layer that can be adapted to others


def fill(network: nn.Module, recipe: Recipe) -> str:
    """Fill the network's encoder as the recipe says; return the source of its weights, for the run's record.

    Raises
    ------
    UsageError
        When the weights cannot be fetched or read or do not fit; nothing was trained yet.
    """
    wanted = recipe.network.weights
    if wanted == "none":
        _follow_faster(network)
        return "none"
    if not recipe.network.encoder:
        raise UsageError(f"network.weights={wanted}: {recipe.network.kind} has no library encoder; set it to none")
    if wanted == "imagenet":
        state, source = _from_hub(recipe), "imagenet (hub)"
    else:
        data = _bytes(wanted)
        state, source = _read(data, wanted), f"{Path(wanted).name}, sha256 {hashlib.sha256(data).hexdigest()}"
    own = network.state_dict()
    if all(name in state and state[name].shape == own[name].shape for name in own):  # a run's: the whole of it goes on
        network.load_state_dict({name: state[name].to(own[name].dtype) for name in own})
        return source
    encoder = network.get_submodule("encoder")
    encoder.load_state_dict(_fitted(state, encoder.state_dict(), wanted))
    return source


def _follow_faster(network: nn.Module) -> None:
    """Let batch norms take at least a tenth of a batch into their statistics, torch's own share.

    EfficientNet takes a hundredth, for trainings of many epochs: after 116 steps from random weights a lung
    network of training Dice .65 still judged with the statistics of its first steps, and found nothing.
    """
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d) and part.momentum is not None:
            part.momentum = max(part.momentum, LEAST_MOMENTUM)


def _from_hub(recipe: Recipe) -> State:
    """Build the encoder once more with the library's own ImageNet weights."""
    try:
        if recipe.network.entry.encoders == "timm":
            import timm

            return dict(timm.create_model(recipe.network.encoder, pretrained=True, features_only=True).state_dict())
        import segmentation_models_pytorch as smp

        return dict(smp.encoders.get_encoder(recipe.network.encoder, weights="imagenet").state_dict())
    except Exception as error:
        raise UsageError(
            f"ImageNet weights of {recipe.network.encoder} cannot be fetched from the hub ({type(error).__name__}: "
            f"{str(error)[:160]}). Give a file or a bucket URL, --set network.weights=PATH, or train from scratch, "
            "--set network.weights=none (every table then says so)"
        ) from error


def _bytes(ref: str) -> bytes:
    try:
        if "://" not in ref:
            return Path(ref).read_bytes()
        folder, _, name = ref.rpartition("/")
        return open_store(folder).read(name)
    except (OSError, CovsegError) as error:
        raise UsageError(f"network.weights={ref} cannot be read ({error}); wanted a state dict, or none") from error


def _read(data: bytes, ref: str) -> State:
    try:
        if ref.endswith(".safetensors"):
            return load_safetensors(data)
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            return dict(torch.load(file.name, map_location="cpu", weights_only=True))
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UsageError(
            f"network.weights={ref} is no state dict ({type(error).__name__}: {str(error)[:120]})"
        ) from error
    except Exception as error:  # pickle's own errors have no common root
        raise UsageError(
            f"network.weights={ref}: cannot be read without running code from it ({type(error).__name__}); "
            "save it as safetensors first"
        ) from error


def _fitted(state: State, wanted: State, ref: str) -> State:
    """Match by name, in a run's own weights too, then by order; adapt the first layer to the number of channels."""
    names = list(wanted)
    if {f"encoder.{name}" for name in names} <= set(state):
        state = {name: state[f"encoder.{name}"].float() for name in names}
    if not set(names) <= set(state):
        tensors = list(state.values())
        if len(tensors) < len(names):
            raise UsageError(f"{ref} holds {len(tensors)} tensors, the encoder has {len(names)}: another network")
        state = dict(zip(names, tensors, strict=False))
    fitted = {}
    for place, name in enumerate(names):
        tensor = state[name]
        if place == 0 and tensor.dim() == 4 and tensor.shape[1] == RGB != wanted[name].shape[1]:
            tensor = adapt(tensor, wanted[name].shape[1])
        if tensor.shape != wanted[name].shape:
            raise UsageError(
                f"{ref}: tensor {place}, {name}, has shape {tuple(tensor.shape)}, the encoder wants "
                f"{tuple(wanted[name].shape)}: another network"
            )
        fitted[name] = tensor
    return fitted


def adapt(weight: Tensor, channels: int) -> Tensor:
    """Bring an RGB first layer ``(O, 3, K, K)`` to grey (its sum) or to RGB and a lung mask (zeros)."""
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    extra = torch.zeros(weight.shape[0], channels - weight.shape[1], *weight.shape[2:], dtype=weight.dtype)
    return torch.cat([weight, extra], dim=1)


def start_mask_channel(encoder: nn.Module, zero: bool) -> None:
    """Start a fourth input channel (the lung mask) at zero, or as the library does: as red, all filters times 3/4."""
    first = next(value for value in encoder.parameters() if value.dim() == 4)
    with torch.no_grad():
        first[:, RGB:] = 0 if zero else first[:, :1]
        first.mul_(1 if zero else RGB / first.shape[1])
