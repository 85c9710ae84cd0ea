"""What `predict`, `score` and `publish` say of a result that is not accepted, or that keeps older options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flows.cli.console import warn

if TYPE_CHECKING:
    from covseg.archive import Manifest
    from flows.cli.publish import PublishConfig
    from flows.cli.score import ScoreConfig
    from workers.summary import Summary


def refused_share(statuses: Mapping[str, int], max_failed: float) -> str:
    """Say how many images were quarantined, and how many were allowed."""
    from covseg.table import quarantined_share

    share = f"{quarantined_share(statuses):.1%} of the readable"
    return f"{statuses.get('quarantined', 0)} images quarantined, {share}; --max-failed allows {max_failed:.1%}"


def warn_of_snapshot(snapshot: Manifest | Summary, number: int, options: PublishConfig | ScoreConfig) -> None:
    """Say which options a published snapshot does not take, because it keeps its own, and whether it is accepted."""
    if options.hide_keys and not snapshot.hide_keys:
        warn(
            f"snapshot {number} was published with its keys and keeps them; --hide-keys counts from the next "
            "one on: score into another DEST to leave them out now"
        )
    for name in ("max_failed", "max_missing"):
        theirs, ours = getattr(snapshot, name), getattr(options, name)
        if theirs not in (None, ours):
            option = "--" + name.replace("_", "-")
            warn(
                f"snapshot {number} was judged by {option} {theirs:g} and stays so; "
                f"{ours:g} counts from the next one on"
            )
    if not snapshot.accepted:
        refused = refused_share(snapshot.statuses, snapshot.max_failed)
        warn(f"published, not accepted: {refused}; {_lost(snapshot.statuses, snapshot.max_missing)}")


def _lost(statuses: Mapping[str, int], max_missing: float | None) -> str:
    from covseg.table import lost_share

    allowed = 1 if max_missing is None else max_missing
    return f"{lost_share(statuses):.1%} missing or changed at reading; --max-missing allows {allowed:.1%}"
