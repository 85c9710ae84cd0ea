"""A network, its running average and its optimiser: one step, and the state that brings it back.

It knows nothing of files, epochs' ends or clusters; under `torch.distributed` it wraps itself.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from covseg.errors import UsageError
from covseg.networks.table import build
from covseg.training import weights
from covseg.training.batches import Batch
from covseg.training.losses import Loss, disagreement
from covseg.training.ranks import Rank
from covseg.training.recipe import OptimiserConfig, Recipe

Outputs = tuple[Tensor, Tensor, Tensor | None]
State = dict[str, Any]  # of torch: tensors and plain values, in trees


def network_arguments(recipe: Recipe) -> tuple[str, dict[str, object]]:
    """Return the name and arguments that `covseg.networks.table.build` wants."""
    network, entry = recipe.network, recipe.network.entry
    arguments: dict[str, object] = {"masks": len(recipe.data.targets), "channels": recipe.input.channels}
    arguments |= {"encoder": network.encoder} if network.encoder else {}
    arguments |= {"widths": network.widths} if network.widths else {}
    arguments |= {"imagenet": recipe.input.normalisation == "imagenet"} if 3 in entry.channels else {}
    arguments |= {"view": recipe.input.view} if entry.view else {}
    arguments |= {"dropout": network.dropout} if entry.dropout else {}
    arguments |= {"attention": network.attention} if network.attention != "none" else {}
    return network.kind, arguments | ({} if has_head(recipe) or not entry.head else {"presence": False})


def has_head(recipe: Recipe) -> bool:
    """Tell whether presence is read from a head of its own, or else from the strongest infection pixel."""
    return recipe.network.entry.head and bool(recipe.loss.presence)


class Learning(nn.Module):
    """The network and, where wanted, a head for the three strata that only training uses."""

    def __init__(self, network: nn.Module, features: int | None) -> None:
        super().__init__()
        self.network = network
        self.classes = nn.Linear(features, 3) if features else None

    def forward(self, images: Tensor) -> Outputs:
        """Return mask logits, presence logits and strata logits (or None)."""
        masks, presence, features = self.network.forward_with_features(images)  # type: ignore[operator]
        return masks, presence, None if self.classes is None else self.classes(features)


def _check_grid(network: nn.Module, recipe: Recipe) -> None:
    """Refuse a network that has no mask logits on the recipe's grid; one blank image tells."""
    size, planes = recipe.input.size, recipe.input.planes
    wanted, network = (1, len(recipe.data.targets), size, size), network.eval()
    try:
        with torch.inference_mode():
            masks = network.forward_with_features(torch.zeros(1, planes, size, size))[0]  # type: ignore[operator]
        found = f"mask logits {tuple(masks.shape)}"
    except (RuntimeError, ValueError) as error:
        found = str(error)
    network.train()
    if found != f"mask logits {wanted}":
        raise UsageError(f"{recipe.network.kind} at input.size {size}: {found}; wanted mask logits {wanted}")


