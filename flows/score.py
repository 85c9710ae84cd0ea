"""Flow `score`: plan, score, publish one archive; the worker entry of ``covseg score`` under Prefect.

Its parameters are the fields of `covseg.settings.score.ScoreSettings`. What stands in Prefect is counts, times
and the two URLs of the parameters: no pixels, no source keys, no input ids. Run it here with
``python -m flows.score SOURCE DEST``; ``infra/prefect.yaml`` deploys it as ``score/archive``.

Cancelling sends SIGTERM to the flow's process; its Ray workers go down with it, and finished shards stay.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, cast
from uuid import UUID

from cyclopts import App, Parameter
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run as current_run

from covseg.archive import Plan
from covseg.errors import CovsegError, NotAccepted
from covseg.settings.score import ScoreSettings
from flows.parameters import take
from flows.progress import show
from flows.redaction import redact, worth_a_retry
from flows.server import configured_or_local
from workers.scoring import Work, absolute, open_work
from workers.summary import Progress, Summary

UPDATE_S = 5.0  # between two updates of the progress artifact


@task(name="plan", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=worth_a_retry)
@redact
def plan_shards(work: Work) -> Plan:
    """List the source, or resume the plan that is under way."""
    plan = work.plan()
    get_run_logger().info("plan %d: %d images, %d shards", plan.number, plan.images, plan.shards)
    return plan


@task(name="score", cache_policy=NO_CACHE)  # no retries: shards are retried inside
@redact
def score_shards(work: Work, plan: Plan) -> Progress:
    """Score what is pending, on Ray."""
    artifact = cast(UUID, create_progress_artifact(0.0, key="score-progress", description=f"plan {plan.number}"))
    progress = work.score(plan, _throttled(artifact))
    show(artifact, 100.0, _line(progress))
    get_run_logger().info(_line(progress))
    return progress


@task(name="publish", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=worth_a_retry)
@redact
def publish_snapshot(work: Work, plan: Plan, progress: Progress) -> Summary:
    """Check the sum and publish the snapshot."""
    return work.publish(plan, progress)


def _throttled(artifact: UUID) -> Callable[[Progress], None]:
    said = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal said
        if time.monotonic() - said >= UPDATE_S:
            show(artifact, 100 * progress.finished / progress.images, _line(progress))
            said = time.monotonic()

    return tell


def _line(progress: Progress) -> str:
    refused = progress.finished - progress.statuses["scored"]
    return (
        f"{progress.finished} of at most {progress.images} images, {refused} refused, {progress.retried} shards retried"
    )


def _show(summary: Summary) -> None:
    """Leave what came of it as artifacts: counts, times and where the report lies."""
    rows = [f"| {name} | {value} |" for name, value in summary.as_dict().items() if not isinstance(value, dict)]
    statuses = [f"| {name} | {count} |" for name, count in sorted(summary.statuses.items())]
    text = "\n".join(["| | |", "|---|---|", *statuses, *rows, "", "Research use only, not for diagnosis."])
    create_markdown_artifact(text, key="score-summary", description=f"snapshot {summary.snapshot}")
    refusals = [{"reason": reason, "images": count} for reason, count in sorted(summary.reasons.items())]
    create_table_artifact(refusals, key="score-refusals", description="images without a mask, by reason")
    link = summary.report if "://" in summary.report else f"file://{summary.report}"
    create_link_artifact(link, link_text="report", key="score-report")


def _name() -> str:
    """Name a run by the ends of its two URLs."""
    source, dest = (PurePosixPath(current_run.parameters[name]).name for name in ("source", "dest"))
    return f"score {source} into {dest}"


def say_how_to_resume(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Say what a stopped run leaves behind; its Ray workers are gone with its process."""
    told = "finished shards are kept; run the flow again with the same parameters to resume"
    flow_run_logger(flow_run, flow).info("%s: %s", state.name, told)


@flow(
    name="score",
    flow_run_name=_name,
    persist_result=False,
    on_cancellation=[say_how_to_resume],
    on_crashed=[say_how_to_resume],
)
@take(ScoreSettings)
def score(**parameters: Any) -> dict[str, Any]:
    """Score an archive on Ray and publish the snapshot; run again to resume."""
    return _score(ScoreSettings(**parameters))


@redact
def _score(settings: ScoreSettings) -> dict[str, Any]:
    with open_work(settings) as work:
        plan = plan_shards(work)
        progress = score_shards(work, plan)
        summary = publish_snapshot(work, plan, progress)
    _show(summary)
    if not summary.accepted:
        raise NotAccepted(
            f"snapshot {summary.snapshot} is published, not accepted: quarantined images above max_failed"
        )
    return summary.as_dict()


def main(words: list[str] | None = None) -> int:
    """Run the flow once from the command line, with a Prefect server of its own unless one is given."""
    app = App(name="python -m flows.score", help="Run the flow `score` once, on one machine or where RAY_ADDRESS says.")

    @app.default
    def run(settings: Annotated[ScoreSettings, Parameter(name="*")]) -> int:
        with configured_or_local():
            score(**absolute(settings).model_dump())
        return 0

    try:
        return int(app(words, result_action="return_value") or 0)
    except CovsegError as error:
        print(f"covseg: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print("covseg: interrupted; finished shards are kept, run the same again", file=sys.stderr)  # noqa: T201
        return 130


if __name__ == "__main__":
    sys.exit(main())
