"""What every command shows: progress, tables, JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def progress_line(what: str) -> Callable[[int, int], None]:
    """Return what is called with done and total: a line that is rewritten on a terminal, one per 30 s elsewhere."""
    state = {"start": time.monotonic(), "said": time.monotonic()}
    terminal = sys.stderr.isatty()

    def tell(done: int, total: int) -> None:
        now = time.monotonic()
        if now - state["said"] < (0.2 if terminal else 30) and not (terminal and done == total):
            return
        state["said"] = now
        rate = done / max(now - state["start"], 1e-9)
        line = f"{done}/{total} {what}, {rate:.1f}/s, {(total - done) / rate:.0f} s left"
        end = "\n" if done == total or not terminal else ""
        print(f"\r{line}   " if terminal else line, end=end, file=sys.stderr, flush=True)

    return tell
