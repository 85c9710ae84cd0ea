"""Run a flow once from the command line, with a Prefect server of its own unless one is configured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from cyclopts import App, Parameter
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow, FlowStateHook
from prefect.logging.loggers import flow_run_logger
from pydantic import BaseModel

from covseg.errors import CovsegError
from flows.server import configured_or_local

Settings = TypeVar("Settings", bound=BaseModel)


def main(
    flow: Flow[..., Any],
    model: type[Settings],
    kept: str,
    resolve: Callable[[Settings], Settings] = lambda settings: settings,
) -> int:
    """Run a flow that takes the fields of `model` with settings from the command line; return the exit code.

    Parameters
    ----------
    kept : str
        What an interrupted run leaves, and how to go on.
    resolve : callable
        Makes of the settings what holds in another folder and on another machine.
    """
    app = App(
        name=f"python -m flows.{flow.name}", help=f"Run the flow `{flow.name}` once, here or where RAY_ADDRESS says."
    )

    def run(settings: Settings) -> None:
        with configured_or_local():
            flow(**resolve(settings).model_dump(mode="json"))

    run.__annotations__["settings"] = Annotated[model, Parameter(name="*")]
    app.default(run)
    try:
        app(result_action="return_value")
    except CovsegError as error:
        message, code = str(error), error.exit_code
    except KeyboardInterrupt:
        message, code = f"interrupted; {kept}", 130
    else:
        return 0
    sys.stderr.write(f"covseg: {message}\n")
    return code


def logged_when_stopped(text: str) -> FlowStateHook[..., Any]:
    """Return a hook of Prefect that says what a stopped run leaves; its Ray workers are gone with its process."""

    def say_how_to_resume(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        flow_run_logger(flow_run, flow).info("%s: %s", state.name, text)

    return say_how_to_resume
