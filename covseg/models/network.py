"""From a model folder to a torch network in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from covseg.errors import ModelRefused
from covseg.models import LIBRARY
from covseg.models.folder import ModelFolder


class Network(Protocol):
    """What every network of ours answers."""

    def forward_with_features(self, films: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mask logits ``(N, M, S, S)``, presence logits ``(N,)`` and features ``(N, F)``."""
        ...


def _kinds() -> dict[str, Callable[..., nn.Module]]:
    """Builders by name; a library is imported when one of its networks is built."""
    from covseg.models.combine import Cascade, Ensemble
    from covseg.models.compact import CompactUNet
    from covseg.models.plain import AttentionUNet, PlainUNet

    own: dict[str, Callable[..., nn.Module]] = {
        "compact": CompactUNet, "plain-unet": PlainUNet, "attention-unet": AttentionUNet, "cascade": Cascade,
        "ensemble": Ensemble, "encoder-unet": _encoder_unet,
    }  # fmt: skip
    return own | {name: partial(_library, name) for name in LIBRARY}


def _encoder_unet(**arguments: Any) -> nn.Module:
    from covseg.models.encoder_unet import EncoderUNet

    return EncoderUNet(**arguments)


def _library(name: str, **arguments: Any) -> nn.Module:
    from covseg.models.library import LibraryNet

    return LibraryNet(name, **arguments)


def build(name: str, arguments: dict[str, Any]) -> Any:
    """Build a network by name, weights random: a `torch.nn.Module` that is a `Network`.

    Raises
    ------
    ModelRefused
        When the name or an argument is unknown, or the library that draws it is not installed.
    """
    kinds = _kinds()
    if name not in kinds:
        raise ModelRefused(f"unknown network {name!r}: wanted one of {', '.join(sorted(kinds))}")
    try:
        return kinds[name](**arguments)
    except ImportError as error:
        raise ModelRefused(f"network {name!r} needs {error.name}: install covseg[train]") from error
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise ModelRefused(f"network {name!r} cannot be built from {arguments}: {error}") from error


def load(folder: ModelFolder) -> Any:
    """Build the folder's network and fill in its weights (float32), in evaluation mode.

    Raises
    ------
    ModelRefused
        When the weights are damaged or belong to another architecture.
    """
    network = build(folder.card.network, folder.card.network_args)
    try:
        state = load_file(folder.weights)
        network.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        )
    except (SafetensorError, RuntimeError) as error:
        raise ModelRefused(
            f"{folder.weights} does not fit network {folder.card.network!r}: {str(error)[:200]}"
        ) from error
    network.eval()
    return network


class Answer(nn.Module):
    """A network with its outputs as the segment door wants them: probabilities and features."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, films: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return probabilities ``(N, 2, S, S)``, presence ``(N,)`` and features ``(N, F)``."""
        masks, presence, features = self.network.forward_with_features(films)
        return masks.sigmoid(), presence.sigmoid(), features
