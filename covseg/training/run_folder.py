"""The folder of a training run: its recipe and facts, every epoch's numbers, the state, the weights.

``recipe.json`` ``run.json`` ``metrics.csv`` ``curves.png`` ``events/`` ``samples/`` ``last.pt`` (to resume)
``weights.safetensors`` (the best epoch, averaged, float16). What a run goes on from is replaced whole: a full
disk or a kill leaves the file before.
"""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file

from covseg.errors import EnvironmentFailed, StorageFull, UsageError
from covseg.settings.faults import first_fault
from covseg.training.learner import Learning, State
from covseg.training.recipe import Recipe

STATE, WEIGHTS, METRICS, RECIPE, FACTS = "last.pt", "weights.safetensors", "metrics.csv", "recipe.json", "run.json"
ENVIRONMENT = ("ranks", "device", "threads", "torch", "python", "code_version")  # may change when a run goes on
Row = dict[str, float]


class RunFacts(BaseModel):
    """What a run began with, beside its recipe: the content of ``run.json``.

    Attributes
    ----------
    weights, lung_channel
        What the encoder started from, and what a fourth channel shows.
    data_set : str
        Published set that the images are, or ``own set``.
    images, data_sha256
        Number and digest of the images of each split.
    side
        Of the training images, where all are squares of one side.
    ranks, device, threads, torch, python, code_version
        Where it began; only these may be others when it goes on.
    resumed
        Where it went on elsewhere: ``epoch``, ``step``, and those of `ENVIRONMENT` that were others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    label: str
    recipe_sha256: str
    seed: int
    weights: str
    lung_channel: str | None
    data_set: str = Field(alias="set")
    strata: tuple[str, ...]
    images: dict[str, int] = Field(alias="films")
    limit: int | None
    drop_leaks: bool
    data_sha256: dict[str, str]
    side: int | None = None
    parameters: int
    ranks: int
    device: str
    threads: int
    torch: str
    python: str
    code_version: str
    resumed: tuple[dict[str, int | str], ...] = Field((), exclude_if=lambda resumed: not resumed)


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, then move into its place.

    Raises
    ------
    StorageFull
        When the disk is full; what stood there before still stands.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(staged)
        staged.chmod(0o644)  # safetensors writes for its owner alone
        staged.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch and safetensors give no errno: measured while what was written still takes its room
        full = getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(path.parent).free < 1024**2
        staged.unlink(missing_ok=True)
        if full:
            raise StorageFull(
                f"no room to write {path}; the state before it is whole. Free space, then run the same command again"
            ) from error
        raise EnvironmentFailed(f"cannot write {path}: {error}; check the folder's rights and disk") from error


def open_run(folder: Path, recipe: Recipe, resume: bool) -> list[Row]:
    """Return the rows of the run in a folder, none of one that is to begin there; nothing is written.

    Raises
    ------
    UsageError
        When the folder holds another run, or a run and `resume` is false.
    """
    path = folder / RECIPE
    if not path.exists() or not (has_state(folder) or (folder / METRICS).exists()):  # nothing was learnt yet
        return []
    began = Recipe.model_validate_json(path.read_text())
    if began != recipe:
        name, there, here = next(differences(began.model_dump(), recipe.model_dump()))
        changed = f"{name} is {there!r} there, {here!r} here"
        raise UsageError(f"{folder} holds a run of another recipe ({changed}); choose another --out")
    if has_state(folder) and not resume:
        raise UsageError(f"{folder} holds this run already; add --resume to go on, or choose another --out")
    return read_rows(folder)


def begin_run(folder: Path, recipe: Recipe, learning: Learning) -> None:
    """Make the folder with its recipe, as far as it is not there; `StorageFull` where the states would not fit."""
    check_room(folder, learning)
    folder.mkdir(parents=True, exist_ok=True)
    for left in (left for name in (STATE, WEIGHTS) for left in folder.glob(f".{name}.*")):
        left.unlink()  # of a process that was killed while it saved
    replace(folder / RECIPE, lambda staged: staged.write_text(recipe.model_dump_json(indent=1)))


def differences(there: Mapping[str, Any], here: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted name of each nested setting that is another one here, with the values there and here."""
    for name, value in here.items():
        before = there.get(name)
        if isinstance(value, dict):
            yield from differences(before or {}, value, f"{path}{name}.")
        elif before != value:
            yield f"{path}{name}", before, value


