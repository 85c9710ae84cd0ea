"""A scoring as a Ray job: submitted once, followed to its end, and stopped with whoever asked for it.

In: settings, and the address of a cluster's job server (``http://HEAD:8265``, Ray's dashboard). Out: the summary. The
submission id follows from the settings, so who asks again while the job runs follows that job. Who follows holds a
lease in DEST; a job whose lease is given up, or is not renewed, ends itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import queue
import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from covseg.archive import hold_lease
from covseg.archive.lease import EVERY_S, STALE_S
from covseg.errors import EnvironmentFailed, named
from covseg.settings.score import ScoreSettings
from covseg.storage import open_store
from workers.scheduler import Tell
from workers.summary import Progress, Summary

REPLY_S = 20.0  # for one answer of the job server
OUTAGE_S = 120.0  # without any answer, before the run gives up
LOOK_S = 15.0  # of silence, after which the job is asked for its state

Note = Callable[[str], None]


def job_server() -> str:
    """Return ``RAY_ADDRESS`` where it is an address that jobs are submitted to, and not one that drivers join."""
    address = os.environ.get("RAY_ADDRESS", "")
    return address if address.startswith(("http://", "https://")) else ""


class _Client(JobSubmissionClient):
    """Ray's client with a deadline, and with errors of the tree."""

    def __init__(self, address: str) -> None:
        try:
            super().__init__(address)
        except (OSError, RuntimeError, AuthenticationError) as error:
            raise EnvironmentFailed(
                f"no Ray job server at {address} ({type(error).__name__}): check RAY_ADDRESS, RAY_AUTH_MODE and the "
                "token; a driver's address is HOST:PORT, without http://"
            ) from None
        if self._server_ray_version != ray.__version__:
            raise EnvironmentFailed(
                f"the cluster at {address} runs Ray {self._server_ray_version}, wanted {ray.__version__}: "
                "install the same covseg on both"
            )

    def _do_request(self, *given: Any, **more: Any) -> requests.Response:
        return super()._do_request(*given, **{"timeout": REPLY_S} | more)


def job_name(settings: ScoreSettings) -> str:
    """Return what the submission ids of a scoring begin with; `settings` are absolute."""
    return f"covseg-score-{hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:16]}"


def score_by_job(
    settings: ScoreSettings,
    address: str,
    tell: Tell = lambda _: None,
    note: Note = lambda _: None,
    owner: str = "",
    stale_s: float = STALE_S,
) -> Summary:
    """Have the job server at `address` score; submit a job, or follow the one that is at it.

    Parameters
    ----------
    settings : ScoreSettings
        With absolute paths, which mean the same on the cluster.
    address : str
        ``http://HOST:8265``. Ray's own rule holds: ``RAY_ADDRESS``, where it is set, is taken in its place.
    tell : callable
        Called with the job's progress.
    note : callable
        Called with the job's other lines: JSON, without names of images.
    owner : str
        Who asks; the same one that asks again gets the summary of the job that ended meanwhile.
    stale_s : float
        Seconds without a renewed lease after which the job ends itself.

    Raises
    ------
    CovsegError
        What ended the job; `EnvironmentFailed` when it, or the cluster, is gone.
    """
    client, dest, name = _Client(address), open_store(settings.dest), job_name(settings)
    dest.check()
    with hold_lease(dest, name, min(EVERY_S, stale_s / 5)):
        while True:
            submission, ours = _attach(client, settings, name, owner, stale_s)
            note(json.dumps({"event": "submitted" if ours else "followed", "job": submission}))
            end = _follow(client, submission, tell, note)
            if end["event"] == "summary":
                return Summary(**end["summary"])
            if end["event"] == "failed":
                raise named(end["kind"], end["message"])
            if ours:
                raise EnvironmentFailed(
                    f"Ray job {submission} {end['why']}: is covseg installed for `python` on the head, and "
                    f"is that machine alive? ray job logs {submission} says more; run again to resume"
                )
            owner = ""  # it was stopped, or on its way down with the lease of another: the next one is ours


def stop(settings: ScoreSettings, address: str) -> None:
    """Stop the job of these settings, if one is under way."""
    client = _Client(address)
    for job in _jobs(client, job_name(settings)):
        if not job.status.is_terminal():
            client.stop_job(str(job.submission_id))


