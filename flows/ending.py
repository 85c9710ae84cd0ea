"""How a flow ends: a state whose message holds the numbers, or the error in one line; tracebacks only in debug."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed

from covseg.errors import CovsegError

Settings = TypeVar("Settings")
LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def ended(run: Callable[[Settings], tuple[str, Any]], settings: Settings) -> State[Any]:
    """Run a flow's work and return the state that it ends in: Completed with its line, or Failed with the error's.

    The exception stays in the state, so that whoever called the flow gets it raised.
    """
    _leave_tracebacks_out()
    try:
        line, result = run(settings)
    except CovsegError as error:
        get_run_logger().error("%s: %s", type(error).__name__, error)
        return Failed(message=f"{type(error).__name__}: {error}", data=error)
    return Completed(message=line, data=result)


def _leave_tracebacks_out() -> None:
    if get_current_settings().logging.level == "DEBUG":
        return
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if _without_traceback not in logger.filters:
            logger.addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True
