"""``covseg publish``: table and report of a destination, from what is committed there."""

from __future__ import annotations

import sys
import uuid
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from covseg.errors import NotPublished
from flows.cli.destinations import Destination, say_what_is_kept


class PublishConfig(Destination):
    """What `covseg publish` can be told; a snapshot that exists keeps the answers it was published with."""

    max_failed: float = Field(0.05, ge=0, le=1, description="Share of quarantined images above which we exit with 3.")
    hide_keys: bool = Field(False, description="Leave the source keys out of the published table.")
    pictures: int = Field(500, ge=0, le=500, description="Images drawn into the report; 0 does not touch the source.")


def publish(config: Annotated[PublishConfig, Parameter(name="*")]) -> int:
    """Publish a destination whose shards are all committed, or rebuild the files of its newest snapshot."""
    from covseg.archive import PublishOptions, load_run, newest_plan, rebuild
    from covseg.archive import publish as publish_plan
    from covseg.storage import open_store

    run = load_run(*config.stores())
    plan = newest_plan(run)
    if plan is None:
        raise NotPublished(f"{config.dest} has no plan yet: run covseg score")
    if plan.published:
        manifest = rebuild(run, plan)
    else:
        source = open_store(plan.source) if config.pictures else None
        options = PublishOptions(config.max_failed, config.hide_keys, config.pictures)
        manifest = publish_plan(run, plan, options, source, uuid.uuid4().hex)
    config.tell({
        "snapshot": manifest.number, "images": sum(manifest.statuses.values()), **manifest.statuses,
        "accepted": manifest.accepted, "published_by": manifest.published_by,
    })  # fmt: skip
    say_what_is_kept(manifest, manifest.number, hide_keys=config.hide_keys, max_failed=config.max_failed)
    if not manifest.accepted:
        print("covseg: published, not accepted: too many images are quarantined", file=sys.stderr)
    return 0 if manifest.accepted else 3
