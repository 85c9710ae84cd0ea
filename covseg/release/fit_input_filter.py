"""Fit the input filter to a model folder: images in, ``gate.safetensors`` and limits out.

Train images, plain, jittered and taken otherwise, stand for frontal chest radiographs;
`covseg.synthetic.negatives` draws what is not one. Limits are quantiles of Val. No real negative takes part.
``metrics.gate`` of the model config says what was measured. Run: ``covseg models fit-filter FOLDER --data ROOT``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from itertools import count as count_from
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import save
from torch.nn import functional

from covseg.evaluation.records import Record
from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import ModelFolder, amend_config
from covseg.registry import open_model
from covseg.settings.model import FILTER_ARRAYS
from covseg.stages import input_filter
from covseg.stages.input_filter import BLOCKS, FRONTAL, Numbers, filter_scores, weigh
from covseg.stages.segment import segment
from covseg.storage import LocalStore
from covseg.synthetic.drawings import Image
from covseg.synthetic.negatives import FAMILIES, Draw, jitter
from covseg.training.acquisition import acquired
from covseg.training.dataset import ImageArrays, load_split
from covseg.training.lungs import fill_lungs, on_grid
from covseg.training.recipe import load_recipe

log = logging.getLogger(__name__)

AXES = {"features": 48, "lung": 24, "film": 48, "shape": 12, "grey": 12}
WEIGHT_DECAY = 1e-3
ACQUIRED_AS = "lungs"  # recipe whose acquisitions a frontal image may have gone through
EDGE_QUANTILE = 0.995  # of Val; where margin and density, each on its own scale, read 1
REFUSE_QUANTILE, FLAG_QUANTILE = 0.997, 0.985  # of Val, to fit and to flag; see infra/decisions/input-filter.md
REFUSE_OF_LARGEST = 1.05  # of the largest score of Val: no frontal radiograph of it is refused
# Real archives hold these; they get `LIKELY_TIMES` as many members to fit.
LIKELY = (input_filter.INVERTED, input_filter.ROTATED)
LIKELY_TIMES = 3
TWINS = (("rotated_90", "rotated_270"), ("rotated_180", "upside_down"))  # one family twice: left out together
Blocks = dict[str, NDArray[np.float32]]
Extract = Callable[[Sequence[Image]], Blocks]
Progress = Callable[[int, int], None]


class FilterReport(Record):
    """Limits of a fitted input filter's score, and the shares of images that it refuses.

    It was fitted to `train_images` frontal chest radiographs; the limits come from `val_images`. `val_refused`,
    `val_flagged` and `val_refused_limit_from_other_half` are shares of Val; the last when limit and share are of
    different halves. `refused_by_family` and `refused_by_family_unseen` are shares of drawn negatives: all families
    fitted, and each left out of the fit.
    """

    refuse_above: float
    flag_above: float
    train_images: int = Field(alias="train_films")
    val_images: int = Field(alias="val_films")
    val_refused: float
    val_flagged: float
    val_refused_limit_from_other_half: float
    refused_by_family: dict[str, float]
    refused_by_family_unseen: dict[str, float]


def feature_extractor(folder: ModelFolder) -> Extract:
    """Return a function from grey images to stacked blocks ``(N, D)``, as scoring would see them."""
    backend = open_backend(folder)

    def batch(images: Sequence[Image]) -> list[Blocks]:
        pixels = on_grid(images, folder.config)
        return [input_filter.describe(*pair) for pair in zip(pixels, segment(backend, pixels), strict=True)]

    def run(images: Sequence[Image]) -> Blocks:
        batches = [images[start : start + 4] for start in range(0, len(images), 4)]
        with ThreadPoolExecutor(2) as pool:
            rows = list(chain.from_iterable(pool.map(batch, batches)))
        return {name: np.stack([row[name] for row in rows]) for name in BLOCKS}

    return run


def draw_family(images: ImageArrays, name: str, draw: Draw, count: int, seed: int) -> list[Image]:
    """Draw `count` members of a family from jittered images; the same seed gives the same images."""
    random = np.random.default_rng([seed, *name.encode()])
    chosen = random.choice(len(images.names), count, replace=count > len(images.names))
    return [draw(jitter(images.images[i], random), images.lungs[i], random) for i in chosen]


def fit_whitening(blocks: Blocks) -> Numbers:
    """Fit centre, deviation and principal axes of every block, and the spread of its distances."""
    numbers: Numbers = {}
    for name in BLOCKS:
        block = blocks[name].astype(np.float64)
        mean, deviation = block.mean(axis=0), block.std(axis=0) + 1e-6
        offset = (block - mean) / deviation
        variance, axes = np.linalg.eigh(offset.T @ offset / len(offset))
        order = np.argsort(-variance)[: AXES[name]]
        fitted = {"mean": mean, "deviation": deviation, "axes": axes[:, order], "variance": variance[order]}
        numbers |= {f"{name}.{part}": np.ascontiguousarray(value, np.float32) for part, value in fitted.items()}
    _, distances = input_filter.project(blocks, numbers)
    numbers |= {"distance.mean": distances.mean(axis=0), "distance.deviation": distances.std(axis=0)}
    return numbers


def fit_head(evidence: dict[str, NDArray[np.float32]], left_out: Sequence[str] = ()) -> Numbers:
    """Fit the linear layer by weighted softmax regression: half the weight on frontal images, families alike.

    Parameters
    ----------
    evidence : dict of str to ndarray, shape (N, K)
        By family; ``frontal`` holds the images.
    left_out : sequence of str
        Families that take no part.
    """
    used = [name for name in evidence if name not in left_out]
    counts = [len(evidence[name]) for name in used]
    share = [0.5 if name == "frontal" else 0.5 / (len(used) - 1) for name in used]
    kinds = [FRONTAL if name == "frontal" else FAMILIES[name][0] for name in used]
    rows = torch.from_numpy(np.concatenate([evidence[name] for name in used]).astype(np.float32))
    truth = torch.from_numpy(np.repeat(kinds, counts))
    weight = torch.from_numpy(np.repeat(np.divide(share, counts), counts).astype(np.float32))
    slope = torch.zeros(rows.shape[1], len(input_filter.KINDS), requires_grad=True)
    bias = torch.zeros(len(input_filter.KINDS), requires_grad=True)
    solver = torch.optim.LBFGS([slope, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        each = functional.cross_entropy(rows @ slope + bias, truth, reduction="none")
        total = (weight * each).sum() + WEIGHT_DECAY * slope.square().sum()
        total.backward()
        return total

    solver.step(loss)
    return {"head.weight": slope.detach().numpy(), "head.bias": bias.detach().numpy()}


def fit_scales(numbers: Numbers, val: Blocks) -> NDArray[np.float32]:
    """Set the scales of margin and density from Val, in place, and return Val's scores."""
    evidence, density = weigh(val, numbers)
    margin = input_filter.margin(evidence @ numbers["head.weight"] + numbers["head.bias"])
    for name, value in (("margin", margin), ("density", density)):
        numbers[f"{name}.scale"] = np.array([np.median(value), np.quantile(value, EDGE_QUANTILE)], np.float32)
    return filter_scores(val, numbers)[0]


