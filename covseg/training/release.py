"""A training run to a model folder: weights, and a ``covseg.json`` that says where they come from.

Run: ``python -m covseg.training.release RUN FOLDER --id NAME --size 192``. The gate
(`covseg.training.gate`), the thresholds (``covseg calibrate``) and the metrics (``covseg evaluate``)
are written into the same file by their own commands, in this order.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from covseg.models.folder import CARD, WEIGHTS, ModelCard

LICENCE = (
    "Weights: research use only, under the terms of their training data (COVID-QU-Ex, reported as CC BY-SA 4.0, "
    "not verified at the source). Code: Apache-2.0."
)
CITATION = (
    "Tahir et al. 2021, COVID-19 infection localization and severity grading from chest X-ray images, "
    "doi 10.1016/j.compbiomed.2021.105002; Degerli et al. 2021, doi 10.1007/s13755-021-00146-8"
)


def release(runs: list[Path], folder: Path, model_id: str, size: int) -> ModelCard:
    """Write a model folder from the last of a chain of runs, the earlier ones recorded as its history.

    Parameters
    ----------
    runs : list of Path
        Run folders in the order they were trained; each holds ``run.json`` and ``metrics.csv``.
    folder : Path
        Made or overwritten.
    size : int
        Side of the model grid in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(runs[-1] / WEIGHTS, folder / WEIGHTS)
    card = ModelCard(
        id=model_id,
        network="compact",
        size=size,
        weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        training={
            "data": "COVID-QU-Ex infection part, official Train split, 3,728 films",
            "runs": list(map(_facts, runs)),
        },
        licence=LICENCE,
        citation=CITATION,
    )
    (folder / CARD).write_text(card.model_dump_json(indent=1) + "\n")
    return card


def _facts(run: Path) -> dict[str, Any]:
    with (run / "metrics.csv").open() as file:
        epochs = [row for row in csv.reader(file) if row]
    facts: dict[str, Any] = json.loads((run / "run.json").read_text())
    return {name: value for name, value in facts.items() if name != "init"} | {"epochs": len(epochs)}


def main() -> None:
    """Read the flags and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--id", required=True)
    parser.add_argument("--size", type=int, required=True)
    flags = parser.parse_args()
    release(flags.runs, flags.folder, flags.id, flags.size)


if __name__ == "__main__":
    main()
