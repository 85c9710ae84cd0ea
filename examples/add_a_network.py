"""Add a network: one module, one entry of a table, and it can be built by name. See docs/how-to/add-a-network.md.

In the tree the class is a file of covseg/networks/ and the entry a line of covseg/networks/table.py; here both
stand in one script, so that it runs.

Run: python examples/add_a_network.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from covseg.networks.table import NETWORKS, NetworkEntry, build
from covseg.training.recipe import load_recipe


class TinyNet(nn.Module):
    """Three convolutions on half the grid: the smallest network that keeps the contract.

    Parameters
    ----------
    masks : int
        Masks to draw; the infection comes last.
    channels : int
        Of the input.
    width : int
        Of the hidden layers.
    """

    def __init__(self, masks: int = 2, channels: int = 1, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 4 * masks, 1)

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mask logits ``(N, M, S, S)``, presence logits ``(N,)`` and features ``(N, F)``."""
        features = torch.relu(self.deep(torch.relu(self.down(images))))
        masks = nn.functional.pixel_shuffle(self.head(features), 2)  # back on the grid of the input
        return masks, masks[:, -1].amax(dim=(1, 2)), features.mean(dim=(2, 3))


NETWORKS["tiny"] = NetworkEntry(f"{__name__}:TinyNet")  # see there for what an entry can say


def main() -> None:
    """Build the network by name, as a model folder does, and check what it returns."""
    network = build("tiny", {"masks": 2}).eval()
    with torch.inference_mode():
        masks, presence, features = network.forward_with_features(torch.zeros(3, 1, 64, 64))
    print("mask logits", tuple(masks.shape), "presence", tuple(presence.shape), "features", tuple(features.shape))
    print(f"{sum(value.numel() for value in network.parameters()):,} parameters")
    # in this process a recipe takes it by name too; for `covseg train` the entry has to stand in networks/table.py
    recipe = load_recipe("unet-small", ["network.kind=tiny", "network.widths=[]", 'data.targets=["lung", "infection"]'])
    print(f"recipe {recipe.name} with network {recipe.network.kind}, digest {recipe.digest[:12]}")


if __name__ == "__main__":
    main()
