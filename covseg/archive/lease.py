"""A lease: an object in DEST that who works, or asked for the work, renews; without renewals it is stale.

A run holds one, and gc leaves alone what was written since a live run began. A flow that has a run done as a Ray job
holds one too, and the job ends with it.
"""

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
from covseg.storage import Store, entries

FOLDER = "leases/"
EVERY_S, STALE_S = 60.0, 600.0  # between two renewals; without one for so long, its holder is taken for dead
LOOK_S = 3.0  # between two looks at another's lease
MARGIN_S = 120.0  # a renewal may be on its way so long, the deadline of a write


class LeaseRecord(Record):
    """``leases/<name>.json``: how long its holder was at work when the store last heard of it."""

    format: Literal[1] = 1
    age_s: float = Field(description="seconds; with the object's own time, when the work began by the store's clock")


def lease_key(name: str) -> str:
    """Return the key of a lease in DEST."""
    return f"{FOLDER}{name}.json"


@contextlib.contextmanager
def hold_lease(dest: Store, name: str, every_s: float = EVERY_S) -> Iterator[None]:
    """Hold a lease, renewed every `every_s` seconds by a thread, and give it up at the end.

    `name` is unique to the holder: a run's attempt id. A renewal that fails is left to the next one: whether the
    store answers, the run itself finds out.
    """
    key, start, done = lease_key(name), time.monotonic(), threading.Event()
    dest.write(key, LeaseRecord(age_s=0).encode())

    def renew() -> None:
        while not done.wait(every_s):
            with contextlib.suppress(CovsegError, OSError):
                dest.write(key, LeaseRecord(age_s=round(time.monotonic() - start, 1)).encode())

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(CovsegError, OSError):
            dest.delete(key)


def await_end(dest: Store, name: str, done: threading.Event, stale_s: float = STALE_S, look_s: float = LOOK_S) -> str:
    """Wait until another's lease ends; return why, in words, and nothing once `done` is set.

    It is stale when it was not seen to change for `stale_s` seconds of this process, whatever clocks say; a store
    that does not answer shows no change.
    """
    seen, since = b"", time.monotonic()
    while not done.wait(look_s):
        lease = seen
        try:
            lease = dest.read(lease_key(name))
        except FileNotFoundError:
            return "was given up"
        except (CovsegError, OSError):
            pass
        if lease != seen:
            seen, since = lease, time.monotonic()
        elif time.monotonic() - since > stale_s:
            return f"was not renewed for {stale_s:.0f} s"
    return ""


def live_since(run: Run, now: float) -> float:
    """Return when the earliest live run of a destination began, seconds since 1970; infinity without one."""
    starts = [float("inf")]
    for entry in entries(run.dest, FOLDER):
        with contextlib.suppress(FileNotFoundError):  # given up meanwhile
            age_s = read_record(run.dest, entry.key, LeaseRecord).age_s
            if entry.modified > now - STALE_S:
                starts.append(entry.modified - age_s - MARGIN_S)
    return min(starts)