def _jobs(client: _Client, name: str) -> list[JobDetails]:
    """Return the jobs of a name, oldest first."""
    found = [job for job in client.list_jobs() if (job.submission_id or "").startswith(f"{name}-")]
    return sorted(found, key=lambda job: int(str(job.submission_id).rpartition("-")[2]))


def _attach(client: _Client, settings: ScoreSettings, name: str, owner: str, stale_s: float) -> tuple[str, bool]:
    """Return the id of the job to follow, and whether this call submitted it."""
    jobs = _jobs(client, name)
    last = jobs[-1] if jobs else None
    if last and (not last.status.is_terminal() or (owner and (last.metadata or {}).get("owner") == owner)):
        return str(last.submission_id), False
    number = 1 + (int(str(last.submission_id).rpartition("-")[2]) if last else 0)
    words = ["python", "-m", "workers.scoring_job", settings.model_dump_json(), name, str(stale_s)]
    try:
        client.submit_job(
            entrypoint=shlex.join(words), submission_id=f"{name}-{number}", metadata={"owner": owner} if owner else {}
        )
    except RuntimeError as error:
        if "already exists" not in str(error):
            raise EnvironmentFailed(f"the Ray cluster took no job: {str(error)[:300]}") from None
        return f"{name}-{number}", False  # another one asked at the same moment
    return f"{name}-{number}", True


def _follow(client: _Client, submission: str, tell: Tell, note: Note) -> dict[str, Any]:
    """Pass on what the job says until it ends; return its last event. Stop it when this call is interrupted."""
    end: dict[str, Any] = {"event": "gone", "why": "ended without a word"}
    try:
        for line in _lines(client, submission):
            event = _event(line)
            match event.get("event"):
                case None:
                    continue
                case "progress":
                    tell(_progress(event["progress"]))
                    continue
                case "summary" | "failed":
                    end = event
                    continue
                case "stopping":
                    end = {"event": "gone", "why": f"ended itself, because {event['why']}"}
            note(line)
    except BaseException:
        with contextlib.suppress(Exception):
            client.stop_job(submission)
        raise
    return end


def _event(line: str) -> dict[str, Any]:
    """Return what our job says in a line; nothing of a line of Ray's own, which may say anything."""
    with contextlib.suppress(ValueError):
        if isinstance(event := json.loads(line), dict):
            return event
    return {}


def _progress(fields: dict[str, Any]) -> Progress:
    counts = {name: Counter(fields[name]) for name in ("statuses", "reasons")}
    return Progress(**{**fields, **counts})


def _lines(client: _Client, submission: str) -> Iterator[str]:
    """Yield the job's log line by line until it has ended, also where the connection to it breaks."""
    passed, answered = 0, time.monotonic()
    while True:
        with contextlib.closing(_tail(client, submission)) as lines:
            for number, line in enumerate(lines):
                if number >= passed:
                    passed += 1
                    yield line
        try:
            if client.get_job_status(submission).is_terminal():
                yield from client.get_job_logs(submission).split("\n")[passed:]
                return
            answered = time.monotonic()
        except (OSError, RuntimeError):
            if time.monotonic() - answered > OUTAGE_S:
                raise EnvironmentFailed(
                    f"the Ray job server did not answer for {OUTAGE_S:.0f} s while {submission} ran: look at the "
                    "cluster's head, then run again to resume"
                ) from None
        time.sleep(1)


def _tail(client: _Client, submission: str) -> Generator[str]:
    """Yield whole lines of the job's log from its beginning, until the connection ends or is silent for `LOOK_S`."""
    lines, loop = queue.SimpleQueue[str | None](), asyncio.new_event_loop()

    async def pull() -> None:
        rest = ""
        async for chunk in client.tail_job_logs(submission):
            *whole, rest = (rest + chunk).split("\n")
            for line in whole:
                lines.put(line)

    task = loop.create_task(pull())

    def work() -> None:
        with contextlib.suppress(Exception, asyncio.CancelledError):  # broken off: who reads asks for the job's state
            loop.run_until_complete(task)
        lines.put(None)
        loop.close()

    # A thread, because a signal's exception is to meet a wait of ours, not asyncio's.
    threading.Thread(target=work, name="job-log", daemon=True).start()
    try:
        with contextlib.suppress(queue.Empty):
            while (line := lines.get(timeout=LOOK_S)) is not None:
                yield line
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(task.cancel)
