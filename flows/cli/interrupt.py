"""Ctrl-C of a command whose work can be stopped with its state saved."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from flows.cli.console import note


def on_interrupt(words: str) -> Callable[[], bool]:
    """Let Ctrl-C say `words` and ask for a stop; return what tells whether it did. A second one ends the process."""
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        note(f"\n{words}")

    signal.signal(signal.SIGINT, stop)
    return lambda: stopping


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does: what it began is stopped, what is whole stays."""
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
