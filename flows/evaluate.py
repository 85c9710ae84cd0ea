"""Flow `evaluate`: judge a model on a labelled split or beside readers' scores; ``covseg evaluate`` under Prefect.

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

from covseg.data.scores import has_scores
from covseg.evaluation.document import PAGE
from covseg.evaluation.evaluate import evaluate as run
from covseg.evaluation.external.document import PAGE as EXTERNAL_PAGE
from covseg.evaluation.external.records import ExternalEvaluation
from covseg.evaluation.external.run import evaluate_scores
from covseg.evaluation.external.text import screen
from covseg.evaluation.records import Evaluation
from covseg.settings.evaluate import EvaluateSettings
from flows.artifacts import show_evaluation, show_link, show_text
from flows.main import main
from flows.parameters import take
from flows.redaction import redact


@task(name="judge", cache_policy=NO_CACHE)  # no retries: a wrong path does not mend, and Test is not looked at twice
@redact
def evaluate_split(settings: EvaluateSettings) -> Evaluation | ExternalEvaluation:
    """Walk the split through the pipeline, judge it, and write the three files."""
    evaluation = evaluate_scores(settings) if has_scores(settings.data) else run(settings)
    get_run_logger().info("judged %d images", evaluation.data.images)
    return evaluation


def _name() -> str:
    return f"evaluate {current_run.parameters['model']} on {current_run.parameters['split']}"


@flow(name="evaluate", flow_run_name=_name, persist_result=False)
@take(EvaluateSettings)
def evaluate(**parameters: Any) -> dict[str, Any]:
    """Judge a model on a labelled split, or beside readers' scores: every convention, every stratum, with intervals."""
    settings = EvaluateSettings(**parameters)
    evaluation = evaluate_split(settings)
    if isinstance(evaluation, ExternalEvaluation):
        description, page = f"{evaluation.model.id}, readers' scores", EXTERNAL_PAGE
        show_text(["```", *screen(evaluation), "```"], "evaluate-table", description)
    else:
        show_evaluation(evaluation, "evaluate-table", f"{evaluation.model.id}, {settings.split}")
        page = PAGE
    show_link(settings.output / page, "page", "evaluate-page")
    return evaluation.model_dump(mode="json", include={"headline", "warnings"})


if __name__ == "__main__":
    sys.exit(main(evaluate, EvaluateSettings, "nothing is kept, run the same again"))
