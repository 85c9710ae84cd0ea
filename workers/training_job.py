"""A training by its settings, in this process or on Ray; the entry point of command and flow."""

from __future__ import annotations

from covseg.errors import UsageError
from covseg.settings.train import TrainSettings
from covseg.training.job import Hooks, TrainingJob
from covseg.training.ranks import default_device, default_workers
from covseg.training.recipe import load_recipe
from covseg.training.remote import folder_of, pull, pushing
from covseg.training.seeds import TrainResult, train_seeds


def job_of(settings: TrainSettings, device: str) -> TrainingJob:
    """Return what the core's loop is given."""
    return TrainingJob(
        data=settings.data, out=folder_of(settings.out), limit=settings.limit, resume=settings.resume,
        minutes=settings.minutes, lung_model=settings.lung_model, drop_leaks=settings.drop_leaks,
        workers=default_workers(device) if settings.loaders is None else settings.loaders,
    )  # fmt: skip


def run(settings: TrainSettings, hooks: Hooks | None = None) -> TrainResult:
    """Train; return the best epoch's numbers.

    With `workers` the loop runs on Ray, else here on the accelerator that there is. `UsageError` when fewer workers are
    asked for than the run may go on with.
    """
    if (settings.least_workers or 0) > settings.workers:
        raise UsageError(f"--least-workers {settings.least_workers} is more than --workers {settings.workers}")
    recipe = load_recipe(settings.recipe, settings.settings)
    pull(settings.out)
    hooks = pushing(hooks or Hooks(), settings.out)
    if not settings.workers:
        device = default_device()
        return train_seeds(recipe, job_of(settings, device), settings.seeds, device, hooks)
    from workers.training import train_on_ray  # Ray is not wanted without

    return train_on_ray(recipe, job_of(settings, "cuda" if settings.gpus else "cpu"), settings, hooks)