def refused_when_unseen(
    numbers: Numbers, evidence: dict[str, NDArray[np.float32]], drawn: dict[str, Blocks], val: Blocks
) -> dict[str, float]:
    """Share of every family that is refused by an input filter whose linear layer never saw it."""
    shares: dict[str, float] = {}
    alone = set(FAMILIES).difference(*TWINS)
    for group in (*TWINS, *((name,) for name in sorted(alone))):
        blind = numbers | fit_head(evidence, group)
        limit = np.quantile(fit_scales(blind, val), REFUSE_QUANTILE)
        shares |= {name: _share(filter_scores(drawn[name], blind)[0] > limit) for name in group}
    return shares


def refused_on_other_half(scores: NDArray[np.float32], rounds: int = 200) -> float:
    """Share of Val refused when the limit comes from one random half and is used on the other."""
    random, shares = np.random.default_rng(0), []
    for _ in range(rounds):
        order = random.permutation(len(scores))
        half, rest = scores[order[::2]], scores[order[1::2]]
        shares.append(float((rest > np.quantile(half, REFUSE_QUANTILE)).mean()))
    return round(float(np.mean(shares)), 4)


def _as_elsewhere(image: Image, seed: int) -> list[Image]:
    """Return a frontal image as other archives may hold it: moved a little, and with that taken or kept otherwise."""
    random = np.random.default_rng([0, seed])
    moved = jitter(image, random)
    path = load_recipe(ACQUIRED_AS).augment.path.model_copy(update={"share": 1.0})
    return [moved, acquired(moved, np.zeros((*moved.shape, 1), np.uint8), path, random)[0]]


