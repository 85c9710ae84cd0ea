"""``covseg train``: train a recipe; here, or on Ray when more than one worker is asked for."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

from covseg.errors import UsageError

if TYPE_CHECKING:
    from covseg.training.recipe import Recipe
    from covseg.training.train import Hooks, Job


class TrainRun(BaseModel):
    """What the command and the flow `train` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field(description="Name of a recipe (see covseg recipes), or the path of a TOML file.")
    data: str = Field(description="Folder or bucket URL with Train and Val (COVID-QU-Ex), or images/, masks/.")
    out: str = Field(description="Folder or bucket URL of the run; a cluster of several machines has to reach it.")
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = Field(
        default=(), description="Fields of the recipe to change, such as optimiser.lr=1e-3; may be repeated."
    )
    workers: int = Field(default=0, ge=0, le=1024, description="Ray workers; 0 trains in this process, without Ray.")
    least_workers: int | None = Field(
        default=None, ge=1, description="Ray: go on with so few when machines are lost, grow again; default: all."
    )
    gpus: float = Field(default=0, ge=0, le=8, description="GPUs of each Ray worker; in this process one is found.")
    seeds: int = Field(default=1, ge=1, le=50, description="Train so often, each with the next seed; mean and spread.")
    limit: int | None = Field(default=None, ge=6, description="About so many films of each split.")
    minutes: float | None = Field(default=None, gt=0, description="Stop after so long, state saved.")
    resume: bool = Field(default=False, description="Go on with the run in OUT.")
    lung_model: str = Field(
        default="default", description="Model whose lung masks a four-channel network sees (stage 1 of the cascade)."
    )
    drop_leaks: bool = Field(default=False, description="Leave out films of Train that look like a film of Val.")
    loaders: int | None = Field(
        default=None, ge=0, le=64, description="Processes that read and augment; default: none on a CPU."
    )

    def load(self) -> Recipe:
        """Read the recipe with its settings."""
        from covseg.training.recipe import load_recipe

        return load_recipe(self.recipe, self.settings)

    def job(self, device: str) -> Job:
        """Return what the core's loop is told."""
        from covseg.training.remote import folder_of
        from covseg.training.train import Job, default_workers

        return Job(
            data=self.data, out=folder_of(self.out), limit=self.limit, resume=self.resume, minutes=self.minutes,
            lung_model=self.lung_model, workers=default_workers(device) if self.loaders is None else self.loaders,
            drop_leaks=self.drop_leaks,
        )  # fmt: skip

    def run(self, hooks: Hooks | None = None) -> dict[str, Any]:
        """Train as told; return the best epoch's numbers.

        With `workers` the loop runs on Ray, else here on the accelerator that there is.
        """
        from covseg.training.remote import sending, take
        from covseg.training.train import Hooks, default_device

        if (self.least_workers or 0) > self.workers:
            raise UsageError(f"--least-workers {self.least_workers} is more than --workers {self.workers}")
        recipe = self.load()
        take(self.out)
        told = sending(hooks or Hooks(), self.out)
        if self.workers:
            from workers.training import Ranks, train_on_ray

            asked = Ranks(self.workers, self.out, self.gpus, self.least_workers)
            return train_on_ray(recipe, self.job("cuda" if self.gpus else "cpu"), asked, self.seeds, told)
        from covseg.training.seeds import train_seeds

        device = default_device()
        return train_seeds(recipe, self.job(device), self.seeds, device, told)


class TrainConfig(TrainRun):
    """What `covseg train` can be told, by flags or by a TOML file."""

    dry_run: bool = Field(default=False, description="Check recipe, data and weights, print the recipe, train nothing.")
    json_: Annotated[bool, Parameter(name="--json")] = Field(default=False, description="Print the result as JSON.")


def train(config: Annotated[TrainConfig, Parameter(name="*")]) -> int:
    """Train a recipe; a run folder with weights, curves and everything that resumes it."""
    import json

    from covseg.training.train import Hooks

    recipe = config.load()
    if config.dry_run:
        from covseg.training.train import rehearse

        print(f"{recipe.label}: {rehearse(recipe, config.job('cpu'))}", file=sys.stderr)
        print(recipe.model_dump_json(indent=1))
        return 0
    print(f"{recipe.label}: {recipe.title}", file=sys.stderr)
    asked = _on_interrupt()
    found = config.run(Hooks(tell=step_line(), epoch_done=epoch_line, stop=asked))
    print(json.dumps(found) if config.json_ else _headline(found))
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


def _headline(found: dict[str, Any]) -> str:
    best = f"best epoch {found['epoch']:.0f}, {found['metric']} {found['best']:.4f} (Val, n {found['films']})"
    lines = [f"{found['label']}: {best}"]
    if "mean" in found:
        lines.append(f"over {found['seeds']} seeds: {found['mean']:.4f} +- {found['deviation']:.4f}")
    lines.append(f"{found['out']}/weights.safetensors, metrics.csv, curves.png. Research use only, not for diagnosis.")
    lines.append(f"next: covseg models release {found['out']} -o MODEL")
    return "\n".join(lines)
