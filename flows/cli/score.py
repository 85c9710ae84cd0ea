"""``covseg score``: an archive through Ray, with a progress line; Prefect is never started."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import Field

from covseg.errors import UsageError
from covseg.settings.score import ScoreSettings
from flows.cli.destinations import say_what_is_kept
from workers.summary import Progress, Summary


class ScoreConfig(ScoreSettings):
    """What `covseg score` can be told, by flags or by a TOML file."""

    dry_run: bool = Field(False, description="Say what would be scored and what it would take, and stop.")
    json_: Annotated[bool, Parameter(name="--json")] = Field(False, description="Print the summary as JSON.")


def score(config: Annotated[ScoreConfig, Parameter(name="*")]) -> int:
    """Score an archive on Ray: masks, table and report, published as a snapshot; run again to resume."""
    settings = ScoreSettings.model_validate(config.model_dump(exclude={"dry_run", "json_"}))
    if config.dry_run:
        from workers.estimate import estimate

        _tell(estimate(settings).model_dump(exclude_none=True), config.json_)
        return 0
    try:
        # Ray tells of lost workers on stdout, which is for the summary alone.
        with _stop_on_sigterm(), contextlib.redirect_stdout(sys.stderr):
            summary = _scoring()(settings, show_progress())
    except KeyboardInterrupt:
        resume = shlex.join(["covseg", *sys.argv[1:]])
        print(f"covseg: interrupted; finished shards are kept, resume with: {resume}", file=sys.stderr)
        return 130
    _tell(summary.as_dict(), config.json_)
    if not summary.mine and summary.finished:
        print(f"covseg: snapshot {summary.snapshot} was published by attempt {summary.published_by}", file=sys.stderr)
    say_what_is_kept(summary, summary.snapshot, hide_keys=settings.hide_keys, max_failed=settings.max_failed)
    if not summary.accepted:
        print(f"covseg: published, not accepted: {refused_share(summary)}", file=sys.stderr)
    return summary.exit_code


def refused_share(summary: Summary) -> str:
    """Say how many images were quarantined, and how many were allowed."""
    quarantined, scored = summary.statuses.get("quarantined", 0), summary.statuses.get("scored", 0)
    share = quarantined / max(quarantined + scored, 1)
    return f"{quarantined} images quarantined, {share:.1%} of the readable; allowed {summary.max_failed:.1%}"


def _scoring() -> Callable[[ScoreSettings, Callable[[Progress], None]], Summary]:
    try:
        from workers.scoring import score_archive
    except ModuleNotFoundError as error:
        raise UsageError(f"covseg score needs {error.name}: pip install 'covseg[ray,s3]'") from error
    return score_archive


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: workers stopped, shards committed or abandoned."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    kept = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


def show_progress() -> Callable[[Progress], None]:
    """Return what is called after every shard: a line on a terminal, one per 30 s elsewhere."""
    start = said = time.monotonic()
    terminal = sys.stderr.isatty()

    def tell(progress: Progress) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < (0.2 if terminal else 30):
            return
        said = now
        rate = progress.finished / (now - start)
        refused = progress.finished - progress.statuses["scored"]
        line = f"{progress.finished} of at most {progress.images} images, {rate:.1f}/s, {refused} refused"
        print(f"\r{line}   " if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    return tell


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>14}  {value}")
    print("Research use only, not for diagnosis.")
