"""From a model folder to a torch network in evaluation mode."""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from covseg.errors import ModelRefused
from covseg.model_folder.folder import ModelFolder
from covseg.networks.table import build


def load(folder: ModelFolder) -> Any:
    """Build the folder's network and fill in its weights (float32), in evaluation mode.

    Raises
    ------
    ModelRefused
        When the weights are damaged or belong to another architecture.
    """
    network = build(folder.config.network, folder.config.network_args)
    try:
        state = load_file(folder.weights)
        network.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        )
    except (SafetensorError, RuntimeError) as error:
        raise ModelRefused(
            f"{folder.weights} does not fit network {folder.config.network!r}: {str(error)[:200]}"
        ) from error
    network.eval()
    return network


class Answer(nn.Module):
    """A network with its outputs as the segment stage wants them: probabilities and features."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return probabilities ``(N, 2, S, S)``, presence ``(N,)`` and features ``(N, F)``."""
        masks, presence, features = self.network.forward_with_features(images)
        return masks.sigmoid(), presence.sigmoid(), features
