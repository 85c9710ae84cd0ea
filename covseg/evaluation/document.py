"""``metrics.json`` and ``cases.parquet`` of one evaluation, and how they are read back.

In: judged images, the model and the set. Out: plain JSON values that name every convention, and the
columns of each image.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from covseg.data import LabelledSet
from covseg.data.published import LIMITS
from covseg.errors import UsageError
from covseg.evaluation.cost import Cost
from covseg.evaluation.run import Lung, SetResults
from covseg.metrics.convention import Empty, ratios
from covseg.metrics.image_level import calibration_error
from covseg.metrics.image_results import BORDER, SMALL_LESION, ImageResults
from covseg.metrics.intervals import DRAWS, LEVEL, Estimate
from covseg.metrics.measures import Name
from covseg.metrics.published import impossible_pair
from covseg.metrics.summary import Line, headline, lesion_counts, refusal_counts, status_counts, summarise
from covseg.metrics.surface import TOLERANCE
from covseg.records import RESEARCH_ONLY
from covseg.settings.score import ScoringConfig

METRICS, CASES, PAGE = "metrics.json", "cases.parquet", "evaluation.html"
CONVENTIONS = {
    "geometry": "source resolution, thresholded masks, as covseg predict writes them",
    "reduction": "image: mean over images; batch(8): mean over batches of 8 in listing order, pixels pooled in each; "
    "dataset: all pixels pooled",
    "empty": "what 0/0 is worth: one, zero, or skip (left out of the mean)",
    "f1": "harmonic mean of the reduced precision and recall; the mean F1 per image is the mean Dice",
    "refused": "a refused image scores 0 where it would be 0/0, all its truth is missed, and it is wrong at image "
    "level; distances, fractions and AUROC are over scored images",
    "image_level": "sensitivity and specificity of 'the mask is not empty'; AUROC of the image-level probability",
    "negatives": "images whose true infection mask is empty (Non-COVID and Normal): Dice there is a specificity",
    "hd95": "source pixels, over images with both masks filled; misses and false alarms are counted beside it",
    "nsd": f"share of both boundaries within {TOLERANCE:.4f} of the longer side (3 px at 256)",
    "border": f"band of {BORDER:.4f} of the longer side to both sides of the lung's border",
    "small_lesions": f"connected parts of truth under {SMALL_LESION:.1%} of the image",
    "interval": f"{LEVEL:.0%} percentile bootstrap over images inside strata, {DRAWS} draws; no patient ids exist, so "
    "images of one patient count as independent",
}  # fmt: skip

FEW = 20  # images; a percentile bootstrap of fewer is too narrow
_ONE_A_IMAGE = Name("infection", "dice", "image", "one")


@dataclass(frozen=True)
class Identity:
    """What was judged.

    Parameters
    ----------
    config : ScoringConfig
        The model and everything that changes its numbers.
    images : LabelledSet
        The set that was judged.
    lung : str
        ``predicted`` or ``truth``: which lung mask clips the infection and divides the fraction.
    cost : Cost
    """

    config: ScoringConfig
    images: LabelledSet
    lung: Lung
    cost: Cost


def document(evaluated: SetResults, identity: Identity, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Return the content of ``metrics.json``."""
    config, images, results = identity.config, identity.images, evaluated.results
    lines = summarise(results, images.strata, draws, seed)
    return {
        "schema": 1,
        "intended_use": RESEARCH_ONLY,
        "model": {
            "id": config.model_id, "weights_sha256": config.weights_sha256, "config_sha256": config.digest,
            "backend": config.backend, "thresholds": config.model_settings["thresholds"],
            "code_version": config.code_version,
        },
        "data": {
            "set": images.name, "split": images.split, "digest": images.digest, "films": len(images.images),
            "counts": images.counts, "absent_strata": [name for name, count in images.counts.items() if not count],
            "excluded": [asdict(one) for one in evaluated.excluded],
            "excluded_counts": dict(Counter(one.reason for one in evaluated.excluded)),
            "refused": refusal_counts(results),
        },
        "lung_mask": identity.lung,
        "conventions": CONVENTIONS,
        "limits": list(LIMITS),
        "headline": {name: asdict_clean(value) for name, value in headline(lines).items()},
        "lines": [line.to_json() for line in lines],
        "surface_status": status_counts(results, images.strata),
        "lesions": lesion_counts(results),
        "reliability": {"expected_calibration_error": _calibration(results)},
        "warnings": warnings_of(lines, evaluated),
        "cost": {**asdict(identity.cost), "films_per_second": _rate(evaluated), "backend": config.backend},
    }  # fmt: skip


