"""Train the compact lung + infection network from scratch within a stated number of minutes.

The grid grows while it learns (128, then 192, then 256): early epochs are four times cheaper.
Learning rate and grid follow the share of the budget that is spent, so a run on a busy machine
still ends with a full schedule. Run: ``python -m covseg.training.compact --help``.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from covseg.models.compact import CompactUNet
from covseg.preprocess import prepare, resize
from covseg.training.augment import Augmenter
from covseg.training.dataset import Films, load_split
from covseg.training.losses import is_finite, joint

log = logging.getLogger(__name__)

GRIDS = "0.5:128,1:192"
EMA_DECAY = 0.99
EMA_EVERY = 4  # steps
WARM_UP = 0.03


def batch_tensors(
    films: Films, index: NDArray[np.int64], size: int, augment: Augmenter | None, epoch: int
) -> list[Tensor]:
    """Stack prepared films ``(N, 1, S, S)`` and both masks ``(N, S, S)`` as float32 tensors."""
    columns: list[list[NDArray[Any]]] = [[], [], []]
    for sample in index:
        triple = films.films[sample], films.lungs[sample], films.infections[sample]
        if augment is not None:
            triple = augment(*triple, epoch=epoch, sample=int(sample))
        columns[0].append(prepare(triple[0].astype(np.float32) / 255, size)[0][None])
        for column, mask in zip(columns[1:], triple[1:], strict=True):
            column.append((resize(mask, size, size) > 127).astype(np.float32))
    return [torch.from_numpy(np.stack(column)) for column in columns]


def learning_rate(share: float, peak: float) -> float:
    """Linear warm-up, then a cosine to zero, over the share of the budget that is spent."""
    if share < WARM_UP:
        return peak * max(share / WARM_UP, 0.01)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (share - WARM_UP) / (1 - WARM_UP))))


def validate(net: nn.Module, films: Films, size: int) -> dict[str, float]:
    """Per-image Dice at threshold .5 on the model grid, COVID-only, and specificity on negatives."""
    net.eval()
    lung, infection, positive, clean = [], [], [], []
    with torch.inference_mode():
        for start in range(0, len(films.names), 16):
            index = np.arange(start, min(start + 16, len(films.names)))
            pixels, lungs, infections = batch_tensors(films, index, size, None, 0)
            masks, presence = net(pixels.to(memory_format=torch.channels_last))
            guess = masks > 0
            lung += _dice(guess[:, 0], lungs > 0)
            scores = _dice(guess[:, 1], infections > 0)
            for row, sample in enumerate(index):
                if films.strata[sample] == 0:
                    infection.append(scores[row])
                    positive.append(float(presence[row] > 0))
                else:
                    clean.append((float(~guess[row, 1].any()), float(presence[row] <= 0)))
    net.train()
    return {
        "lung_dice": float(np.mean(lung)),
        "covid_dice": float(np.mean(infection)),
        "negative_specificity": float(np.mean([a for a, _ in clean])),
        "presence_sensitivity": float(np.mean(positive)),
        "presence_specificity": float(np.mean([b for _, b in clean])),
    }


def _dice(guess: Tensor, truth: Tensor) -> list[float]:
    overlap = (guess & truth).sum(dim=(1, 2)).float()
    total = guess.sum(dim=(1, 2)).float() + truth.sum(dim=(1, 2)).float()
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), torch.ones_like(total)).tolist()


def parse_grids(text: str) -> list[tuple[float, int]]:
    """Read ``share:grid`` pairs: up to that share of the budget, train on that grid.

    Examples
    --------
    >>> parse_grids("0.5:128,1:192")
    [(0.5, 128), (1.0, 192)]
    """
    pairs = (part.split(":") for part in text.split(","))
    return [(float(share), int(grid)) for share, grid in pairs]


class Learner:
    """Network, its running average and its optimiser.

    Parameters
    ----------
    init : Path or None
        Weights to start from; None starts from random ones.
    peak : float
        Highest learning rate.
    """

    def __init__(self, init: Path | None, peak: float) -> None:
        net = CompactUNet()
        if init:
            net.load_state_dict({name: value.float() for name, value in load_file(init).items()})
        self.net = net.to(memory_format=torch.channels_last)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True
        )
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=peak, weight_decay=0.03)
        self.peak, self.steps = peak, 0

    def step(self, batch: list[Tensor], share: float) -> float:
        """Take one step at the learning rate of this share of the budget; return the loss.

        Raises
        ------
        FloatingPointError
            When the loss is not finite.
        """
        pixels, lungs, infections = batch
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(share, self.peak)
        masks, presence = self.net(pixels.to(memory_format=torch.channels_last))
        loss = joint(masks, presence, lungs, infections)
        if not is_finite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {self.steps}: lower --peak-lr")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        if self.steps % EMA_EVERY == 0:
            self.average.update_parameters(self.net)
        return loss.item()

    def save(self, path: Path) -> None:
        """Write the averaged weights as float16."""
        save_file({name: value.half().contiguous() for name, value in self.average.module.state_dict().items()}, path)


def train(flags: argparse.Namespace) -> None:
    """Train and leave ``weights.safetensors`` (averaged), ``metrics.csv`` and ``run.json`` in `flags.out`."""
    torch.manual_seed(flags.seed)
    if flags.threads:
        torch.set_num_threads(flags.threads)
    flags.out.mkdir(parents=True, exist_ok=True)
    films, val = load_split(flags.data, "Train", flags.limit), load_split(flags.data, "Val", flags.limit)
    facts = {name: str(value) for name, value in vars(flags).items() if name not in ("data", "out", "init")}
    facts |= {"train_sha256": films.digest, "val_sha256": val.digest, "torch": torch.__version__}
    (flags.out / "run.json").write_text(json.dumps(facts, indent=1))
    learner, grids, start = Learner(flags.init, flags.peak_lr), parse_grids(flags.grids), time.monotonic()
    augment, epoch, share = Augmenter(flags.seed), 0, 0.0
    with (flags.out / "metrics.csv").open("w", newline="") as file:
        while share < 1:
            losses = []
            for index in batches(len(films.names), flags.batch, (flags.seed, epoch)):
                share = (time.monotonic() - start) / (flags.minutes * 60)
                if share >= 1:
                    break
                size = next(grid for limit, grid in grids if share < limit)
                losses.append(learner.step(batch_tensors(films, index, size, augment, epoch), share))
            epoch += 1
            row = {"epoch": epoch, "share": share, "grid": size, "train_loss": float(np.mean(losses or [np.nan]))}
            row |= validate(learner.average.module, val, size)
            log.info("%s", json.dumps(row))
            csv.writer(file).writerow(row.values())
            file.flush()
            learner.save(flags.out / "weights.safetensors")


def batches(count: int, size: int, seed: tuple[int, int]) -> Iterator[NDArray[np.int64]]:
    """Yield full batches of a permutation that depends on the seed alone."""
    order = np.random.default_rng(seed).permutation(count)
    for first in range(0, count - size + 1, size):
        yield order[first : first + size]


def main() -> None:
    """Read the flags and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--peak-lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--grids", default=GRIDS, help="share of the budget : side of the grid, in order")
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(flags)


if __name__ == "__main__":
    main()
