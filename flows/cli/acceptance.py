"""What `predict`, `score` and `publish` say of a result that is not accepted, or that keeps older options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flows.cli.console import warn

if TYPE_CHECKING:
    from covseg.archive import Manifest
    from workers.summary import Summary


def refused_share(statuses: Mapping[str, int], max_failed: float) -> str:
    """Say how many images were quarantined, and how many were allowed."""
    from covseg.table import quarantined_share

    share = f"{quarantined_share(statuses):.1%} of the readable"
    return f"{statuses.get('quarantined', 0)} images quarantined, {share}; --max-failed allows {max_failed:.1%}"


def warn_of_snapshot(snapshot: Manifest | Summary, number: int, *, hide_keys: bool, max_failed: float) -> None:
    """Say which options a published snapshot does not take, because it keeps its own, and whether it is accepted."""
    if hide_keys and not snapshot.hide_keys:
        warn(
            f"snapshot {number} was published with its keys and keeps them; --hide-keys counts from the next "
            "one on: score into another DEST to leave them out now"
        )
    if max_failed != snapshot.max_failed:
        warn(
            f"snapshot {number} was judged by --max-failed {snapshot.max_failed:g} and stays so; "
            f"{max_failed:g} counts from the next one on"
        )
    if not snapshot.accepted:
        warn(f"published, not accepted: {refused_share(snapshot.statuses, snapshot.max_failed)}")
