"""Networks of segmentation-models-pytorch behind our contract: U-Net, U-Net++ and SegFormer.

In: grey images ``(N, 1, S, S)`` in [0, 1], or image and lung mask ``(N, 2, S, S)``. Out: mask logits
``(N, M, S, S)``. The encoder starts at random; `covseg.training.weights` fills it.
"""

from __future__ import annotations

from typing import Literal

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class LibraryNet(nn.Module):
    """A library network with a grey stage.

    Parameters
    ----------
    architecture : str
        ``unet``, ``unetpp`` or ``segformer``.
    encoder : str
        Name in segmentation-models-pytorch.
    masks : int
        Masks to draw; the infection comes last.
    channels : int
        1 grey, 3 grey as RGB, 4 RGB and the lung mask.
    imagenet : bool
        Normalise RGB by ImageNet's mean and deviation, inside the network.
    dropout : float
        On the decoder's features, before the mask head; the library has none there.
    attention : str
        ``none`` or ``scse``.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        architecture: str,
        encoder: str,
        masks: int = 1,
        channels: int = 3,
        imagenet: bool = False,
        dropout: float = 0.0,
        attention: Literal["none", "scse"] = "none",
    ) -> None:
        super().__init__()
        options = {} if attention == "none" else {"decoder_attention_type": attention}
        body = smp.create_model(
            {"unetpp": "unetplusplus"}.get(architecture, architecture),
            encoder, encoder_weights=None, in_channels=channels, classes=masks, **options,
        )  # fmt: skip
        self.encoder, self.decoder, self.head = body.encoder, body.decoder, body.segmentation_head
        self.dropout = nn.Dropout2d(dropout)
        self.channels = channels
        mean, deviation = (IMAGENET_MEAN, IMAGENET_DEVIATION) if imagenet else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean)[None, :, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[None, :, None, None], persistent=False)

    def _colour(self, images: Tensor) -> Tensor:
        """Spread grey over RGB, normalised; a second plane (the lung mask) stays as it is."""
        if self.channels == 1:
            return images
        colour = (images[:, :1] - self.mean) / self.deviation
        return colour if self.channels == 3 else torch.cat([colour, images[:, 1:]], dim=1)

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mask logits, presence logits ``(N,)`` (the strongest infection pixel) and features ``(N, F)``."""
        grids = self.encoder(self._colour(images))
        masks = self.head(self.dropout(self.decoder(grids)))
        return masks, masks[:, -1].amax(dim=(1, 2)), grids[-1].mean(dim=(2, 3))
