"""What `predict`, `score` and `publish` say of a result that is not accepted, or that keeps older options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from flows.cli.console import warn

if TYPE_CHECKING:
    from covseg.archive import Manifest
    from workers.summary import Summary


class Wanted(Protocol):
    """How a command wants a snapshot judged and shown."""

    @property
    def hide_keys(self) -> bool:
        """Leave the source keys out."""

    @property
    def max_failed(self) -> float:
        """Largest share of quarantined images."""

    @property
    def max_out_of_scope(self) -> float:
        """Largest share of images out of scope."""

    @property
    def max_missing(self) -> float:
        """Largest share of images missing or changed."""


def warn_of_snapshot(snapshot: Manifest | Summary, number: int, wanted: Wanted) -> None:
    """Say which options a published snapshot does not take, because it keeps its own, and whether it is accepted."""
    from covseg.table import objections

    if wanted.hide_keys and not snapshot.hide_keys:
        warn(
            f"snapshot {number} was published with its keys and keeps them; --hide-keys counts from the next "
            "one on: score into another DEST to leave them out now"
        )
    limits = {"--max-failed": (snapshot.max_failed, wanted.max_failed)}
    limits["--max-out-of-scope"] = snapshot.max_out_of_scope, wanted.max_out_of_scope
    if snapshot.max_missing is not None:
        limits["--max-missing"] = snapshot.max_missing, wanted.max_missing
    for option, (judged, now) in limits.items():
        if judged != now:
            warn(
                f"snapshot {number} was judged by {option} {judged:g} and stays so; {now:g} counts from the next one on"
            )
    if not snapshot.accepted:
        why = objections(snapshot.statuses, snapshot.max_failed, snapshot.max_out_of_scope, snapshot.max_missing)
        warn(f"published, not accepted: {'; '.join(why)}")
