"""What a training run is given beside its recipe: data, folder and limits, and what its caller wants to hear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingJob:
    """What one training run is given, beside its recipe; nothing here changes what is learnt, but `limit`.

    Parameters
    ----------
    data : Path or str
        Root of a labelled set with Train and Val; a bucket's URL is brought to this machine first.
    out : Path
        Folder of the run.
    limit : int or None
        About so many images of each split.
    resume : bool
        Go on with the run in `out`.
    lung_model : str
        Model folder whose lung masks a four-channel network sees.
    workers : int
        Processes that read and augment beside the step; 0 does it in line.
    minutes : float or None
        Stop after so long, state saved; None trains to the end.
    drop_leaks : bool
        Leave out images of Train that are, exactly or nearly, images of Val.
    """

    data: Path | str
    out: Path
    limit: int | None = None
    resume: bool = False
    lung_model: str = "default"
    workers: int = 0
    minutes: float | None = None
    drop_leaks: bool = False


@dataclass
class Hooks:
    """What the caller wants to hear and to say; called on every rank.

    Parameters
    ----------
    step_done : callable
        (step, steps in all, row so far) after each step.
    epoch_done : callable
        (row, folder) after each epoch, state saved.
    saved : callable
        (folder) after a state was saved inside an epoch.
    stop : callable
        True, on any rank, ends the run after the step, state saved.
    """

    step_done: Callable[[int, int, dict[str, float]], None] = lambda *_: None
    epoch_done: Callable[[dict[str, float], Path], None] = lambda *_: None
    saved: Callable[[Path], None] = lambda *_: None
    stop: Callable[[], bool] = lambda: False
