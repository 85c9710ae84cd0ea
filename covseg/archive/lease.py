"""A run's lease: an object that it renews while it works; gc leaves alone what was written since a live run began."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from covseg.archive.records import Record, read_record
from covseg.archive.runs import Run
from covseg.errors import CovsegError
from covseg.storage import entries

FOLDER = "leases/"
EVERY_S, STALE_S = 60.0, 600.0  # between two renewals; without one for so long, its run is taken for dead
MARGIN_S = 120.0  # a renewal may be on its way so long, the deadline of a write


class LeaseRecord(Record):
    """``leases/<attempt>.json``: how long its run was at work when the store last heard of it."""

    format: Literal[1] = 1
    age_s: float = Field(description="seconds; with the object's own time, when the run began by the store's clock")


@contextlib.contextmanager
def hold_lease(run: Run, attempt: str, every_s: float = EVERY_S) -> Iterator[None]:
    """Hold the lease of an attempt, renewed every `every_s` seconds by a thread, and give it up at the end.

    A renewal that fails is left to the next one: whether the store answers, the run itself finds out.
    """
    name, start, done = f"{FOLDER}{attempt}.json", time.monotonic(), threading.Event()
    run.dest.write(name, LeaseRecord(age_s=0).encode())

    def renew() -> None:
        while not done.wait(every_s):
            with contextlib.suppress(CovsegError, OSError):
                run.dest.write(name, LeaseRecord(age_s=round(time.monotonic() - start, 1)).encode())

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(CovsegError, OSError):
            run.dest.delete(name)


def live_since(run: Run, now: float) -> float:
    """Return when the earliest live run of a destination began, seconds since 1970; infinity without one."""
    starts = [float("inf")]
    for entry in entries(run.dest, FOLDER):
        with contextlib.suppress(FileNotFoundError):  # given up meanwhile
            age_s = read_record(run.dest, entry.key, LeaseRecord).age_s
            if entry.modified > now - STALE_S:
                starts.append(entry.modified - age_s - MARGIN_S)
    return min(starts)
