"""``covseg score``: an archive through Ray, with a progress line; Prefect is never started."""

from __future__ import annotations

import contextlib
import shlex
import sys
from typing import Literal

from pydantic import Field

from covseg.errors import UsageError
from covseg.settings.score import ScoreSettings
from flows.cli.acceptance import warn_of_snapshot
from flows.cli.console import note, progress, show, show_values, warn
from flows.cli.interrupt import stop_on_sigterm
from flows.cli.options import Json, Options
from workers.summary import Summary


class ScoreConfig(ScoreSettings, Options):
    """What `covseg score` can be told, by flags or by a TOML file."""

    dry_run: bool = Field(False, description="Say what would be scored and what it would take, and stop.")
    log: Literal["text", "json"] = Field(
        "text", description="On stderr: how far it is, or a JSON line for each event, with run and shard, without keys."
    )
    price_hour: float | None = Field(None, ge=0, description="With --dry-run: dollars of one core for an hour.")
    as_if: int | None = Field(None, ge=1, description="With --dry-run: say it for N images like those found.")
    json_: Json = False


def score(config: ScoreConfig) -> int:
    """Score an archive on Ray: masks, table and report, published as a snapshot; run again to resume."""
    if config.dry_run:
        from workers.estimate import estimate

        found = estimate(config, config.price_hour, config.as_if)
        _show(found.model_dump(exclude_none=True), as_json=config.json_)
        return 0
    if config.price_hour is not None or config.as_if is not None:
        raise UsageError("--price-hour and --as-if belong to --dry-run: add it, or leave them out")
    try:
        settings = ScoreSettings(**config.model_dump(include=set(ScoreSettings.model_fields)))
        summary = run(settings, as_lines=config.log == "json")
    except KeyboardInterrupt:
        resume = shlex.join(["covseg", *sys.argv[1:]])
        warn(f"interrupted; finished shards are kept, resume with: {resume}")
        return 130
    _show(summary.as_dict(), as_json=config.json_)
    if not summary.mine and summary.finished:
        warn(f"snapshot {summary.snapshot} was published by attempt {summary.published_by}")
    warn_of_snapshot(summary, summary.snapshot, config)
    return summary.exit_code


def run(settings: ScoreSettings, *, as_lines: bool = False) -> Summary:
    """Score and publish, with progress on stderr, or with a JSON line for each event."""
    from workers.scoring import score_archive
    from workers.telemetry import json_lines

    # Ray tells of lost workers on stdout, which is for the summary alone.
    with stop_on_sigterm(), contextlib.redirect_stdout(sys.stderr):
        if as_lines:
            with json_lines(sys.stderr):
                return score_archive(settings, note=note)
        with progress("images") as report:
            return score_archive(settings, lambda done: report(done.finished, done.images, f"{done.refused} refused"))


def _show(values: dict[str, object], *, as_json: bool) -> None:
    show_values(values, as_json=as_json)
    if not as_json:
        show("Research use only, not for diagnosis.")
