"""The networks by name, and how one is built: one entry here for each."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from torch import Tensor

from covseg.errors import ModelRefused


class Network(Protocol):
    """What every network of ours answers."""

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mask logits ``(N, M, S, S)``, presence logits ``(N,)`` and features ``(N, F)``."""
        ...


# name -> class, imported when one is built, and arguments that the name implies
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain-unet": ("covseg.networks.plain:PlainUNet", {}),
    "attention-unet": ("covseg.networks.plain:AttentionUNet", {}),
    "encoder-unet": ("covseg.networks.encoder_unet:EncoderUNet", {}),
    "unet": ("covseg.networks.library:LibraryNet", {"architecture": "unet"}),
    "unetpp": ("covseg.networks.library:LibraryNet", {"architecture": "unetpp"}),
    "segformer": ("covseg.networks.library:LibraryNet", {"architecture": "segformer"}),
    "cascade": ("covseg.networks.composite:Cascade", {}),
    "ensemble": ("covseg.networks.composite:Ensemble", {}),
    "compact": ("covseg.networks.blocks:CompactUNet", {}),
}


def build(name: str, arguments: dict[str, Any]) -> Any:
    """Build a network by name, weights random: a `torch.nn.Module` that is a `Network`.

    Raises
    ------
    ModelRefused
        When the name or an argument is unknown, or the library that draws it is not installed.
    """
    if name not in NETWORKS:
        raise ModelRefused(f"unknown network {name!r}: wanted one of {', '.join(sorted(NETWORKS))}")
    place, implied = NETWORKS[name]
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)(**implied, **arguments)
    except ImportError as error:
        raise ModelRefused(f"network {name!r} needs {error.name}: install covseg[train]") from error
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise ModelRefused(f"network {name!r} cannot be built from {arguments}: {error}") from error
