"""``metrics.json`` and ``cases.parquet`` of one evaluation, and how they are read back.

In: scored images, the model and the set. Out: an `Evaluation` that names every convention, and the
columns of each image.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from covseg.data import LabelledSet
from covseg.data.published import limits_of
from covseg.errors import UsageError
from covseg.evaluation.doubt import doubt_line
from covseg.evaluation.records import Cost, DataFacts, DoubtLine, Evaluation, Measured, MetricLine, ModelFacts
from covseg.evaluation.run import Lung, SetResults
from covseg.metrics.convention import RATIOS, Empty, ratios
from covseg.metrics.image_level import calibration_error
from covseg.metrics.image_results import BORDER, SMALL_LESION, ImageResults
from covseg.metrics.intervals import DRAWS, LEVEL, Estimate
from covseg.metrics.mask_metrics import MASK_METRICS
from covseg.metrics.measures import Name
from covseg.metrics.published import impossible_pair
from covseg.metrics.summary import Line, headline, lesion_counts, refusal_counts, status_counts, summarise
from covseg.records import RESEARCH_ONLY
from covseg.settings.faults import first_fault
from covseg.settings.score import ScoringConfig
from covseg.storage import LocalStore
from covseg.table import to_parquet

METRICS, CASES, PAGE = "metrics.json", "cases.parquet", "evaluation.html"
CONDITIONS = "conditions.parquet"  # of each image under each shift, and of its twins; where they were asked for
CONVENTIONS = {
    "geometry": "source resolution, thresholded masks, as covseg predict writes them",
    "reduction": "image: mean over images; batch(8): mean over batches of 8 in listing order, pixels pooled in each; "
    "dataset: all pixels pooled",
    "empty": "what 0/0 is worth: one, zero, or skip (left out of the mean)",
    "f1": "harmonic mean of the reduced precision and recall; the mean F1 per image is the mean Dice",
    "refused": "a refused image scores 0 where it would be 0/0, all its truth is missed, and it is wrong at image "
    "level; distances, fractions and AUROC are over scored images",
    "image_level": "sensitivity and specificity of 'the mask is not empty'; AUROC of the image-level probability",
    "negatives": "images whose true infection mask is empty (Non-COVID and Normal of COVID-QU-Ex): Dice there is a "
    "specificity",
    "border": f"band of {BORDER:.4f} of the longer side to both sides of the lung's border",
    "small_lesions": f"connected parts of truth under {SMALL_LESION:.1%} of the image",
    "interval": f"{LEVEL:.0%} percentile bootstrap over images inside strata, {DRAWS} draws; no patient ids exist, so "
    "images of one patient count as independent",
}  # fmt: skip

FEW = 20  # images; a percentile bootstrap of fewer is too narrow
_ONE_AN_IMAGE = Name("infection", "dice", "image", "one")


@dataclass(frozen=True)
class Identity:
    """What was evaluated.

    Parameters
    ----------
    config : ScoringConfig
        The model and everything that changes its numbers.
    lung : str
        ``predicted`` or ``truth``: which lung mask clips the infection and divides the fraction.
    cost : Cost
        Of the model; the rate of this run is filled in.
    """

    config: ScoringConfig
    dataset: LabelledSet
    lung: Lung
    cost: Cost


def document(evaluated: SetResults, identity: Identity, draws: int = DRAWS, seed: int = 0) -> Evaluation:
    """Return the content of ``metrics.json``."""
    config, dataset, results = identity.config, identity.dataset, evaluated.results
    lines = summarise(results, dataset.strata, draws, seed)
    cost = {"images_per_second": _rate(evaluated), "backend": config.backend}
    return Evaluation(
        intended_use=RESEARCH_ONLY,
        model=model_facts(config),
        data=_data(dataset, evaluated),
        lung_mask=identity.lung,
        conventions=CONVENTIONS | {name: metric.words for name, metric in MASK_METRICS.items()},
        limits=limits_of(dataset.name),
        headline={name: Measured(**vars(estimate)) for name, estimate in headline(lines).items()},
        lines=tuple(map(_line, lines)),
        surface_status=status_counts(results, dataset.strata),
        lesions=lesion_counts(results),
        reliability={"expected_calibration_error": _calibration(results)},
        doubt=_doubt(results, config, draws),
        warnings=tuple(warnings_of(lines, evaluated)),
        cost=identity.cost.model_copy(update=cost),
    )


def model_facts(config: ScoringConfig) -> ModelFacts:
    """Say which model was evaluated."""
    return ModelFacts(
        id=config.model_id, weights_sha256=config.weights_sha256, config_sha256=config.digest, backend=config.backend,
        thresholds=config.model_settings["thresholds"], code_version=config.code_version,
    )  # fmt: skip


def _data(dataset: LabelledSet, evaluated: SetResults) -> DataFacts:
    counts = dataset.counts
    return DataFacts(
        name=dataset.name, split=dataset.split, digest=dataset.digest, images=len(dataset.images), counts=counts,
        absent_strata=tuple(name for name, count in counts.items() if not count), excluded=tuple(evaluated.excluded),
        excluded_counts=Counter(image.reason for image in evaluated.excluded),
        refused=refusal_counts(evaluated.results),
    )  # fmt: skip


def _line(line: Line) -> MetricLine:
    """Return a line as it is written: six decimals."""
    estimate = line.estimate
    value, low, high = (round(number, 6) for number in (estimate.value, estimate.low, estimate.high))
    return MetricLine(stratum=line.stratum, **vars(line.name), value=value, low=low, high=high, n=estimate.n)


def _calibration(results: ImageResults) -> float:
    presence = results.column("presence")
    known = ~np.isnan(presence)
    return round(calibration_error(presence[known], results.positive[known]), 6)


def _doubt(results: ImageResults, config: ScoringConfig, draws: int) -> DoubtLine | None:
    threshold = config.model_settings["thresholds"]["presence"]
    return doubt_line("as they are", results.column, results.strata, threshold, draws)


def _rate(evaluated: SetResults) -> float:
    """Return images a second, metrics and pictures apart."""
    seconds = evaluated.seconds - evaluated.metric_seconds
    return round(len(evaluated.results) / seconds, 2) if seconds > 0 and len(evaluated.results) else float("nan")


def warnings_of(lines: list[Line], evaluated: SetResults) -> list[str]:
    """Return what a reader must know before quoting a number."""
    by_key = {(line.stratum, line.name): line.estimate for line in lines}
    warnings = _impossible_pairs(by_key)
    if refused := int(evaluated.results.refused.sum()):
        warnings.append(f"{refused} images were refused by the pipeline and count as failures")
    if evaluated.excluded:
        warnings.append(
            f"{len(evaluated.excluded)} images were left out because their truth cannot be believed; they are listed"
        )
    counts = {stratum: estimate.n for (stratum, name), estimate in by_key.items() if name == _ONE_AN_IMAGE}
    if small := [stratum for stratum, count in counts.items() if count < FEW]:
        warnings.append(f"fewer than {FEW} images in {', '.join(small)}: intervals are rough")
    return warnings


def _impossible_pairs(by_key: dict[tuple[str, Name], Estimate]) -> list[str]:
    warnings = []
    for (stratum, name), dice in by_key.items():
        if name.metric == "dice":
            iou = by_key[stratum, replace(name, metric="iou")]
            warning = impossible_pair(dice.value, iou.value)
            warnings += [f"{stratum}, {name.reduction}, {name.empty}: {warning}"] if warning else []
    return warnings


def results_table(results: ImageResults) -> pa.Table:
    """Return the columns of ``cases.parquet``: the numbers of each image, and its ratios (null where 0/0)."""
    table = results.to_arrow()
    values = ratios(results.counts(), Empty.SKIP, results.refused)
    for number, name in enumerate(RATIOS):
        table = table.append_column(name, pa.array(values[:, number], from_pandas=True))
    return table


def write(
    folder: Path, evaluation: Evaluation, results: ImageResults, page: bytes, answers: pa.Table | None = None
) -> None:
    """Write the three files, and the answers under shifts and of twins where there are any."""
    store = LocalStore(folder)
    (folder / CONDITIONS).unlink(missing_ok=True)
    if answers is not None:
        store.write(CONDITIONS, to_parquet(answers))
    store.write(CASES, to_parquet(results_table(results)))
    store.write(PAGE, page)
    store.write(METRICS, json.dumps(evaluation.model_dump(mode="json"), indent=1, allow_nan=False).encode())


def read_back(folder: Path) -> tuple[Evaluation, ImageResults]:
    """Read an evaluation that `write` left.

    Raises
    ------
    UsageError
        When the folder holds none, or one of another version.
    """
    for name in (METRICS, CASES):
        if not (folder / name).is_file():
            raise UsageError(
                f"no {name} in {folder}: wanted a folder that covseg evaluate MODEL --data ROOT -o {folder} has written"
            )
    return read_metrics(folder), ImageResults.from_arrow(pq.read_table(folder / CASES))


def read_metrics(folder: Path) -> Evaluation:
    """Read ``metrics.json`` alone.

    Raises
    ------
    UsageError
        When it is not one that this version writes.
    """
    try:
        return Evaluation.model_validate_json((folder / METRICS).read_bytes())
    except ValidationError as error:
        raise UsageError(
            f"{folder / METRICS}: {first_fault(error)}; run covseg evaluate MODEL --data ROOT -o {folder} again"
        ) from error
