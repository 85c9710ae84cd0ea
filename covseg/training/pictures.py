"""What a person looks at while a network learns: curves, TensorBoard events, and a few Val images.

In: the rows of ``metrics.csv`` and the averaged network. Out: ``curves.png``, ``events/``,
``samples/epoch-NN.png``. The samples are patients' images: they stay in the run's folder.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from covseg.pages.drawing import outline
from covseg.training.batches import Samples
from covseg.training.epoch_words import strata_columns
from covseg.training.learner import Learning
from covseg.training.ranks import Rank
from covseg.training.run_folder import Row, replace

PANELS = {
    "loss": ("train_loss", "val_loss"),
    "Dice per image, empty = 1": ("train_dice", "val_dice", "val_iou"),
    "Val Dice per stratum, lungs": ("val_lung_dice",),  # and every stratum's
    "Val, images without infection": ("val_negative_specificity", "val_presence_specificity"),
    "Val Dice at specificity .98": ("val_operating_dice", "val_robust_dice"),
    "learning rate": ("learning_rate",),
}
SHOWN = 8
TRUE, DRAWN, LUNG = (0, 190, 0), (0, 0, 230), (230, 160, 0)  # BGR


def draw(folder: Path, rows: list[Row], learning: Learning, val: Samples, rank: Rank) -> None:
    """Renew the curves, add the last row's events and this epoch's images."""
    curves(folder, rows)
    events(folder, rows)
    images = sample_strip(learning, val, rank)
    (folder / "samples").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "samples" / f"epoch-{int(rows[-1]['epoch']):02d}.png"), images)


def curves(folder: Path, rows: list[Row]) -> None:
    """Draw every panel over epochs into ``curves.png``."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for place, (title, names) in enumerate(PANELS.items(), 1):
        axes = figure.add_subplot(2, 3, place)
        axes.set_title(title, fontsize=10)
        strata = strata_columns(rows[-1]) if "stratum" in title else {}
        for name in (*strata, *names):
            if name in rows[-1]:
                axes.plot(epochs, [row[name] for row in rows], marker=".", label=strata.get(name, name))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.suptitle("model grid, threshold .5; research use only", fontsize=9)
    replace(folder / "curves.png", lambda staged: figure.savefig(staged, format="png", dpi=80))


def events(folder: Path, rows: list[Row]) -> None:
    """Append the last row to TensorBoard's events."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "events"))
    for name, value in rows[-1].items():
        writer.add_scalar(name, value, int(rows[-1]["epoch"]))
    writer.close()


@torch.inference_mode()
def sample_strip(learning: Learning, val: Samples, rank: Rank) -> NDArray[np.uint8]:
    """Draw the same few Val images each epoch: truth green, prediction red, lung blue, BGR ``(S, n * S, 3)``."""
    learning.eval()
    places = np.linspace(0, len(val) - 1, min(SHOWN, len(val))).astype(int)
    tiles = []
    for place in places:
        image, truth, _, row = val[-1, int(place)]
        masks = learning(image.to(rank.device))[0][0].cpu() > 0
        size = image.shape[-1]
        grey = cv2.resize(val.images.images[row], (size, size), interpolation=cv2.INTER_AREA)
        tile = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
        for name, drawn, true in zip(
            val.recipe.data.targets, masks.byte().numpy(), (truth > 0).byte().numpy(), strict=True
        ):
            outline(tile, true, TRUE if name == "infection" else LUNG)
            outline(tile, drawn, DRAWN if name == "infection" else LUNG)
        tiles.append(tile)
    learning.train()
    return np.hstack(tiles)
