"""What a person sees of every command: results on stdout, progress and messages on stderr; no other file prints.

On a terminal progress is a live bar; elsewhere it is one plain line per 30 s. Lines of data are never wrapped, cut or
coloured, so that a pipe gets them whole.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

LIVE_S, PLAIN_S = 0.2, 30.0  # between two updates
WIDEST = 10_000  # columns of characters: rich would cut a table at 80 where there is no terminal


class Report(Protocol):
    """What long work calls with how far it is."""

    def __call__(self, done: int, total: int, detail: str = "") -> None:
        """Show `done` of `total`, and a few words more."""


def show(*lines: str) -> None:
    """Print lines of a result on stdout."""
    for line in lines:
        print(line, flush=True)


def show_json(document: object) -> None:
    """Print a result as one line of JSON on stdout."""
    show(json.dumps(document))


def show_result(document: object, lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result for a program, or for a person."""
    show_json(document) if as_json else show(*lines)


def show_values(values: Mapping[str, object], *, as_json: bool = False) -> None:
    """Print named values: aligned lines, counts of a nested mapping below one another; or one JSON document."""
    if as_json:
        show_json(values)
        return
    for name, value in values.items():
        if isinstance(value, Mapping) and not value:
            continue
        if isinstance(value, Mapping):
            show(f"{name:>14}", *(f"{inner:>30}  {count}" for inner, count in value.items()))
        else:
            show(f"{name:>14}  {value}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Lay rows in columns as wide as their widest cell: `words` columns start left, those of numbers end right."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False)
    for number, name in enumerate(header):
        grid.add_column(name, justify="left" if number < words else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console = Console(width=WIDEST, color_system=None, force_terminal=False, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(grid)
    return [line.rstrip() for line in capture.get().splitlines()]


def note(message: str) -> None:
    """Say on stderr what a person wants to know and a pipe does not."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print an error or a warning on stderr, with the command's name."""
    note(f"covseg: {message}")


@contextlib.contextmanager
def progress(what: str) -> Iterator[Report]:
    """Show how far work is while the context is open; `what` is what is counted: images, steps."""
    if sys.stderr.isatty():
        with _live(what) as report:
            yield report
    else:
        yield _plain(what)


def _plain(what: str) -> Report:
    start = shown = time.monotonic()
    before = -1  # done when the work began, which a resumed one did not at 0

    def call(done: int, total: int, detail: str = "") -> None:
        nonlocal shown, before
        before, now = done - 1 if before < 0 else before, time.monotonic()
        if now - shown < PLAIN_S:
            return
        shown, rate = now, (done - before) / (now - start)
        line = f"{done}/{total} {what}, {rate:.1f}/s, {(total - done) / rate:.0f} s left"
        note(f"{line}, {detail}" if detail else line)

    return call


@contextlib.contextmanager
def _live(what: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.description} {task.fields[detail]}", markup=False)
    columns = (BarColumn(), MofNCompleteColumn(), words, TimeRemainingColumn())
    shown = 0.0
    # No thread refreshes it: what runs meanwhile may fork.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=None, detail="")

        def call(done: int, total: int, detail: str = "") -> None:
            nonlocal shown
            if time.monotonic() - shown >= LIVE_S or done == total:
                shown = time.monotonic()
                bar.update(task, completed=done, total=total, detail=detail, refresh=True)

        yield call