def _share(hits: NDArray[np.bool_]) -> float:
    return round(float(hits.mean()), 4)


def fit(
    root: Path, folder: ModelFolder, count: int, members: int, progress: Progress = lambda *_: None
) -> tuple[Numbers, FilterReport]:
    """Fit, calibrate and measure.

    Parameters
    ----------
    root : Path
        Holds ``Train`` and ``Val``; no mask is needed.
    folder : ModelFolder
        The model that the input filter stands behind; it draws the lungs where the set has none.
    count, members : int
        Train images; drawn members of every family, from Train to fit (`LIKELY_TIMES` as many of the likely ones)
        and half as many from Val to measure.
    progress : callable
        Hears families drawn and families in all.

    Returns
    -------
    numbers, report
        The arrays, and the limits with the shares refused.
    """
    torch.set_num_threads(1)  # the fits are too small for two
    extract = feature_extractor(folder)
    train, val = (
        fill_lungs(load_split(root, split, limit, targets=()), folder)
        for split, limit in (("Train", count), ("Val", None))
    )
    frontal = extract([*train.images, *chain.from_iterable(map(_as_elsewhere, train.images, count_from(0)))])
    val_blocks = extract(list(val.images))
    numbers = fit_whitening(frontal)
    drawn, fresh = {}, {}
    for done, (name, (kind, draw)) in enumerate(FAMILIES.items(), 1):
        wanted = members * LIKELY_TIMES if kind in LIKELY else members
        drawn[name] = extract(draw_family(train, name, draw, wanted, seed=1))
        fresh[name] = extract(draw_family(val, name, draw, members // 2, seed=2))
        log.info("%s drawn", name)
        progress(done, len(FAMILIES))
    evidence = {name: weigh(blocks, numbers)[0] for name, blocks in ({"frontal": frontal} | drawn).items()}
    numbers |= fit_head(evidence)
    scores = fit_scales(numbers, val_blocks)
    refuse, flag = REFUSE_OF_LARGEST * float(scores.max()), float(np.quantile(scores, FLAG_QUANTILE))
    return numbers, FilterReport(
        refuse_above=round(refuse, 4),
        flag_above=round(flag, 4),
        train_images=len(train.images),
        val_images=len(scores),
        val_refused=_share(scores > refuse),
        val_flagged=_share((scores > flag) & (scores <= refuse)),
        val_refused_limit_from_other_half=refused_on_other_half(scores),
        refused_by_family={name: _share(filter_scores(blocks, numbers)[0] > refuse) for name, blocks in fresh.items()},
        refused_by_family_unseen=refused_when_unseen(numbers, evidence, drawn, val_blocks),
    )


def write_filter(path: Path, numbers: Numbers, report: FilterReport) -> None:
    """Write the arrays and, in the model config, ``gate`` and ``metrics.gate``."""
    data = save({name: np.ascontiguousarray(value, np.float32) for name, value in numbers.items()})
    digest, limits = hashlib.sha256(data).hexdigest(), {"refuse_above", "flag_above"}

    def change(config: dict[str, Any]) -> None:
        config["gate"] = {
            "arrays_sha256": digest, "weights_sha256": config["weights_sha256"], **report.model_dump(include=limits),
        }  # fmt: skip
        config.setdefault("metrics", {})["gate"] = report.model_dump(exclude=limits)

    LocalStore(path).write(FILTER_ARRAYS, data)
    amend_config(path, change)


def fit_input_filter(
    path: Path, root: Path, count: int = 900, members: int = 60, progress: Progress = lambda *_: None
) -> FilterReport:
    """Fit an input filter to a model folder, in place of the one it may have; return its limits and what was measured.

    Raises
    ------
    UsageError
        When `root` has no Train or Val.
    """
    numbers, report = fit(root, open_model(path, input_filter=False), count, members, progress)
    write_filter(path, numbers, report)
    return report
