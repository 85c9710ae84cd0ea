"""What of an error may reach Prefect, and which errors are worth a retry there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from covseg.errors import StorageUnreachable, without_names

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def redact(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Keep what may name an image out of Prefect: no causes, and of an unforeseen error only its class."""

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - one image must not hold up an archive
            raise without_names(error) from None

    return call


def worth_a_retry(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Only a store that did not answer may do so later; a wrong key or a full disk will not mend."""
    return isinstance(state.result(raise_on_failure=False), StorageUnreachable)
