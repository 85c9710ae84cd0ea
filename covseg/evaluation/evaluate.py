"""Judge one model on one split and leave ``metrics.json``, ``cases.parquet`` and a page.

The command and the flow call the same entry, `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covseg.data import open_set
from covseg.errors import SetRefused
from covseg.evaluation import ledger
from covseg.evaluation.cost import cost_of
from covseg.evaluation.document import Identity, document, write
from covseg.evaluation.page import render
from covseg.evaluation.run import Lung, judge_set, with_lung
from covseg.models.folder import open_folder
from covseg.predict import Corridor, resolve
from covseg.segment import open_backend


@dataclass(frozen=True)
class Request:
    """What to judge.

    Parameters
    ----------
    model : str
        Anything that `covseg.models.folder.open_folder` takes.
    data : Path
        Root of a labelled set.
    split : str
    output : Path
        Folder for the three files.
    strata : tuple of str
        Only these; all when empty.
    limit : int or None
        About so many films, spread over the strata.
    lung : str
        ``predicted`` or ``truth``.
    backend : str
    batch : int
        Films a forward pass.
    streams : int
        Batches side by side.
    draws : int
        Of the bootstrap.
    """

    model: str
    data: Path
    split: str
    output: Path
    strata: tuple[str, ...] = ()
    limit: int | None = None
    lung: Lung = "predicted"
    backend: str = "onnx"
    batch: int = 4
    streams: int = 1
    draws: int = 2000


def evaluate(request: Request, progress: Callable[[int, int], None] = lambda *_: None) -> dict[str, Any]:
    """Judge, write, and return the content of ``metrics.json``.

    Parameters
    ----------
    request : Request
    progress : callable
        Called with films done and films in all.

    Raises
    ------
    UsageError
        When the split or a stratum does not exist, no film can be judged, or a use of the Test split
        cannot be recorded.
    """
    films = open_set(request.data, request.split).select(request.strata, request.limit)
    folder = open_folder(request.model)
    if ledger.is_test(films.split):
        ledger.check_writable(folder.path, folder.reference)
    backend = open_backend(folder, request.backend)
    corridor = Corridor(folder.card, resolve(folder, backend, request.batch))
    total = len(films.films)
    corridor = with_lung(corridor, films, request.lung)
    judged = judge_set(corridor, backend, films, request.streams, lambda done: progress(done, total))
    if not len(judged.cases):
        first = judged.excluded[0].detail if judged.excluded else "the listing is empty"
        raise SetRefused(f"no film of {request.data} split {films.split} can be judged; first reason: {first}")
    content = document(judged, Identity(corridor.config, films, request.lung, cost_of(folder)), request.draws)
    if ledger.is_test(films.split):
        content["test_use"] = _record(folder.path, content)
    write(request.output, content, judged.cases, render(content, judged.cases, judged.shelves.strips()))
    return content


def _record(model: Path, content: dict[str, Any]) -> int:
    """Write the use into the ledger before anybody sees a number."""
    return ledger.append(
        model,
        {
            "weights_sha256": content["model"]["weights_sha256"], "config_sha256": content["model"]["config_sha256"],
            "digest": content["data"]["digest"], "counts": content["data"]["counts"], "lung_mask": content["lung_mask"],
            "headline": {name: value["value"] for name, value in content["headline"].items()},
        },
    )  # fmt: skip
