"""The networks by name: everything that recipes, training and release have to know of one stands in its entry.

A network is a `torch.nn.Module` with ``forward_with_features(images)``: from images ``(N, C, S, S)`` to mask logits
``(N, M, S, S)`` (the infection last), presence logits ``(N,)`` (any infection) and features ``(N, F)``. It is built
from `masks` (M), `channels` and what its entry says that it takes. To add one, write its class and its entry; nothing
else names it. No torch is imported before a network is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any, Literal

from covseg.errors import ModelRefused
from covseg.settings.faults import meant

Arguments = Mapping[str, object]


@dataclass(frozen=True)
class NetworkEntry:
    """How a network is built, and which settings of a recipe mean something to it.

    Parameters
    ----------
    place : str
        ``module:Class``, imported when one is built.
    implied : mapping
        Arguments that the name stands for.
    encoders : str
        Library that its argument `encoder` is a name of, and that holds its ImageNet weights; empty takes none.
        The encoder is the attribute ``encoder``.
    channels : tuple of int
        Input channels that it can be built for (argument `channels`): 1 grey, 2 grey and the lung mask, 3 grey as RGB,
        4 RGB and the lung mask. One that takes 3 or 4 makes them of grey itself, and is told by `imagenet` whether to
        normalise.
    attention : tuple of str
        Values of its argument `attention` beside ``none``.
    widths, dropout, view : bool
        Whether it has such arguments.
    head : bool
        Whether it has an image-level head for presence, left away by ``presence=False``; the others' presence is
        the strongest infection pixel.
    trained : bool
        Whether a recipe can train it; a composite is made of trained ones at release.
    """

    place: str
    implied: Arguments = field(default_factory=dict)
    encoders: Literal["", "timm", "segmentation-models-pytorch"] = ""
    channels: tuple[int, ...] = (1,)
    attention: tuple[str, ...] = ()
    widths: bool = False
    dropout: bool = False
    view: bool = False
    head: bool = False
    trained: bool = True


def _library(architecture: str, *attention: str) -> NetworkEntry:
    return NetworkEntry(
        "covseg.networks.library:LibraryNet", {"architecture": architecture}, "segmentation-models-pytorch",
        channels=(1, 3, 4), attention=attention, dropout=True,
    )  # fmt: skip


NETWORKS: dict[str, NetworkEntry] = {
    "unet": _library("unet", "scse"),
    "unetpp": _library("unetpp", "scse"),
    "segformer": _library("segformer"),
    "plain-unet": NetworkEntry("covseg.networks.plain:PlainUNet", widths=True),
    "attention-unet": NetworkEntry("covseg.networks.plain:PlainUNet", {"gates": True}, widths=True),
    "encoder-unet": NetworkEntry(
        "covseg.networks.encoder_unet:EncoderUNet", encoders="timm", attention=("scse", "gates"), widths=True, head=True
    ),
    "lung-view": NetworkEntry(
        "covseg.networks.lung_view:LungView",
        encoders="timm",
        channels=(2,),
        attention=("scse", "gates"),
        widths=True,
        head=True,
        view=True,
    ),
    "cascade": NetworkEntry("covseg.networks.composite:Cascade", trained=False),
    "ensemble": NetworkEntry("covseg.networks.composite:Ensemble", trained=False),
}


def trained() -> list[str]:
    """Name the networks that a recipe can train."""
    return [name for name, entry in NETWORKS.items() if entry.trained]


def unknown(name: str, known: list[str]) -> str:
    """Say that there is no such network, which one was probably meant, and which there are."""
    return f"unknown network {name!r}{meant(name, known)}: wanted one of {', '.join(sorted(known))}"


def build(name: str, arguments: Arguments) -> Any:
    """Build a network by name, weights random.

    Raises
    ------
    ModelRefused
        When the name or an argument is unknown, or the library that draws it is not installed.
    """
    if name not in NETWORKS:
        raise ModelRefused(unknown(name, list(NETWORKS)))
    entry = NETWORKS[name]
    try:
        return resolve_name(entry.place)(**entry.implied, **arguments)
    except ImportError as error:
        raise ModelRefused(f"network {name!r} needs {error.name}: install covseg[train]") from error
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise ModelRefused(f"network {name!r} cannot be built from {arguments}: {error}") from error
