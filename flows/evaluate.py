"""Flow `evaluate`: judge a model on a labelled split; the command ``covseg evaluate`` under Prefect.

Its parameters are the fields of `covseg.settings.evaluate.EvaluateSettings`. What stands in Prefect is the
table, counts and a link to the page: no pixels and no names of images. Run it here with
``python -m flows.evaluate MODEL --data ROOT``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run as current_run

from covseg.errors import CovsegError
from covseg.settings.evaluate import EvaluateSettings
from flows.parameters import take
from flows.redaction import redact
from flows.server import configured_or_local

if TYPE_CHECKING:
    from covseg.evaluation.records import Evaluation


@task(name="judge", cache_policy=NO_CACHE)  # no retries: a wrong path does not mend, and Test is not looked at twice
@redact
def evaluate_split(settings: EvaluateSettings) -> Evaluation:
    """Walk the split through the pipeline, judge it, and write the three files."""
    from covseg.evaluation.evaluate import evaluate as run

    evaluation = run(settings)
    get_run_logger().info("judged %d images of %s", evaluation.data.images, evaluation.data.split)
    return evaluation


def _show(evaluation: Evaluation, settings: EvaluateSettings) -> None:
    """Leave the whole table and the way to the page as artifacts."""
    from covseg.evaluation.text import screen

    table = "\n".join(["```", *screen(evaluation), "```", "", "Research use only, not for diagnosis."])
    create_markdown_artifact(table, key="evaluate-table", description=f"{evaluation.model.id}, {settings.split}")
    create_link_artifact(f"file://{settings.output.absolute()}/evaluation.html", link_text="page", key="evaluate-page")


def _name() -> str:
    return f"evaluate {current_run.parameters['model']} on {current_run.parameters['split']}"


@flow(name="evaluate", flow_run_name=_name, persist_result=False)
@take(EvaluateSettings)
def evaluate(**parameters: Any) -> dict[str, Any]:
    """Judge a model on a labelled split: every averaging convention, every stratum, with intervals."""
    settings = EvaluateSettings(**parameters)
    evaluation = evaluate_split(settings)
    _show(evaluation, settings)
    return evaluation.model_dump(mode="json", include={"headline", "warnings"})


def main(words: list[str] | None = None) -> int:
    """Run the flow once from the command line, with a Prefect server of its own unless one is given."""
    app = App(name="python -m flows.evaluate", help="Run the flow `evaluate` once.")

    @app.default
    def run(settings: Annotated[EvaluateSettings, Parameter(name="*")]) -> int:
        with configured_or_local():
            evaluate(**settings.model_dump(mode="json"))
        return 0

    try:
        return int(app(words, result_action="return_value") or 0)
    except CovsegError as error:
        print(f"covseg: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