class Learner:
    """What learns.

    Parameters
    ----------
    total_steps : int
        Of the whole run; the schedule follows it.
    pos_weight : float
        Of the infection's cross-entropy.

    Attributes
    ----------
    start : str
        What the encoder started from.
    """

    def __init__(self, recipe: Recipe, rank: Rank, total_steps: int, pos_weight: float = 1.0) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.rank, self.total_steps, self.steps = recipe, rank, total_steps, 0
        name, arguments = network_arguments(recipe)
        network = build(name, arguments)
        _check_grid(network, recipe)
        self.start = weights.fill(network, recipe)
        if recipe.input.channels == 4:
            weights.start_mask_channel(network.encoder, recipe.network.zero_mask_channel)
        self.plain = Learning(network, _features(network, recipe) if recipe.network.classes else None)
        self.plain.to(rank.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = Loss(recipe.loss, recipe.data.targets, pos_weight)
        _freeze_unused(self.plain, self.loss, recipe, rank)
        self.learning: nn.Module = self.plain
        if rank.shared:
            self.learning = nn.parallel.DistributedDataParallel(self.plain, gradient_as_bucket_view=True)
        self.average = _average(self.plain, recipe.optimiser)
        self.optimiser = _optimiser(self.plain, recipe.optimiser)

    @property
    def best(self) -> Learning:
        """The averaged network where one is kept, else the network."""
        return self.plain if self.average is None else self.average.module  # type: ignore[return-value]

    def step(self, batch: Batch, images: int) -> tuple[float, Tensor]:
        """Take one step; return the loss and the mask logits, detached.

        Parameters
        ----------
        batch : Batch
            This rank's part.
        images : int
            In the global batch: parts of unequal size weigh as many images as they hold.

        Raises
        ------
        FloatingPointError
            When the loss or its gradient is not finite; the weights are then still those of the last step.
        """
        optimiser = self.recipe.optimiser
        torch.manual_seed(hash((self.recipe.seed, self.steps, self.rank.index)) % 2**63)  # dropout, on resume too
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.steps / self.total_steps, optimiser)
        moved = on_device(batch, self.rank)
        with torch.autocast(self.rank.device.split(":")[0], torch.bfloat16, enabled=self.recipe.amp):
            masks, presence, classes = self.learning(moved.images)
        share = len(batch.samples) / images
        loss = self.loss(
            masks.float(), moved.truth, presence.float(), classes, moved.strata, self._with_a_mask(moved.truth, share)
        )
        if self.recipe.loss.consistency:
            loss = loss + self.recipe.loss.consistency * disagreement(masks.float(), presence.float())
        if not bool(torch.isfinite(loss.detach())):
            raise FloatingPointError(f"loss is {loss.item()} at step {self.steps}")
        self.optimiser.zero_grad(set_to_none=True)
        (loss * (share * self.rank.world)).backward()
        norm = nn.utils.clip_grad_norm_(self.plain.parameters(), optimiser.clip or math.inf)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"the gradient's norm is {norm.item()} at step {self.steps}")
        self.optimiser.step()
        self.steps += 1
        if self.average is not None and self.steps % optimiser.average_every == 0:
            self.average.update_parameters(self.plain)
        return loss.item(), masks.detach()

    def _with_a_mask(self, truth: Tensor, share: float) -> Tensor | None:
        """Count images with each mask over all ranks, and return this rank's share of them; None for one rank alone.

        The mean over images with a mask is then that of the global batch, however unevenly they fell on the ranks.
        """
        if self.rank.world == 1:
            return None
        present = (truth.flatten(2).amax(dim=2) > 0).sum(dim=0).float()
        dist.all_reduce(present)
        return present * share

    def state(self) -> State:
        """Return all that `load` needs."""
        return {
            "steps": self.steps,
            "network": self.plain.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load(self, state: State) -> None:
        """Go on where `state` was taken."""
        self.steps = state["steps"]
        self.plain.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])


def on_device(batch: Batch, rank: Rank) -> Batch:
    """Move a batch to the rank's device, images channels-last."""
    if rank.device == "cpu":
        return batch._replace(images=batch.images.contiguous(memory_format=torch.channels_last))
    images = batch.images.to(rank.device, non_blocking=True, memory_format=torch.channels_last)
    return Batch(images, *(part.to(rank.device, non_blocking=True) for part in batch[1:]))


def learning_rate(share: float, config: OptimiserConfig) -> float:
    """Return the rate at a share of all steps: linear warm-up, then constant or a cosine to zero."""
    if share < config.warm_up:
        return config.lr * max(share / config.warm_up, 0.01)
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (share - config.warm_up) / (1 - config.warm_up))))


def _features(network: nn.Module, recipe: Recipe) -> int:
    network.eval()
    with torch.no_grad():
        return int(network.forward_with_features(torch.zeros(1, recipe.input.planes, 64, 64))[2].shape[1])  # type: ignore[operator]


def _freeze_unused(learning: Learning, loss: Loss, recipe: Recipe, rank: Rank) -> None:
    """Freeze parameters that no gradient reaches: plain DDP would wait for them on its second step."""
    before = {name: value.clone() for name, value in learning.state_dict().items()}
    images = torch.randn(2, recipe.input.planes, 64, 64, generator=torch.Generator().manual_seed(0)).to(rank.device)
    learning.train()
    masks, presence, classes = learning(images)
    strata = torch.zeros(2, dtype=torch.int64, device=rank.device)
    loss(masks, torch.ones_like(masks), presence, classes, strata).backward()
    for value in learning.parameters():
        value.requires_grad_(value.grad is not None)
        value.grad = None
    learning.load_state_dict(before)  # the forward pass moved the batch norms


def _average(learning: Learning, config: OptimiserConfig) -> torch.optim.swa_utils.AveragedModel | None:
    if not config.average:
        return None
    return torch.optim.swa_utils.AveragedModel(
        learning, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average), use_buffers=True
    )


def _optimiser(learning: Learning, config: OptimiserConfig) -> torch.optim.Optimizer:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    values = [value for value in learning.parameters() if value.requires_grad]
    return kinds[config.name](values, lr=config.lr, weight_decay=config.weight_decay, fused=True)
