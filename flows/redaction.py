"""What of an error may reach Prefect, and which errors are worth a retry there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from covseg.errors import (
    CovsegError,
    ImagesLost,
    InternalFailure,
    NotAccepted,
    SetRefused,
    StorageUnreachable,
    UsageError,
)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def redact(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Keep what may name an image out of Prefect: no causes, and of an unforeseen error only its class."""

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except SetRefused:
            raise UsageError("the labelled set is not whole: covseg data check ROOT names the image") from None
        except ImagesLost as error:
            raise NotAccepted(
                f"{sum(error.folders.values())} planned images were missing or changed when they were read, more than "
                "max_missing; nothing is published: covseg score names their folders"
            ) from None
        except CovsegError as error:
            raise error.with_message(str(error)) from None
        except Exception as error:  # noqa: BLE001 - one image must not hold up an archive
            raise InternalFailure(
                f"internal error: {type(error).__name__}; run the command with --debug to see it"
            ) from None

    return call


def worth_a_retry(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Only a store that did not answer may do so later; a wrong key or a full disk will not mend."""
    return isinstance(state.result(raise_on_failure=False), StorageUnreachable)
