"""``covseg gc``: remove what killed runs left behind in a destination."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from flows.cli.console import show_values
from flows.cli.options import Destination


class GcConfig(Destination):
    """What `covseg gc` can be told."""

    older_than_hours: float = Field(24.0, ge=0, description="Younger objects stay, and those of a live run.")
    dry_run: bool = Field(False, description="Say what would be removed, and stop.")


def gc(config: GcConfig) -> int:
    """Remove objects that no record names, and uploads that nobody finished."""
    from covseg import archive

    collected = archive.gc(archive.load_run(*config.stores()), config.older_than_hours * 3600, dry_run=config.dry_run)
    removed = 0 if config.dry_run else collected.orphans + collected.uploads
    show_values({**asdict(collected), "removed": removed}, as_json=config.json_)
    return 0