def check_room(folder: Path, learning: Learning) -> None:
    """Refuse to start where two states and the weights would not fit.

    Raises
    ------
    StorageFull
        Before the first step.
    """
    size = sum(value.numel() * value.element_size() for value in learning.state_dict().values())
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    wanted, free = 10 * size, shutil.disk_usage(there).free
    if free < wanted:
        raise StorageFull(f"{folder} has {free / 1e6:.0f} MB free, the run wants {wanted / 1e6:.0f} MB for its states")


def has_state(folder: Path) -> bool:
    """Tell whether there is a state to resume from."""
    return (folder / STATE).exists()


def save_state(folder: Path, state: State) -> None:
    """Replace ``last.pt``."""
    replace(folder / STATE, lambda staged: torch.save(state, staged))


def load_state(folder: Path) -> State | None:
    """Return the state to resume from, or None; nothing but tensors and plain values is unpickled."""
    path = folder / STATE
    if not has_state(folder):
        return None
    state: State = torch.load(path, map_location="cpu", weights_only=True)
    return state


def write_weights(path: Path, network: torch.nn.Module) -> None:
    """Replace a safetensors file by a network's weights, floats as float16."""
    state = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    replace(path, lambda staged: save_file(state, staged))


def write_rows(folder: Path, rows: list[Row]) -> None:
    """Replace ``metrics.csv``; a column that a row lacks stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))

    def write(staged: Path) -> None:
        with staged.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    replace(folder / METRICS, write)


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of ``metrics.csv``; [] where there is none."""
    path = folder / METRICS
    if not path.exists():
        return []
    with path.open() as file:
        return [{name: float(text) if text else math.nan for name, text in row.items()} for row in csv.DictReader(file)]


def keep_facts(folder: Path, facts: RunFacts, at: dict[str, int] | None) -> None:
    """Write ``run.json`` when a run begins; when it goes on, add only what is another machine's or another build's.

    Parameters
    ----------
    facts : RunFacts
        Of this process.
    at : dict or None
        ``epoch`` and ``step`` that the run goes on from; None when it begins.

    Raises
    ------
    UsageError
        When it would go on with other images, other lung masks or other starting weights.
    """
    began = read_facts(folder) if at and (folder / FACTS).exists() else facts
    before, now = began.model_dump(mode="json"), facts.model_dump(mode="json")
    changed = {name: value for name, value in now.items() if before[name] != value}
    if other := sorted(set(changed) - set(ENVIRONMENT)):
        name = other[0]
        raise UsageError(
            f"{folder} holds a run whose {name} is {before[name]}, here it is {changed[name]}: a run goes on with "
            "what it began with; give the same data, limit and lung model, or choose another --out"
        )
    if at and changed:
        began = began.model_copy(update={"resumed": (*began.resumed, at | changed)})
    content = json.dumps(began.model_dump(mode="json"), indent=1)
    replace(folder / FACTS, lambda staged: staged.write_text(content))


def read_facts(folder: Path) -> RunFacts:
    """Return ``run.json``.

    Raises
    ------
    UsageError
        When it was written by another version of covseg.
    """
    try:
        return RunFacts.model_validate_json((folder / FACTS).read_text())
    except ValidationError as error:
        raise UsageError(
            f"{folder / FACTS}: {first_fault(error)}; wanted a run of this version of covseg: use the one that wrote "
            "it, or train anew"
        ) from error
