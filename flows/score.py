"""Flow `score`: plan, score, publish one archive; the worker entry of ``covseg score`` under Prefect.

Its parameters are the fields of `covseg.settings.score.ScoreSettings`. What stands in Prefect is counts, times
and the two URLs of the parameters: no pixels, no source keys, no input ids. Run it here with
``python -m flows.score SOURCE DEST``; ``covseg deploy`` deploys it as ``score/archive``.

In process, on a joined cluster (``RAY_ADDRESS=HOST:6379``), or as a Ray job (``RAY_ADDRESS=http://HOST:8265``).
Cancelling sends SIGTERM to the flow's process; its Ray workers, or its job, go down with it, and finished shards stay.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.runtime import flow_run as current_run

from covseg.archive import Plan
from covseg.errors import CovsegError, NotAccepted
from covseg.settings.score import ScoreSettings
from covseg.table import objections
from flows.artifacts import show_link, show_progress, show_text, start_progress, throttled
from flows.ending import ended
from flows.events import tell_of_snapshot
from flows.main import logged_when_stopped, main
from flows.parameters import take
from flows.redaction import redact, worth_a_retry
from workers.jobs import job_server, score_by_job, stop
from workers.scoring import Work, absolute, open_work
from workers.summary import Progress, Summary

KEPT = "finished shards are kept; run the flow again with the same parameters to resume"


def stop_job(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's names
    """Stop the Ray job of a cancelled run, also where its process had no time to."""
    if server := job_server():
        with contextlib.suppress(CovsegError):
            stop(absolute(ScoreSettings(**flow_run.parameters)), server)


STOPPED = [logged_when_stopped(KEPT)]


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
    artifact = start_progress("score-progress", f"plan {plan.number}")
    progress = work.score(plan, _reporter(artifact))
    show_progress(artifact, 100.0, _line(progress))
    get_run_logger().info(_line(progress))
    return progress


@task(name="score", cache_policy=NO_CACHE)  # no retries: shards are retried inside
@redact
def score_on_cluster(settings: ScoreSettings, server: str) -> Summary:
    """Have a Ray job plan, score and publish; a run that starts again follows the job that it had submitted."""
    artifact = start_progress("score-progress", "Ray job")
    owner = str(current_run.id)
    summary = score_by_job(settings, server, _reporter(artifact), get_run_logger().info, owner)
    show_progress(artifact, 100.0, f"{summary.finished} images, {summary.retried} shards retried")
    return summary


@task(name="publish", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=worth_a_retry)
@redact
def publish_snapshot(work: Work, plan: Plan, progress: Progress) -> Summary:
    """Check the sum and publish the snapshot."""
    return work.publish(plan, progress)


def _reporter(artifact: UUID) -> Callable[[Progress], None]:
    update = throttled(artifact)
    return lambda progress: update(100 * progress.finished / progress.images, _line(progress))


def _line(progress: Progress) -> str:
    counts = f"{progress.finished} of at most {progress.images} images, {progress.refused} refused"
    return f"{counts}, {progress.retried} shards retried"


def _show(summary: Summary, dest: str) -> None:
    """Leave what came of it as artifacts: counts, what changed, times and where the report lies."""
    rows = [f"| {name} | {value} |" for name, value in summary.as_dict().items() if not isinstance(value, dict)]
    rows += ["", f"`covseg serve {dest}` opens report and table on your machine."]
    statuses = [f"| {name} | {count} |" for name, count in sorted(summary.statuses.items())]
    show_text(["| | |", "|---|---|", *statuses, *rows], "score-summary", f"snapshot {summary.snapshot}")
    refusals = [{"reason": reason, "images": count} for reason, count in sorted(summary.reasons.items())]
    create_table_artifact(refusals, key="score-refusals", description="images without a mask, by reason")
    moved = [
        {"what": what, "name": name, "change": f"{count:+d}"}
        for what, counts in summary.changed.items()
        for name, count in counts.items()
    ]
    words = f"snapshot {summary.snapshot} against the one before" if summary.snapshot > 1 else "the first snapshot"
    create_table_artifact(moved, key="score-changes", description=words)
    show_link(summary.report, "report", "score-report")


def _name() -> str:
    """Name a run by the ends of its two URLs."""
    source, dest = (PurePosixPath(current_run.parameters[name]).name for name in ("source", "dest"))
    return f"score {source} into {dest}"


@flow(name="score", flow_run_name=_name, persist_result=False, on_cancellation=[stop_job, *STOPPED], on_crashed=STOPPED)
@take(ScoreSettings)
def score(**parameters: Any) -> State[Any]:
    """Score an archive on Ray and publish the snapshot; run again to resume."""
    return ended(_score, ScoreSettings(**parameters))


@redact
def _score(settings: ScoreSettings) -> tuple[str, dict[str, Any]]:
    if server := job_server():
        summary = score_on_cluster(absolute(settings), server)
    else:
        with open_work(settings) as work:
            plan = plan_shards(work)
            progress = score_shards(work, plan)
            summary = publish_snapshot(work, plan, progress)
    _show(summary, settings.dest)
    tell_of_snapshot(summary, settings.dest)
    if not summary.accepted:
        limits = summary.max_failed, summary.max_out_of_scope, summary.max_missing
        why = "; ".join(objections(summary.statuses, *limits))
        raise NotAccepted(f"snapshot {summary.snapshot} is published, not accepted: {why}; {summary.line}")
    return summary.line, summary.as_dict()


if __name__ == "__main__":
    sys.exit(main(score, ScoreSettings, KEPT, absolute))
