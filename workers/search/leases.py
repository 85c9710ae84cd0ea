"""Who drives a search, and which of its trials: locks on files of its folder.

The system gives a lock back when the process ends, however it ends: there is nothing to expire and no clock. Drivers
on several machines want a shared file system that has ``flock``, as NFS 4 does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from covseg.errors import UsageError
from workers.search.records import SEARCH, trial_folder

LEASE, TURN, CLAIM = "lease", "turn", ".driver"


@contextlib.contextmanager
def lease(out: Path, shared: bool = False) -> Iterator[None]:
    """Hold the search's folder, made if need be; one that got no search is removed again.

    Parameters
    ----------
    shared : bool
        Beside other drivers that share it too; else alone.

    Raises
    ------
    UsageError
        When a driver holds it that does not share it, or any where it is wanted alone.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LEASE).open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise UsageError(
                f"{out} is driven by {file.read() or 'another process'}: one driver a search, unless all have the same "
                "--storage postgresql://... Wait for it, stop it with Ctrl-C, or choose another --out; more trials at "
                "once are --parallel"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            if not (out / SEARCH).exists():
                for name in (LEASE, TURN):
                    (out / name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    out.rmdir()


@contextlib.contextmanager
def turn(out: Path) -> Iterator[None]:
    """Wait until no other driver begins or takes over a trial, and keep the others from it."""
    with (out / TURN).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def claim(out: Path, number: int) -> TextIO | None:
    """Return the lock of a trial, held until it is closed; None where another driver holds it."""
    folder = trial_folder(out, number)
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / CLAIM).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