def asdict_clean(value: Estimate) -> dict[str, float | int | None]:
    """Return an estimate as JSON; NaN is null."""
    return {name: None if number != number else number for name, number in asdict(value).items()}


def _calibration(results: ImageResults) -> float | None:
    presence = results.column("presence")
    known = ~np.isnan(presence)
    return round(calibration_error(presence[known], results.positive[known]), 6) if known.any() else None


def _rate(evaluated: SetResults) -> float | None:
    seconds = evaluated.seconds - evaluated.metric_seconds
    return round(len(evaluated.results) / seconds, 2) if seconds > 0 and len(evaluated.results) else None


def warnings_of(lines: list[Line], evaluated: SetResults) -> list[str]:
    """Return what a reader must know before quoting a number."""
    found = []
    by_key = {(line.stratum, line.name): line.estimate for line in lines}
    for (stratum, name), estimate in by_key.items():
        if name.metric == "dice":
            iou = by_key[stratum, Name(name.part, "iou", name.reduction, name.empty)]
            warning = impossible_pair(estimate.value, iou.value)
            found += [f"{stratum}, {name.reduction}, {name.empty}: {warning}"] if warning else []
    refused = int(evaluated.results.refused.sum())
    if refused:
        found.append(f"{refused} images were refused by the pipeline and count as failures")
    if evaluated.excluded:
        found.append(
            f"{len(evaluated.excluded)} images were left out because their truth cannot be believed; they are listed"
        )
    counts = {stratum: by_key[stratum, _ONE_A_IMAGE].n for stratum, name in by_key if name == _ONE_A_IMAGE}
    if small := [stratum for stratum, count in counts.items() if count < FEW]:
        found.append(f"fewer than {FEW} images in {', '.join(small)}: intervals are rough")
    return found


def results_table(results: ImageResults) -> pa.Table:
    """Return the columns of ``cases.parquet``: the numbers of each image, and its ratios (null where 0/0)."""
    table = results.to_arrow()
    values = ratios(results.counts(), Empty.SKIP, results.refused)
    for number, name in enumerate(("dice", "iou", "precision", "recall", "specificity", "accuracy")):
        table = table.append_column(name, pa.array(values[:, number], from_pandas=True))
    return table


def write(folder: Path, content: dict[str, Any], results: ImageResults, page: bytes) -> None:
    """Write the three files."""
    from covseg.storage import LocalStore

    sink = io.BytesIO()
    pq.write_table(results_table(results), sink, compression="zstd")
    store = LocalStore(folder)
    store.write(CASES, sink.getvalue())
    store.write(PAGE, page)
    store.write(METRICS, json.dumps(content, indent=1, allow_nan=False).encode())


def read_back(folder: Path) -> tuple[dict[str, Any], ImageResults]:
    """Read an evaluation that `write` left.

    Raises
    ------
    UsageError
        When the folder holds none.
    """
    for name in (METRICS, CASES):
        if not (folder / name).is_file():
            raise UsageError(
                f"no {name} in {folder}: wanted a folder that covseg evaluate MODEL --data ROOT -o {folder} has written"
            )
    content: dict[str, Any] = json.loads((folder / METRICS).read_bytes())
    return content, ImageResults.from_arrow(pq.read_table(folder / CASES))
