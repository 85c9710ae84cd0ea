"""Images to training batches; what a batch holds is a function of (seed, epoch, step) alone.

In: `ImageArrays` in memory. Out: tensors on the model grid, prepared by the same `covseg.stages.preprocess.prepare`
that scoring uses. Ranks share one global order: rank r of w takes every w-th image of each global batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from covseg.stages.preprocess import prepare, resize
from covseg.training.augment import Augmenter
from covseg.training.dataset import ImageArrays
from covseg.training.ranks import Rank
from covseg.training.recipe import Recipe


class Batch(NamedTuple):
    """Stacked images ``(V N, 1 or 2, S, S)``: prepared grey; the lung mask as a second plane where the network sees it.

    V is 1, or 2 where the recipe asks for consistency: first one view of each image, then the other of each. The truth
    ``(V N, M, S, S)`` is 0 or 1, in the order of the recipe's targets, both float32; `strata` is int64 ``(V N,)``;
    `samples`, the row of each image in its split, int64 ``(N,)``.
    """

    images: Tensor
    truth: Tensor
    strata: Tensor
    samples: Tensor


class Samples(Dataset[tuple[Tensor, Tensor, int, int]]):
    """Images of one split, addressed by (epoch, row); a negative epoch is not augmented.

    Parameters
    ----------
    lungs : ndarray of uint8, shape (N, H, W), or None
        The lung masks {0, 255} that the network sees; None where it sees none.
    """

    def __init__(self, images: ImageArrays, recipe: Recipe, lungs: NDArray[np.uint8] | None = None) -> None:
        self.images, self.recipe, self.lungs = images, recipe, lungs
        self.augment = Augmenter(recipe.augment, recipe.seed)

    def __len__(self) -> int:
        return len(self.images.names)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor, int, int]:
        epoch, row = place
        recipe, image = self.recipe, self.images.images[row]
        masks_of = {"lung": self.images.lungs, "infection": self.images.infections}
        planes = [masks_of[name][row] for name in recipe.data.targets]
        planes += [] if self.lungs is None else [self.lungs[row]]
        masks = np.stack(planes, axis=-1)
        if epoch >= 0:
            image, masks = self.augment(image, masks, epoch, row)
        views = [image]
        if epoch >= 0 and recipe.loss.consistency:
            views.append(self.augment.again(image, epoch, row))
        size = grid(recipe, epoch)
        pixels = np.stack([prepare(view.astype(np.float32) / 255, size, prepared(recipe)) for view in views])[:, None]
        small = np.moveaxis(resize(masks, size, size).reshape(size, size, -1), -1, 0) > 127
        if self.lungs is not None:
            lung = np.broadcast_to(small[-1:].astype(np.float32), pixels.shape)
            pixels = np.concatenate([pixels, lung], axis=1)
        truth = small[: len(recipe.data.targets)].astype(np.float32)
        return torch.from_numpy(pixels), torch.from_numpy(truth), int(self.images.strata[row]), row


def prepared(recipe: Recipe) -> str:
    """Return what `prepare` does to grey values; ImageNet's numbers are the network's own first layer."""
    return "standardise" if recipe.input.normalisation == "standardise" else "unit"


def grid(recipe: Recipe, epoch: int) -> int:
    """Return the side of the grid in an epoch; validation (negative) uses the last one."""
    early = recipe.input.early_size
    return early if early and 0 <= epoch < recipe.input.early_share * recipe.stop.epochs else recipe.input.size


def order(images: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the global batches of an epoch: a permutation cut into full batches, the rest left for another epoch.

    Fewer images than a batch give one batch of them all.
    """
    rows = np.random.default_rng((seed, epoch)).permutation(images)
    return [rows[first : first + batch] for first in range(0, max(images - batch, 0) + 1, batch)]


def _stack(items: list[tuple[Tensor, Tensor, int, int]]) -> Batch:
    images, truth, strata, samples = zip(*items, strict=True)
    views = len(images[0])
    truths, places = torch.stack(truth).repeat(views, 1, 1, 1), torch.tensor(strata).repeat(views)
    return Batch(torch.stack(images, dim=1).flatten(0, 1), truths, places, torch.tensor(samples))


def training_batches(samples: Samples, epoch: int, first: int, rank: Rank, workers: int) -> Iterator[Batch]:
    """Yield this rank's part of each global batch of an epoch, from step `first` on."""
    batches = order(len(samples), samples.recipe.batch, samples.recipe.seed, epoch)[first:]
    places = [[(epoch, int(row)) for row in batch[rank.index :: rank.world]] for batch in batches]
    yield from _loader(samples, places, rank, workers)


def validation_batches(samples: Samples, rank: Rank, workers: int, size: int = 16) -> Iterator[Batch]:
    """Yield this rank's part of a split, not augmented, in order."""
    rows = range(rank.index, len(samples), rank.world)
    places = [[(-1, row) for row in rows[first : first + size]] for first in range(0, len(rows), size)]
    yield from _loader(samples, places, rank, workers)


def _loader(samples: Samples, places: list[list[tuple[int, int]]], rank: Rank, workers: int) -> DataLoader[Any]:
    return DataLoader(
        samples, batch_sampler=places, collate_fn=_stack, num_workers=workers, pin_memory=rank.device != "cpu",
        prefetch_factor=4 if workers else None,
    )  # fmt: skip
