"""``covseg publish``: table and report of a destination, from what is committed there."""

from __future__ import annotations

import uuid
from typing import Literal

from pydantic import Field

from covseg.errors import NotPublished
from covseg.settings.score import ScoreSettings
from flows.cli.acceptance import warn_of_snapshot
from flows.cli.console import show_values
from flows.cli.options import Destination, same


class PublishConfig(Destination):
    """What `covseg publish` can be told; a snapshot that exists keeps the answers it was published with."""

    max_failed: float = same(ScoreSettings, "max_failed")
    max_out_of_scope: float = same(ScoreSettings, "max_out_of_scope")
    max_missing: float = same(ScoreSettings, "max_missing")
    hide_keys: bool = Field(False, description="Leave the source keys out of the published table.")
    title: str = same(ScoreSettings, "title")
    source_label: str = same(ScoreSettings, "source_label")
    overlay: Literal["none", "report"] = same(ScoreSettings, "overlay")
    pictures: int = Field(500, ge=0, le=500, description="Images drawn into the report; 0 does not touch the source.")


def publish(config: PublishConfig) -> int:
    """Publish a destination whose shards are all committed, or rebuild the files of its newest snapshot."""
    from covseg import archive
    from covseg.storage import open_source

    run = archive.load_run(*config.stores())
    plan = archive.newest_plan(run)
    if plan is None:
        raise NotPublished(f"{config.dest} has no plan yet: run covseg score")
    if plan.published:
        manifest = archive.rebuild(run, plan)
    else:
        source = open_source(plan.source) if config.pictures else None
        options = archive.PublishOptions(
            config.max_failed, config.hide_keys, config.pictures, config.max_out_of_scope, config.max_missing,
            config.title, config.source_label, config.overlay == "report",
        )  # fmt: skip
        manifest = archive.publish(run, plan, options, source, uuid.uuid4().hex)
    counts = {"snapshot": manifest.number, "images": sum(manifest.statuses.values()), **manifest.statuses}
    verdict = {"accepted": manifest.accepted, "published_by": manifest.published_by}
    show_values({**counts, **verdict}, as_json=config.json_)
    warn_of_snapshot(manifest, manifest.number, config)
    return 0 if manifest.accepted else 3
