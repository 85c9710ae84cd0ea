"""Processes that outlive whoever starts them: known again by pid and start time, stopped with all that they started.

In: what was recorded. Out: what of it still runs. Nothing is looked up by name, and a pid that another process has
now is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MARK = "COVSEG_UP"  # in the environment of everything that one `covseg up` starts
GRACE_S = 40.0  # Ray takes up to 30 to hand over what it holds
PROC = Path("/proc")


class Process(NamedTuple):
    """A process, and when it began, in clock ticks since the machine did: together they are given once."""

    pid: int
    began: int


class _Seen(NamedTuple):
    process: Process
    parent: int
    session: int


def supported() -> bool:
    """Tell whether this system says of a process when it began."""
    return (PROC / "self" / "stat").is_file()


def boot() -> str:
    """Return what names the time since this machine started; pids and start times hold within it."""
    return (PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()


def start(command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> Process:
    """Start a command in a session of its own, which a Ctrl-C in this terminal does not reach."""
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603
            command, env=environment, cwd=folder, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    child.returncode = 0  # it is to outlive this process: no warning when the object goes
    seen = _look(child.pid)
    return seen.process if seen else Process(child.pid, 0)


def alive(process: Process) -> bool:
    """Tell whether this very process still runs."""
    seen = _look(process.pid)
    return seen is not None and seen.process == process


def family(leaders: Iterable[Process], mark: str) -> set[Process]:
    """Return what the leaders started and still runs, they among it.

    It is in a leader's session, or descends from one that is, or has the mark in its environment.
    """
    seen = {one.process.pid: one for one in map(_look, _pids()) if one}
    # A leader's pid that another process has now leads nothing of ours.
    sessions = {one.pid for one in leaders if one.pid not in seen or seen[one.pid].process == one}
    ours = {pid for pid, one in seen.items() if one.session in sessions or _marked(pid, mark)}
    while more := {pid for pid, one in seen.items() if one.parent in ours} - ours:
        ours |= more
    return {seen[pid].process for pid in ours - {os.getpid()}}


def stop(leader: Process, followers: Collection[Process], everyone: bool = False) -> int:
    """Ask a leader to end, wait, and end what is left by force; return how many processes were stopped.

    Parameters
    ----------
    followers : Collection[Process]
        What it started: ended by force when it outlives its leader's end.
    everyone : bool
        Ask the followers too, at once.
    """
    all_of_it = {process for process in {leader, *followers} if alive(process)}
    _signal(all_of_it if everyone else all_of_it & {leader}, signal.SIGTERM)
    _await(all_of_it if everyone else {leader}, GRACE_S)
    _await(all_of_it, 2.0)
    _signal(all_of_it, signal.SIGKILL)
    _await(all_of_it, 5.0)
    return len(all_of_it)


def _signal(processes: Iterable[Process], number: int) -> None:
    for process in processes:
        if alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _await(processes: Collection[Process], seconds: float) -> None:
    until = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < until:
        time.sleep(0.1)


def _pids() -> list[int]:
    return [int(folder.name) for folder in PROC.glob("[0-9]*")]


def _look(pid: int) -> _Seen | None:
    """Return what the system says of a process; None when it is gone, or ended and only not yet counted as such."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    if fields[0] in "ZX":
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return None
    return _Seen(Process(pid, int(fields[19])), int(fields[1]), int(fields[3]))


def _marked(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
