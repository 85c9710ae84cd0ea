"""What a search leaves on disk: ``search.json``, locks, and a folder for each trial; the evidence of everything else.

``trials/0007/`` is an ordinary run folder (`covseg.training.run_folder`) with ``trial.json`` and ``recipe.toml`` beside
it; ``covseg train trials/0007/recipe.toml`` trains the same. The index of Optuna is made of these alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from covseg.errors import UsageError
from covseg.settings.faults import first_fault
from covseg.training.recipe import Recipe, load_recipe
from covseg.training.run_folder import differences, read_rows, replace
from workers.search.parameters import Point
from workers.search.plan import as_toml

SEARCH, TRIALS, TRIAL, RECIPE = "search.json", "trials", "trial.json", "recipe.toml"
WHOLE = 1000  # steps of a trial's whole budget: what is reported is a share of it
State = Literal["running", "complete", "pruned", "failed"]


class TrialRecord(BaseModel):
    """A trial as it stands: the content of ``trial.json``.

    Attributes
    ----------
    point
        What was drawn, by name.
    value
        Of the objective: the best epoch's; None before the first.
    reason
        Why it failed.
    crashes
        How often its process was lost; the second time it fails.
    epochs, gflop
        Of its whole budget; of a forward pass on one image.
    seconds
        That it ran, without those of a driver that was killed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=0)
    state: State
    point: Point
    value: float | None = None
    reason: str = ""
    crashes: int = 0
    epochs: int
    gflop: float
    seconds: float = 0.0


def trial_folder(out: Path, number: int) -> Path:
    """Return a trial's folder."""
    return out / TRIALS / f"{number:04d}"


def write_trial(out: Path, record: TrialRecord, recipe: Recipe | None = None) -> None:
    """Replace a trial's record; with `recipe`, begin its folder."""
    folder = trial_folder(out, record.number)
    if recipe is not None:
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / RECIPE, lambda staged: staged.write_text(as_toml(recipe)))
    replace(folder / TRIAL, lambda staged: staged.write_text(record.model_dump_json(indent=1)))


def read_trials(out: Path) -> list[TrialRecord]:
    """Return all trials by number; a folder without a record was never begun.

    Raises
    ------
    UsageError
        When a record cannot be read.
    """
    numbers = sorted(int(path.parent.name) for path in (out / TRIALS).glob(f"[0-9]*/{TRIAL}"))
    return [record for number in numbers if (record := record_of(out, number))]


def record_of(out: Path, number: int) -> TrialRecord | None:
    """Return the record of a trial; None where it was never begun.

    Raises
    ------
    UsageError
        When it cannot be read.
    """
    path = trial_folder(out, number) / TRIAL
    try:
        return TrialRecord.model_validate_json(path.read_text()) if path.exists() else None
    except ValidationError as error:
        raise UsageError(f"{path}: {first_fault(error)}; wanted the record of a trial: mend or remove it") from error


def trial_recipe(out: Path, number: int) -> Recipe:
    """Return a trial's recipe."""
    return load_recipe(trial_folder(out, number) / RECIPE)


def progress_of(out: Path, record: TrialRecord, metric: str) -> dict[int, float]:
    """Return the best value so far at each share of the whole budget (`WHOLE` is all of it), an epoch each."""
    best, found = float("-inf"), {}
    for row in read_rows(trial_folder(out, record.number)):
        best = max(best, row[metric])
        found[max(1, round(WHOLE * row["epoch"] / record.epochs))] = best
    return found


def open_search(out: Path, search: Mapping[str, Any]) -> None:
    """Begin a search in its folder, or go on with the one that is there.

    Raises
    ------
    UsageError
        When the folder holds another search; the message names the first difference.
    """
    path = out / SEARCH
    wanted = json.loads(json.dumps(search))
    if not path.exists():
        replace(path, lambda staged: staged.write_text(json.dumps(wanted, indent=1)))
        return
    began = json.loads(path.read_text())
    for name, there, here in differences(began, wanted):
        raise UsageError(
            f"{out} holds a search whose {name} is {there!r}, here it is {here!r}: a search goes on with what it began "
            "with; choose another --out"
        )
