"""A progress artifact of Prefect, whose failures end no work."""

from __future__ import annotations

from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import update_progress_artifact


def show(artifact: UUID, percent: float, line: str) -> None:
    """Show how far a run is; a server that does not take it costs the update, not the run.

    Parameters
    ----------
    artifact : UUID
        Of ``create_progress_artifact``.
    percent : float
        0 to 100.
    line : str
        Its description; no source key.
    """
    try:
        update_progress_artifact(artifact, percent, description=line)
    except Exception as error:  # noqa: BLE001 - one image must not hold up an archive
        get_run_logger().warning("progress is not shown (%s); the work goes on", type(error).__name__)
