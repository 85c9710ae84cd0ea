"""Flow `evaluate`: judge a model on a labelled split; the command ``covseg evaluate`` under Prefect.

Its parameters are the fields of `covseg.settings.evaluate.EvaluateSettings`. What stands in Prefect is the
table, counts and a link to the page: no pixels and no names of images. Run it here with
``python -m flows.evaluate MODEL --data ROOT``.
"""

from __future__ import annotations

import sys
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run as current_run

from covseg.evaluation.evaluate import evaluate as run
from covseg.evaluation.records import Evaluation
from covseg.settings.evaluate import EvaluateSettings
from flows.artifacts import show_evaluation, show_link
from flows.main import main
from flows.parameters import take
from flows.redaction import redact


@task(name="judge", cache_policy=NO_CACHE)  # no retries: a wrong path does not mend, and Test is not looked at twice
@redact
def evaluate_split(settings: EvaluateSettings) -> Evaluation:
    """Walk the split through the pipeline, judge it, and write the three files."""
    evaluation = run(settings)
    get_run_logger().info("judged %d images of %s", evaluation.data.images, evaluation.data.split)
    return evaluation


def _name() -> str:
    return f"evaluate {current_run.parameters['model']} on {current_run.parameters['split']}"


@flow(name="evaluate", flow_run_name=_name, persist_result=False)
@take(EvaluateSettings)
def evaluate(**parameters: Any) -> dict[str, Any]:
    """Judge a model on a labelled split: every averaging convention, every stratum, with intervals."""
    settings = EvaluateSettings(**parameters)
    evaluation = evaluate_split(settings)
    show_evaluation(evaluation, "evaluate-table", f"{evaluation.model.id}, {settings.split}")
    show_link(settings.output / "evaluation.html", "page", "evaluate-page")
    return evaluation.model_dump(mode="json", include={"headline", "warnings"})


if __name__ == "__main__":
    sys.exit(main(evaluate, EvaluateSettings, "nothing is kept, run the same again"))
