"""Prove the precisions of a model: what each loses against float32 on Val, as it is and shifted.

In: a model folder and a labelled set. Out: `Proof` records in its ``precisions.json``, and for int8 the model that
`covseg.release.quantise` makes. The reference is ONNX Runtime in float32; masks are those of
the whole pipeline at source size, and what it refuses has none. Val is the split of model selection;
Test is never read. Run: ``covseg models prove FOLDER --data ROOT``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covseg.data import LabelledImage, LabelledSet, open_set
from covseg.errors import EnvironmentFailed, SetRefused, UsageError
from covseg.evaluation.conditions import Condition, like, mask_dice, of_shift, plain, read_with_truth
from covseg.metrics.intervals import paired, weighted_mean
from covseg.model_folder.backends import OnnxBackend
from covseg.model_folder.folder import ModelFolder
from covseg.model_folder.precision import INT8, Agreement, Loss, Precision, Proof, write_proofs
from covseg.outcome import Scored
from covseg.pipeline import Pipeline, resolve
from covseg.records import Mask, Truth
from covseg.registry import open_model
from covseg.release.quantise import quantise
from covseg.stages.segment import Backend
from covseg.synthetic.shifts import chosen

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
SHIFTS, SHIFTED_EVERY = ("jpeg75", "gamma0.7", "noise0.03"), 3  # of every third image

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Line:
    """One image under one condition, by runtime, the reference first: Dice with truth, empty, Dice with the reference.

    `dice` and `clear` are NaN where there is no true infection, and where there is one.
    """

    condition: str
    stratum: str
    dice: tuple[float, ...]
    clear: tuple[float, ...]
    likeness: tuple[float, ...]
    refused: tuple[bool, ...]


def prove(
    path: str | Path,
    root: Path,
    precisions: Sequence[Precision] = PRECISIONS,
    limit: int | None = None,
    streams: int = 1,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[Proof, ...]:
    """Measure precisions on Val and write their proofs into the model folder; int8 is calibrated anew.

    Parameters
    ----------
    path : str or Path
        ``default``, ``benchmark`` or a model folder.
    root : Path
        Holds ``Val``, and ``Train`` for int8.
    precisions : sequence of str
        Of `PRECISIONS`.
    limit : int or None
        About so many images, spread over the strata.

    Raises
    ------
    UsageError
        When OpenVINO, or NNCF for int8, is not installed; when the model is a cached copy.
    EnvironmentFailed
        When this processor cannot run a precision.
    """
    folder = open_model(path)
    if folder.reference:
        raise UsageError(f"{folder.reference} is a copy in a cache: covseg models pull it -o DIR, then prove DIR")
    dataset = open_set(root, "Val").select((), limit)
    _check_runtime(precisions)
    from covseg.model_folder.openvino_backend import OpenVinoBackend

    digest = quantise(folder, root, limit) if "int8" in precisions else None
    backends: list[Backend] = [OnnxBackend(folder)]
    backends += [OpenVinoBackend(folder, precision, proved=False) for precision in precisions]
    conditions = [plain(), *(of_shift(name, shift) for name, shift in chosen(SHIFTS).items())]
    lines = _walk(folder, backends, dataset, conditions, streams, progress)
    if not lines:
        raise SetRefused(f"no image of {root} split Val can be judged: run covseg predict to see why")
    proofs = tuple(
        _proof(folder, precision, place, lines, f"{dataset.name} Val", digest)
        for place, precision in enumerate(precisions, 1)
    )
    write_proofs(folder.path, proofs)
    if any(proof.precision == "int8" and not proof.passed for proof in proofs):
        (folder.path / INT8).unlink()
    return proofs


def _check_runtime(precisions: Sequence[Precision]) -> None:
    try:
        from covseg.model_folder.openvino_backend import runs_here

        if "int8" in precisions and find_spec("nncf") is None:
            raise ModuleNotFoundError(name="nncf")
    except ImportError as error:
        raise UsageError(f"models prove wants {error.name}: pip install 'covseg[openvino,quantise]'") from error
    if missing := [precision for precision in precisions if not runs_here(precision)]:
        raise EnvironmentFailed(f"this processor has no instructions for {', '.join(missing)}: leave them out")


def _walk(
    folder: ModelFolder,
    backends: list[Backend],
    dataset: LabelledSet,
    conditions: list[Condition],
    streams: int,
    progress: Callable[[int, int], None],
) -> list[_Line]:
    pipelines = [Pipeline(folder.config, resolve(folder, backend, len(conditions)), key=b"") for backend in backends]
    walked = list(zip(pipelines, backends, strict=True))
    lines: list[_Line] = []
    with ThreadPoolExecutor(streams, thread_name_prefix="stream") as pool:
        jobs = [conditions[: None if place % SHIFTED_EVERY == 0 else 1] for place in range(len(dataset.images))]
        parts = pool.map(partial(_lines, walked, dataset), dataset.images, jobs)
        for done, part in enumerate(parts, 1):
            lines += part
            progress(done, len(dataset.images))
    return lines


def _lines(
    walked: list[tuple[Pipeline, Backend]], dataset: LabelledSet, image: LabelledImage, conditions: list[Condition]
) -> list[_Line]:
    if (found := read_with_truth(dataset, image)) is None:
        return []
    entry, radiograph, truth = found
    source = radiograph.pixels
    made = [(one, one.make(image, source, truth)) for one in conditions]
    present = [(one, replace(radiograph, samples=pixels)) for one, pixels in made if pixels is not None]
    prepared = [walked[0][0].prepare(entry, changed) for _, changed in present]
    answers = [pipeline.score(backend, prepared) for pipeline, backend in walked]
    return [
        _line(one, image.stratum, truth, [answer[row] for answer in answers]) for row, (one, _) in enumerate(present)
    ]


def _line(condition: Condition, stratum: str, truth: Truth, results: Sequence[object]) -> _Line:
    real = condition.mask(truth.infection) if condition.mask else truth.infection
    masks = [result.masks.infection if isinstance(result, Scored) else None for result in results]
    infected = bool(real.any())
    dice = [_dice(mask, real) if infected else np.nan for mask in masks]
    clear = [np.nan if infected else float(mask is not None and not mask.any()) for mask in masks]
    likeness = [np.nan if mask is None or masks[0] is None else _dice(mask, masks[0]) for mask in masks]
    refused = tuple(mask is None for mask in masks)
    return _Line(condition.name, stratum, tuple(dice), tuple(clear), tuple(likeness), refused)


def _dice(mask: Mask | None, real: Mask) -> float:
    """Return Dice at the size of `real`; 1 where both are empty, 0 without a mask."""
    return 0.0 if mask is None else mask_dice(like(mask, real), real)


def _proof(
    folder: ModelFolder, precision: Precision, place: int, lines: list[_Line], data: str, digest: str | None
) -> Proof:
    from covseg.model_folder.openvino_backend import version
    from covseg.model_folder.openvino_graph import EDITS

    config = folder.config
    names = dict.fromkeys(line.condition for line in lines)
    agreements = tuple(_agreement([line for line in lines if line.condition == name], place) for name in names)
    return Proof(
        precision=precision,
        runtime=f"openvino {version()}",
        edits=EDITS,
        weights_sha256=config.weights_sha256,
        graph_sha256=str(config.graph_sha256),
        thresholds=config.thresholds,
        file_sha256=digest if precision == "int8" else None,
        data=f"{data}, {agreements[0].n} images",
        agreements=agreements,
    )


def _agreement(lines: list[_Line], place: int) -> Agreement:
    dice, clear, likeness = (
        np.array([getattr(line, name) for line in lines], np.float64)[:, [0, place]]
        for name in ("dice", "clear", "likeness")
    )
    strata = np.unique([line.stratum for line in lines], return_inverse=True)[1].astype(np.int64)
    return Agreement(
        condition=lines[0].condition,
        n=len(lines),
        n_infected=int((~np.isnan(dice[:, 0])).sum()),
        n_clear=int((~np.isnan(clear[:, 0])).sum()),
        mask_dice=float(np.nanmean(likeness[:, 1])),
        mask_dice_least=float(np.nanmin(likeness[:, 1])),
        refused_otherwise=sum(line.refused[0] != line.refused[place] for line in lines),
        dice=_loss(dice, strata),
        specificity=_loss(clear, strata),
    )


def _loss(values: Floats, strata: NDArray[np.int64]) -> Loss:
    """Compare the columns of values ``(N, 2)``, the reference first; images without a value are left out."""
    kept = ~np.isnan(values).any(axis=1)
    if not kept.any():
        return Loss(reference=1, value=1, difference=0, low=0, high=0)
    reference, value = (weighted_mean(values[kept][:, [column]]) for column in (0, 1))
    [difference] = paired(value, reference, strata[kept])
    means = values[kept].mean(axis=0)
    return Loss(
        reference=float(means[0]), value=float(means[1]),
        difference=difference.value, low=difference.low, high=difference.high,
    )  # fmt: skip
