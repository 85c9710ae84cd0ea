"""``metrics.json`` and ``cases.parquet`` of one evaluation, and how they are read back.

In: judged films, the model and the set. Out: plain JSON values that name every convention, and the
columns of each film.
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

from covseg.data import FilmSet
from covseg.data.published import LIMITS
from covseg.errors import UsageError
from covseg.evaluation.cost import Cost
from covseg.evaluation.run import Judged, Lung
from covseg.metrics.convention import Empty, ratios
from covseg.metrics.image_level import calibration_error
from covseg.metrics.image_results import BORDER, SMALL_LESION, Cases
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
    "reduction": "image: mean over films; batch(8): mean over batches of 8 in listing order, pixels pooled in each; "
    "dataset: all pixels pooled",
    "empty": "what 0/0 is worth: one, zero, or skip (left out of the mean)",
    "f1": "harmonic mean of the reduced precision and recall; the mean F1 per film is the mean Dice",
    "refused": "a refused film scores 0 where it would be 0/0, all its truth is missed, and it is wrong at image "
    "level; distances, fractions and AUROC are over scored films",
    "image_level": "sensitivity and specificity of 'the mask is not empty'; AUROC of the image-level probability",
    "negatives": "films whose true infection mask is empty (Non-COVID and Normal): Dice there is a specificity",
    "hd95": "source pixels, over films with both masks filled; misses and false alarms are counted beside it",
    "nsd": f"share of both boundaries within {TOLERANCE:.4f} of the longer side (3 px at 256)",
    "border": f"band of {BORDER:.4f} of the longer side to both sides of the lung's border",
    "small_lesions": f"connected parts of truth under {SMALL_LESION:.1%} of the film",
    "interval": f"{LEVEL:.0%} percentile bootstrap over films inside strata, {DRAWS} draws; no patient ids exist, so "
    "films of one patient count as independent",
}  # fmt: skip

FEW = 20  # films; a percentile bootstrap of fewer is too narrow
_ONE_A_FILM = Name("infection", "dice", "image", "one")


@dataclass(frozen=True)
class Identity:
    """What was judged.

    Parameters
    ----------
    config : ScoringConfig
        The model and everything that changes its numbers.
    films : FilmSet
        The set that was judged.
    lung : str
        ``predicted`` or ``truth``: which lung mask clips the infection and divides the fraction.
    cost : Cost
    """

    config: ScoringConfig
    films: FilmSet
    lung: Lung
    cost: Cost


def document(judged: Judged, identity: Identity, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Return the content of ``metrics.json``."""
    config, films, cases = identity.config, identity.films, judged.cases
    lines = summarise(cases, films.strata, draws, seed)
    return {
        "schema": 1,
        "intended_use": RESEARCH_ONLY,
        "model": {
            "id": config.model_id, "weights_sha256": config.weights_sha256, "config_sha256": config.digest,
            "backend": config.backend, "thresholds": config.card["thresholds"], "code_version": config.code_version,
        },
        "data": {
            "set": films.name, "split": films.split, "digest": films.digest, "films": len(films.films),
            "counts": films.counts, "absent_strata": [name for name, count in films.counts.items() if not count],
            "excluded": [asdict(one) for one in judged.excluded],
            "excluded_counts": dict(Counter(one.reason for one in judged.excluded)),
            "refused": refusal_counts(cases),
        },
        "lung_mask": identity.lung,
        "conventions": CONVENTIONS,
        "limits": list(LIMITS),
        "headline": {name: asdict_clean(value) for name, value in headline(lines).items()},
        "lines": [line.to_json() for line in lines],
        "surface_status": status_counts(cases, films.strata),
        "lesions": lesion_counts(cases),
        "reliability": {"expected_calibration_error": _calibration(cases)},
        "warnings": warnings_of(lines, judged),
        "cost": {**asdict(identity.cost), "films_per_second": _rate(judged), "backend": config.backend},
    }  # fmt: skip


def asdict_clean(value: Estimate) -> dict[str, float | int | None]:
    """Return an estimate as JSON; NaN is null."""
    return {name: None if number != number else number for name, number in asdict(value).items()}


def _calibration(cases: Cases) -> float | None:
    presence = cases.column("presence")
    known = ~np.isnan(presence)
    return round(calibration_error(presence[known], cases.positive[known]), 6) if known.any() else None


def _rate(judged: Judged) -> float | None:
    seconds = judged.seconds - judged.judge_seconds
    return round(len(judged.cases) / seconds, 2) if seconds > 0 and len(judged.cases) else None


def warnings_of(lines: list[Line], judged: Judged) -> list[str]:
    """Return what a reader must know before quoting a number."""
    found = []
    by_key = {(line.stratum, line.name): line.estimate for line in lines}
    for (stratum, name), estimate in by_key.items():
        if name.metric == "dice":
            iou = by_key[stratum, Name(name.part, "iou", name.reduction, name.empty)]
            warning = impossible_pair(estimate.value, iou.value)
            found += [f"{stratum}, {name.reduction}, {name.empty}: {warning}"] if warning else []
    refused = int(judged.cases.refused.sum())
    if refused:
        found.append(f"{refused} films were refused by the corridor and count as failures")
    if judged.excluded:
        found.append(
            f"{len(judged.excluded)} films were left out because their truth cannot be believed; they are listed"
        )
    counts = {stratum: by_key[stratum, _ONE_A_FILM].n for stratum, name in by_key if name == _ONE_A_FILM}
    if small := [stratum for stratum, count in counts.items() if count < FEW]:
        found.append(f"fewer than {FEW} films in {', '.join(small)}: intervals are rough")
    return found


def cases_table(cases: Cases) -> pa.Table:
    """Return the columns of ``cases.parquet``: the numbers of each film, and its ratios (null where 0/0)."""
    table = cases.to_arrow()
    values = ratios(cases.counts(), Empty.SKIP, cases.refused)
    for number, name in enumerate(("dice", "iou", "precision", "recall", "specificity", "accuracy")):
        table = table.append_column(name, pa.array(values[:, number], from_pandas=True))
    return table


def write(folder: Path, content: dict[str, Any], cases: Cases, page: bytes) -> None:
    """Write the three files."""
    from covseg.storage import LocalStore

    sink = io.BytesIO()
    pq.write_table(cases_table(cases), sink, compression="zstd")
    store = LocalStore(folder)
    store.write(CASES, sink.getvalue())
    store.write(PAGE, page)
    store.write(METRICS, json.dumps(content, indent=1, allow_nan=False).encode())


def read_back(folder: Path) -> tuple[dict[str, Any], Cases]:
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
    return content, Cases.from_arrow(pq.read_table(folder / CASES))
