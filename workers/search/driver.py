"""The driver of a search: asks the study, starts trials on Ray, judges their epochs, and tells how they ended.

In: settings. Out: the folder, filled (`workers.search.records`). The folder of a trial is written before the study is
told, so a driver that is killed anywhere and started again goes on with the same trials under the same numbers. Of
several drivers each begins trials in its turn and holds the lock of those that it runs; what one leaves, another takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import ray
from ray.exceptions import NodeDiedError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from covseg.errors import Stopped, TrainingFailed
from covseg.training.job import TrainingJob
from workers.cluster import Handle
from workers.search import trial as trials
from workers.search.cost import gflop
from workers.search.index import Index
from workers.search.leases import claim, turn
from workers.search.plan import SearchPlan
from workers.search.records import TrialRecord, progress_of, record_of, trial_folder, trial_recipe, write_trial
from workers.search.trial import TrialEnd, Verdict

CRASHES = 2  # of one trial, then it has failed
FAILURES = 5  # of trials in a row, then the search stops
LISTEN_S = 0.1
ALONE_S = 1.0  # between two looks for trials that another driver left


@dataclass(frozen=True)
class SearchHooks:
    """What the caller wants to hear, and whether it wants the search to stop.

    Parameters
    ----------
    changed : callable
        (record) when a trial begins, ends an epoch, or ends.
    stop : callable
        True ends the search: its trials save their state and stop.
    note : callable
        (line) of what happens after the trials.
    """

    changed: Callable[[TrialRecord], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False
    note: Callable[[str], None] = lambda _: None


@dataclass
class _Running:
    """A trial that runs: its record, when this start of it began, and what the driver wants of it."""

    record: TrialRecord
    begun: float
    verdict: Verdict = field(default_factory=lambda: Verdict(False, 0))
    pruned: bool = False


@dataclass
class Driver:
    """Drives the trials of a search until all have ended.

    Parameters
    ----------
    job : TrainingJob
        Of every trial, but for its folder: `out` is the search's.
    count, parallel : int
        Trials in all, and at once.
    cores, gpus
        Of each.
    task : callable
        What a trial does; a benchmark puts something trivial here.
    """

    plan: SearchPlan
    job: TrainingJob
    index: Index
    count: int
    parallel: int
    cores: int
    gpus: float
    hooks: SearchHooks
    task: Callable[..., TrialEnd] = trials.run_trial
    _running: dict[Any, _Running] = field(default_factory=dict)
    _claims: dict[int, TextIO] = field(default_factory=dict)  # locks of the trials that this driver began or took
    _look: float = 0.0  # when to look next for a trial to begin or to take
    _failed: list[str] = field(default_factory=list)  # reasons of the last trials in a row
    _lost: list[TrialRecord] = field(default_factory=list)  # to be started again

    def drive(self) -> None:
        """Run all trials.

        Raises
        ------
        Stopped
            When asked to; the states are saved.
        TrainingFailed
            When `FAILURES` trials in a row failed; the message has the last one's reason.
        """
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # any may be lost
        board = ray.remote(trials.TrialBoard).options(num_cpus=0, scheduling_strategy=here).remote()
        try:
            self._drive(board)
        finally:
            for lock in self._claims.values():
                lock.close()
            self._claims.clear()

    def _drive(self, board: Handle) -> None:
        while True:
            stopping = self.hooks.stop() or len(self._failed) >= FAILURES
            while not stopping and len(self._running) < self.parallel and (record := self._next()):
                self._launch(record, board)
            if not self._running:
                if stopping or not self.index.stand().running:
                    break
                time.sleep(LISTEN_S)  # other drivers run the rest
                continue
            self._listen(board, stopping)
            ready, _ = ray.wait(list(self._running), timeout=LISTEN_S)
            for task in ready:
                self._ended(task)
        if len(self._failed) >= FAILURES:
            raise TrainingFailed(
                f"{FAILURES} trials in a row failed, the last with: {self._failed[-1]}. Mend that, or narrow the "
                "space; the same command goes on"
            )
        if self._left():
            raise Stopped("the search is stopped, its trials' states are saved; the same command goes on")

    def _out(self) -> Path:
        return self.job.out

    def _left(self) -> bool:
        stand = self.index.stand()
        return bool(self._lost or stand.running or stand.begun < self.count)

    def _next(self) -> TrialRecord | None:
        """Return a trial to start: one of ours that lost its process, one that a driver left, or a new one."""
        if self._lost:
            return self._lost.pop(0)
        if time.monotonic() < self._look:
            return None
        with turn(self._out()):
            stand = self.index.stand()
            if (left := self._left_behind(stand.running)) or stand.begun >= self.count:
                self._look = 0.0 if left else time.monotonic() + ALONE_S
                return left
            number = self.index.ask()
            self._claim(number)
            return self._begin(number)

    def _claim(self, number: int) -> bool:
        lock = claim(self._out(), number)
        if lock:
            self._claims[number] = lock
        return lock is not None

    def _left_behind(self, running: Sequence[int]) -> TrialRecord | None:
        """Take a trial that a driver left running; tell the study of those that had ended."""
        for number in running:
            if number in self._claims or not self._claim(number):
                continue
            record = record_of(self._out(), number) or self._begin(number)
            self.index.report(record)
            if record.state == "running" and not self.index.lags(number):
                return record
            if record.state == "running":
                self._judged(record, TrialEnd("stopped"), pruned=True)
            else:
                self._told(record)
        return None

    def _begin(self, number: int) -> TrialRecord:
        point = self.index.point(number)
        recipe = self.plan.at(point)
        record = TrialRecord(
            number=number, state="running", point=point, epochs=recipe.stop.epochs, gflop=round(gflop(recipe), 4)
        )
        write_trial(self._out(), record, recipe)
        return record

    def _launch(self, record: TrialRecord, board: Handle) -> None:
        recipe = trial_recipe(self._out(), record.number)
        job = replace(self.job, out=trial_folder(self._out(), record.number), resume=True)
        start = ray.remote(self.task).options(num_cpus=self.cores, num_gpus=self.gpus, max_retries=0)
        task = start.remote(record.number, recipe, job, self.cores, "cuda:0" if self.gpus else "cpu", board)
        self._running[task] = _Running(record, time.monotonic())
        self.hooks.changed(record)

    def _listen(self, board: Handle, stopping: bool) -> None:
        """Report what the trials' folders have, and judge it."""
        posted = dict(ray.get(board.read.remote()))  # of a trial the newest epoch
        for run in self._running.values():
            number = run.record.number
            if number in posted:
                self._take(run)
                run.pruned = run.pruned or self.index.lags(number)
            run.verdict = Verdict(stopping or run.pruned, posted.get(number, run.verdict.judged))
        ray.get(board.judge.remote({run.record.number: run.verdict for run in self._running.values()}))

    def _take(self, run: _Running) -> None:
        self.index.report(run.record)
        values = progress_of(self._out(), run.record, self.plan.metric)
        run.record = run.record.model_copy(update={"value": max(values.values(), default=None)})
        self.hooks.changed(run.record)

    def _ended(self, task: Any) -> None:
        run = self._running.pop(task)
        self._take(run)
        seconds = run.record.seconds + time.monotonic() - run.begun
        record = run.record.model_copy(update={"seconds": round(seconds, 2)})
        try:
            end = ray.get(task)
        except RayError as error:
            self._crashed(record, error)
            return
        self._judged(record, end, run.pruned)

    def _crashed(self, record: TrialRecord, error: RayError) -> None:
        """Start a trial again whose process was lost; the second time it failed. A lost machine is not its fault."""
        crashes = record.crashes + (not isinstance(error, NodeDiedError))
        record = record.model_copy(update={"crashes": crashes})
        if crashes < CRASHES:
            write_trial(self._out(), record)
            self._lost.append(record)
            return
        cause = error.cause if isinstance(error, RayTaskError) else error
        self._judged(record, TrialEnd("failed", f"{type(cause).__name__}: {cause}".splitlines()[0][:300]), pruned=False)

    def _judged(self, record: TrialRecord, end: TrialEnd, pruned: bool) -> None:
        """Write how a trial ended, then tell the study; one that was stopped with the search stays as it is."""
        if end.kind == "failed":
            record = record.model_copy(update={"state": "failed", "reason": end.reason})
            self._failed.append(end.reason)
        elif end.kind == "stopped":
            record = record.model_copy(update={"state": "pruned" if pruned else "running"})
        else:
            record = record.model_copy(update={"state": "complete"})
        write_trial(self._out(), record)
        if record.state == "running":
            return
        if record.state != "failed":
            self._failed.clear()
        self._told(record)
        self.hooks.changed(record)

    def _told(self, record: TrialRecord) -> None:
        self.index.tell(record)
        if lock := self._claims.pop(record.number, None):
            lock.close()
