"""``covseg train``: train a recipe; here, or on Ray when more than one worker is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from pydantic import Field

from covseg.errors import UsageError
from covseg.settings.train import TrainSettings
from flows.cli.console import note, progress, show_result
from flows.cli.interrupt import on_interrupt
from flows.cli.options import Json, Options, same

if TYPE_CHECKING:
    from covseg.training.seeds import TrainResult


class TrainConfig(TrainSettings, Options):
    """What `covseg train` can be told, by flags or by a TOML file."""

    out: Annotated[str, Parameter(name="--output", alias=("-o", "--out"))] = same(TrainSettings, "out")
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = same(TrainSettings, "settings")
    track: Literal["none", "mlflow", "wandb"] = Field(
        "none",
        description="Also tell each epoch's numbers to MLflow or Weights & Biases, which is installed beside covseg.",
    )
    dry_run: bool = Field(default=False, description="Check recipe, data and weights, print the recipe, train nothing.")
    json_: Json = False


def train(config: TrainConfig) -> int:
    """Train a recipe; a run folder with weights, curves and everything that resumes it."""
    from covseg.training.epoch_words import best_so_far
    from covseg.training.job import Hooks
    from covseg.training.preflight import preflight
    from covseg.training.recipe import load_recipe
    from covseg.training.tracking import epochs_to
    from workers.training_job import job_of, run

    recipe = load_recipe(config.recipe, config.settings)
    tracked = epochs_to(config.track, recipe)
    if config.resume:
        _check_begun(config.out)
    if config.dry_run:
        note(f"{recipe.label}: encoder weights {preflight(recipe, job_of(config, 'cpu'))}")
        show_result(recipe.model_dump(mode="json"), [recipe.model_dump_json(indent=1)], as_json=config.json_)
        return 0
    note(f"{recipe.label}: {recipe.title}; the best epoch is that of the highest {recipe.stop.metric}")
    line = best_so_far(recipe.stop.metric)
    with progress("steps") as report:

        def step_done(step: int, steps: int, row: dict[str, float]) -> None:
            quality = f"loss {row['train_loss']:.4f}, Dice {row['train_dice']:.3f}"
            report(step, steps, f"{quality}, {row['films_per_second']:.1f} images/s")

        def ended(row: dict[str, float], folder: Path) -> None:
            note(line(row))
            tracked(row, folder)

        stop = on_interrupt("stopping after this step, state is being saved")
        result = run(config, Hooks(step_done=step_done, epoch_done=ended, stop=stop))
    show_result(result.model_dump(mode="json"), _headline(result), as_json=config.json_)
    return 0


def _check_begun(out: str) -> None:
    """Refuse to resume where nothing was begun; the flow, whose runs are made ahead of time, begins there."""
    from covseg.storage import entries, open_store
    from covseg.training.run_folder import STATE

    store = open_store(out)
    if not any(entry.key.rpartition("/")[2] == STATE for entry in entries(store)):
        raise UsageError(
            f"--resume: {store.url} holds no run, wanted one with {STATE}; leave --resume out to begin one"
        )


def _headline(result: TrainResult) -> list[str]:
    best = f"best epoch {result.epoch:.0f}, {result.metric} {result.best:.4f} (Val, n {result.images})"
    lines = [f"{result.label}: {best}"]
    if result.seeds:
        lines.append(f"over {result.seeds} seeds: {result.mean:.4f} +- {result.deviation:.4f}")
    lines.append(f"{result.out}/weights.safetensors, metrics.csv, curves.png. Research use only, not for diagnosis.")
    return [*lines, f"next: covseg models release {result.out} -o MODEL --data ROOT"]
