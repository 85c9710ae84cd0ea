"""What the flows leave in Prefect: progress, tables and links; no pixels, no keys, no names of images."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)

from covseg.evaluation.records import Evaluation
from covseg.evaluation.text import screen
from covseg.records import RESEARCH_ONLY

UPDATE_S = 5.0  # between two updates of a progress artifact


def start_progress(key: str, description: str) -> UUID:
    """Make a progress artifact at 0 %."""
    return cast(UUID, create_progress_artifact(0.0, key=key, description=description))


def show_progress(artifact: UUID, percent: float, line: str) -> None:
    """Show how far a run is: 0 to 100 %, and a line without a source key.

    A server that does not take it costs the update, not the run.
    """
    try:
        update_progress_artifact(artifact, percent, description=line)
    except Exception as error:  # noqa: BLE001 - one image must not hold up an archive
        get_run_logger().warning("progress is not shown (%s); the work goes on", type(error).__name__)


def throttled(artifact: UUID) -> Callable[[float, str], None]:
    """Return `show_progress` for this artifact, at most once in `UPDATE_S`."""
    shown = time.monotonic()

    def update(percent: float, line: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= UPDATE_S:
            show_progress(artifact, percent, line)
            shown = time.monotonic()

    return update


def show_text(lines: list[str], key: str, description: str) -> None:
    """Leave Markdown, and what it is not for."""
    create_markdown_artifact("\n".join([*lines, "", RESEARCH_ONLY]), key=key, description=description)


def show_evaluation(evaluation: Evaluation, key: str, description: str, *more: str) -> None:
    """Leave the whole table of an evaluation, and lines after it."""
    show_text(["```", *screen(evaluation), "```", *more], key, description)


def show_link(place: str | Path, text: str, key: str) -> None:
    """Leave the way to a file or an object."""
    link = place if "://" in str(place) else f"file://{Path(place).absolute()}"
    create_link_artifact(str(link), link_text=text, key=key)
