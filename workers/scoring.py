"""Score an archive: resolve, plan, dispatch shards to the pool, publish; the one way in for command and flow.

`score_archive` does it all; a caller that wants the steps apart walks `open_work`, `Work.plan`,
`Work.score`, `Work.publish`. Shards without a commit go one to a decode worker, so memory does not grow
with the archive. Commits alone say what is finished: kill it anywhere and run it again.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from covseg.archive import (
    Plan,
    PublishOptions,
    changes,
    check_conditional_writes,
    check_disjoint,
    hold_lease,
    key_id,
    make_plan,
    open_run,
    pending,
    plan_retry,
    publish,
)
from covseg.dicom import check_installed
from covseg.errors import UsageError
from covseg.pipeline import Pipeline, resolve
from covseg.registry import open_model
from covseg.registry.registry import pinned
from covseg.settings.environment import project_key
from covseg.settings.score import ScoreSettings
from covseg.stages.severity import GRADES
from covseg.storage import Store, local_path, open_source, open_store
from covseg.storage.conditional_writes import refuse_unfit
from workers.cluster import connect
from workers.jobs import Note, job_server, score_by_job
from workers.losses import judge_losses
from workers.pool import Job, Pool, RemoteBackend, open_pool
from workers.scheduler import Scheduler, Tell
from workers.summary import Progress, Summary
from workers.telemetry import Telemetry


def score_archive(settings: ScoreSettings, tell: Tell = lambda _: None, note: Note = lambda _: None) -> Summary:
    """Score what is pending under ``settings.source`` and publish the snapshot.

    With a job server in ``RAY_ADDRESS`` the cluster scores, as a Ray job, and `note` is called with the
    JSON lines of its log. `tell` is called in this process after every shard; it must not block.

    Raises
    ------
    UsageError, EnvironmentFailed
        See the error tree; finished shards are kept, and the same call resumes.
    """
    if server := job_server():
        return score_by_job(absolute(settings), server, tell, note)
    with open_work(settings) as work:
        plan = work.plan()
        progress = work.score(plan, tell)
        return work.publish(plan, progress)


@contextlib.contextmanager
def open_work(settings: ScoreSettings) -> Iterator[Work]:
    """Check the stores and the model, start the pool, fix the config, and take the destination.

    Raises
    ------
    UsageError, EnvironmentFailed
        Before the first image is read.
    """
    settings, dicom = absolute(settings), settings.dicom_settings()
    if dicom.kinds:
        check_installed()
    start = time.monotonic()
    folder = open_model(settings.model)
    source, dest, commits = _stores(settings)
    with connect(cpus=settings.workers):
        pool = open_pool(settings)
        try:
            backend = RemoteBackend(pool.backend, pool.models[0].worker)
            config = resolve(folder, backend, settings.batch, settings.input_filter)
            key = project_key()
            run = open_run(dest, commits, config, key_id(key), settings.masks, dicom)
            bucket = source.url.partition("?")[0] if "://" in source.url else "local"
            job = Job(run, source, Pipeline(folder.config, config, bucket, key, dicom), settings.probability)
            work = Work(settings, job, pool, time.monotonic() - start)
            with hold_lease(dest, work.attempt):
                yield work
        finally:
            pool.close()


def absolute(settings: ScoreSettings) -> ScoreSettings:
    """Return the same with local paths made absolute, because a worker's folder is not ours.

    A model behind an alias becomes the version it means now: workers that start later take the same.
    """
    paths = {name: getattr(settings, name) for name in ("source", "dest", "commits")}
    changed = {name: str(Path(path).absolute()) for name, path in paths.items() if path and "://" not in path}
    return settings.model_copy(update={**changed, "model": pinned(settings.model)})


def _stores(settings: ScoreSettings) -> tuple[Store, Store, Store]:
    """Open source, destination and commits, and learn within seconds whether they let us in."""
    source, dest = open_source(settings.source), open_store(settings.dest)
    if (folder := local_path(settings.source)) and not folder.is_dir():
        raise UsageError(f"SOURCE {folder} is no folder: wanted a folder or s3://bucket/prefix with images")
    commits = open_store(settings.commits) if settings.commits else dest
    check_disjoint(source, dest, commits)
    for store in (source, dest):
        store.check()
    check_conditional_writes(commits)
    if local_path(settings.dest):  # it may be a mount
        refuse_unfit(dest)
    return source, dest, commits


@dataclass
class Work:
    """An opened run: its three steps, to be walked in order.

    Paths of `settings` are absolute. Of `pool` the model workers run; the decode workers start with the first pending
    shard. `start_s` is what it took to get here.
    """

    settings: ScoreSettings
    job: Job
    pool: Pool
    start_s: float
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex)
    score_s: float = 0.0

    def plan(self) -> Plan:
        """Resume the newest plan; else list the source and add what is new, or go through what was refused again."""
        settings, run = self.settings, self.job.run
        if settings.retry_refused:
            return plan_retry(run, self.job.source, settings.retry_refused, settings.shard_size)
        return make_plan(run, self.job.source, settings.include, settings.exclude, settings.limit, settings.shard_size)

    def score(self, plan: Plan, tell: Tell = lambda _: None) -> Progress:
        """Score every shard without a commit; `ImagesLost` when too many planned images are missing or changed.

        A shard that lost more than its share waits until all are known, so that it is whole when a folder comes back.
        """
        start = time.monotonic()
        progress = Progress(plan.images)
        shards = pending(self.job.run, plan)
        if first := next(shards, None):
            self.pool.start_decoders(self.job, self.settings.workers)
            telemetry = Telemetry(self.attempt)
            telemetry.planned(plan)
            scheduler = Scheduler(self.pool, progress, tell, self.settings.timeout_s, telemetry)
            scheduler.dispatch(itertools.chain([first], shards), self.settings.max_missing)
            if progress.lost:
                judge_losses(progress, plan, self.settings.max_missing)
                scheduler.dispatch(pending(self.job.run, plan))
        self.score_s = time.monotonic() - start
        return progress

    def publish(self, plan: Plan, progress: Progress) -> Summary:
        """Check the sum, write table and report, and make the snapshot exist."""
        start = time.monotonic()
        settings = self.settings
        options = PublishOptions(
            settings.max_failed,
            settings.hide_keys,
            max_out_of_scope=settings.max_out_of_scope,
            max_missing=settings.max_missing,
            title=settings.title,
            source_label=settings.source_label,
            overlays=settings.overlay == "report",
        )
        manifest = publish(self.job.run, plan, options, self.job.source, self.attempt)
        Telemetry(self.attempt).published(manifest.number, manifest.accepted)
        return Summary(
            snapshot=manifest.number,
            images=plan.images,
            finished=progress.finished,
            retried=progress.retried,
            accepted=manifest.accepted,
            published_by=manifest.published_by,
            mine=manifest.mine,
            statuses=dict(manifest.statuses),
            reasons=dict(manifest.reasons),
            report=f"{self.job.run.dest.url}/report.html",
            table=f"{self.job.run.dest.url}/severity.parquet",
            max_failed=manifest.max_failed,
            max_out_of_scope=manifest.max_out_of_scope,
            max_missing=manifest.max_missing,
            hide_keys=manifest.hide_keys,
            dicom=dict(manifest.dicom),
            grades={name: manifest.grades[name] for name in GRADES if name in manifest.grades},
            changed=changes(self.job.run, manifest),
            start_s=self.start_s,
            score_s=self.score_s,
            publish_s=time.monotonic() - start,
        )
