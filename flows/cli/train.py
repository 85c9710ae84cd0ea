"""``covseg train``: train a recipe; here, or on Ray when more than one worker is asked for."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import Field

from covseg.settings.train import TrainSettings

if TYPE_CHECKING:
    from covseg.training.seeds import TrainResult


class TrainConfig(TrainSettings):
    """What `covseg train` can be told, by flags or by a TOML file."""

    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = Field(
        default=(), description="Fields of the recipe to change, such as optimiser.lr=1e-3; may be repeated."
    )
    dry_run: bool = Field(default=False, description="Check recipe, data and weights, print the recipe, train nothing.")
    json_: Annotated[bool, Parameter(name="--json")] = Field(default=False, description="Print the result as JSON.")


def train(config: Annotated[TrainConfig, Parameter(name="*")]) -> int:
    """Train a recipe; a run folder with weights, curves and everything that resumes it."""
    import json

    from covseg.training.job import Hooks
    from covseg.training.recipe import load_recipe
    from workers.training_job import job_of, run

    recipe = load_recipe(config.recipe, config.settings)
    if config.dry_run:
        from covseg.training.preflight import preflight

        print(f"{recipe.label}: encoder weights {preflight(recipe, job_of(config, 'cpu'))}", file=sys.stderr)
        print(recipe.model_dump_json(indent=1))
        return 0
    print(f"{recipe.label}: {recipe.title}", file=sys.stderr)
    result = run(config, Hooks(step_done=step_line(), epoch_done=epoch_line, stop=_on_interrupt()))
    print(json.dumps(result.model_dump(mode="json")) if config.json_ else _headline(result))
    return 0


def _on_interrupt() -> Callable[[], bool]:
    """Ctrl-C asks the loop to stop after its step; a second one ends the process as always."""
    state = {"asked": False}

    def ask(*_: Any) -> None:
        state["asked"] = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nstopping after this step, state is being saved", file=sys.stderr)

    signal.signal(signal.SIGINT, ask)
    return lambda: state["asked"]


def step_line() -> Callable[[int, int, dict[str, float]], None]:
    """Return what shows progress: a line rewritten on a terminal, one per 30 s elsewhere."""
    state = {"start": time.monotonic(), "said": time.monotonic(), "first": -1.0}
    terminal = sys.stderr.isatty()

    def tell(step: int, steps: int, row: dict[str, float]) -> None:
        now = time.monotonic()
        if state["first"] < 0:
            state["first"] = step - 1
        if now - state["said"] < (0.5 if terminal else 30):
            return
        state["said"] = now
        left = (steps - step) * (now - state["start"]) / max(step - state["first"], 1) / 60
        line = (
            f"step {step}/{steps}, loss {row['train_loss']:.4f}, Dice {row['train_dice']:.3f}, "
            f"{row['films_per_second']:.1f} films/s, {left:.0f} min left"
        )
        print(f"\r{line}   " if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    return tell


def epoch_line(row: dict[str, float], _: Path) -> None:
    """Say what an epoch came to."""
    shown = {name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")}
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
    print(f"\repoch {row['epoch']:.0f}: train loss {row['train_loss']:.4f}; Val {numbers}", file=sys.stderr, flush=True)


def _headline(result: TrainResult) -> str:
    best = f"best epoch {result.epoch:.0f}, {result.metric} {result.best:.4f} (Val, n {result.images})"
    lines = [f"{result.label}: {best}"]
    if result.seeds:
        lines.append(f"over {result.seeds} seeds: {result.mean:.4f} +- {result.deviation:.4f}")
    lines.append(f"{result.out}/weights.safetensors, metrics.csv, curves.png. Research use only, not for diagnosis.")
    lines.append(f"next: covseg models release {result.out} -o MODEL")
    return "\n".join(lines)
