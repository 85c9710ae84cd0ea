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
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from covseg.models.compact import CompactUNet
from covseg.preprocess import prepare, resize
from covseg.training.augment import Augmenter
from covseg.training.dataset import Films, load_split
from covseg.training.losses import is_finite, joint

log = logging.getLogger(__name__)

GRID_BY_SHARE = ((0.38, 128), (0.76, 192), (1.01, 256))
EMA_DECAY = 0.99
WARM_UP = 0.03


def batch_tensors(films: Films, index: NDArray, size: int, augment: Augmenter | None, epoch: int) -> list[Tensor]:
    """Stack prepared films ``(N, 1, S, S)`` and both masks ``(N, S, S)`` as float32 tensors."""
    columns: list[list[NDArray]] = [[], [], []]
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


def validate(net: CompactUNet, films: Films, size: int) -> dict[str, float]:
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


def train(
    root: Path, out: Path, minutes: float, batch: int, peak: float, seed: int, limit: int | None, val_every: int
) -> None:
    """Train and leave ``weights.safetensors`` (EMA), ``metrics.csv`` and ``run.json`` in `out`."""
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    films, val = load_split(root, "Train", limit), load_split(root, "Val", limit)
    val_thin = load_split(root, "Val", 300)
    net = CompactUNet().to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=peak, weight_decay=0.03)
    augment = Augmenter(seed)
    (out / "run.json").write_text(
        json.dumps(
            {
                "minutes": minutes, "batch": batch, "peak_lr": peak, "seed": seed, "limit": limit,
                "train_digest": films.digest, "val_digest": val.digest, "torch": torch.__version__,
            }
        )
    )  # fmt: skip
    start, epoch, step = time.monotonic(), 0, 0
    spent = 0.0
    with (out / "metrics.csv").open("w", newline="") as file:
        table = csv.writer(file)
        while spent < 1:
            order = np.random.default_rng((seed, epoch)).permutation(len(films.names))
            losses = []
            for first in range(0, len(order) - batch + 1, batch):
                spent = (time.monotonic() - start) / (minutes * 60)
                if spent >= 1:
                    break
                size = next(grid for share, grid in GRID_BY_SHARE if spent < share)
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(spent, peak)
                pixels, lungs, infections = batch_tensors(films, order[first : first + batch], size, augment, epoch)
                loss = joint(*net(pixels.to(memory_format=torch.channels_last)), lungs, infections)
                if not is_finite(loss):
                    raise FloatingPointError(f"loss is {loss.item()} at epoch {epoch}, step {step}: lower the rate")
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimiser.step()
                if step % 4 == 0:
                    average.update_parameters(net)
                step += 1
                losses.append(loss.item())
                if step % 25 == 0:
                    log.info("epoch %d step %d share %.3f grid %d loss %.4f", epoch, step, spent, size, np.mean(losses[-25:]))
            epoch += 1
            row = {"epoch": epoch, "share": spent, "grid": size, "train_loss": float(np.mean(losses or [0]))}
            if epoch % val_every == 0 or spent >= 1:
                row |= validate(average.module, val if spent >= 1 else val_thin, size)
            log.info("%s", json.dumps(row))
            table.writerow(row.values())
            file.flush()
            state = {name: value.half().contiguous() for name, value in average.module.state_dict().items()}
            save_file(state, out / "weights.safetensors")


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
    parser.add_argument("--val-every", type=int, default=2)
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(
        flags.data, flags.out, flags.minutes, flags.batch, flags.peak_lr, flags.seed, flags.limit, flags.val_every
    )


if __name__ == "__main__":
    main()
