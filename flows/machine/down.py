"""Stop what ``covseg up`` started on this machine, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from flows.machine import processes, state
from flows.machine.state import PARTS, Record


def down(folder: Path, say: Callable[[str], None]) -> dict[str, int]:
    """Stop all that was started there; return for each part how many processes it had, of 0 ended before.

    Nothing was started, or it was stopped already: empty.
    """
    if not folder.is_dir():
        return {}
    with state.locked(folder):
        record = state.read(folder)
        return stop_parts(folder, record, PARTS, say) if record else {}


def stop_parts(
    folder: Path, record: Record, parts: tuple[str, ...] | list[str], say: Callable[[str], None]
) -> dict[str, int]:
    """Stop parts in the reverse of their order: the worker with its runs, Ray, the server; forget them."""
    stopped: dict[str, int] = {}
    for part in reversed(PARTS):
        if part not in parts or part not in record.started:
            continue
        say(f"stopping {part}")
        leader = record.started[part]
        if record.boot == processes.boot():
            # The worker's runs are told at once, while Ray and the server are there to hear of their end.
            stopped[part] = processes.stop(leader, processes.family([leader], ""), everyone=part == "worker")
        del record.started[part]
        state.write(folder, record)
    if not record.started:
        left = processes.family([], record.mark) if record.boot == processes.boot() else set()
        if left:  # outlived a leader that was killed
            stopped["others"] = sum(processes.stop(process, [], everyone=True) for process in left)
        shutil.rmtree(record.ray_folder, ignore_errors=True)
        (folder / state.RECORD).unlink(missing_ok=True)
    return stopped
