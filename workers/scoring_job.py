"""What runs as a Ray job: one scoring by its settings, for as long as somebody holds the lease that asks for it.

``python -m workers.scoring_job SETTINGS LEASE STALE_S``; `workers.jobs` submits it. Out: JSON lines on stdout, which is
the job's log: what `workers.telemetry` tells, and events ``progress``, ``summary`` or ``failed``. None names an image.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from pydantic import ValidationError

from covseg.archive.lease import await_end, lease_key
from covseg.errors import EnvironmentFailed, UsageError, without_names
from covseg.settings.score import ScoreSettings
from covseg.storage import Store, open_store
from workers.scoring import score_archive
from workers.summary import Progress
from workers.telemetry import json_lines

GRACE_S = 5.0  # to stop by itself, before it is ended


def run(words: Sequence[str]) -> int:
    """Score, say what came of it, and return the exit code."""
    lease, stale_s = words[1], float(words[2])
    signal.signal(signal.SIGTERM, _interrupt)
    done = threading.Event()
    try:
        settings = _settings(words[0])
        dest = open_store(settings.dest)
        _check(dest, lease)
        threading.Thread(target=_end_with, args=(dest, lease, stale_s, done), daemon=True).start()
        with json_lines(sys.stdout):
            summary = score_archive(settings, _tell)
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    except Exception as error:  # noqa: BLE001 - who submitted the job is told
        failure = without_names(error)
        _say("failed", kind=type(failure).__name__, message=str(failure))
        return failure.exit_code
    finally:
        done.set()
    _say("summary", summary=vars(summary))
    return summary.exit_code


def _settings(given: str) -> ScoreSettings:
    try:
        return ScoreSettings.model_validate_json(given)
    except ValidationError as error:
        fields = sorted({str(found["loc"][0]) for found in error.errors() if found["loc"]})
        raise EnvironmentFailed(
            f"the job does not take the settings {', '.join(fields)}: another covseg runs on the cluster; install the "
            "same covseg on both"
        ) from None


def _check(dest: Store, lease: str) -> None:
    try:
        dest.read(lease_key(lease))
    except FileNotFoundError:
        raise UsageError(
            f"the job finds no {lease_key(lease)} in {dest.url}: wanted a DEST that the cluster and who submits to it "
            "see alike, such as a bucket"
        ) from None


def _end_with(dest: Store, lease: str, stale_s: float, done: threading.Event) -> None:
    """End this process with the lease: asked first, then by force."""
    if why := await_end(dest, lease, done, stale_s):
        _say("stopping", why=f"the lease of who asked for the job {why}")
        os.kill(os.getpid(), signal.SIGTERM)
        if not done.wait(GRACE_S):
            os._exit(EnvironmentFailed.exit_code)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _tell(progress: Progress) -> None:
    _say("progress", progress={name: value for name, value in vars(progress).items() if name != "lost"})


def _say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)  # noqa: T201 - the job's log


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
