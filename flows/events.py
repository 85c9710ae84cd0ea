"""What a published snapshot tells Prefect's automations: that it is there, and how much of it was out of scope.

An automation matches labels, not numbers, so the share stands there in steps of ten. Of URLs only the destination's is
in the event, which the flow's parameters hold as well; no key of an image.
"""

from __future__ import annotations

import hashlib

from prefect.events import emit_event

from workers.summary import Summary

PUBLISHED = "covseg.snapshot.published"
STEP = 10  # per cent


def tell_of_snapshot(summary: Summary, dest: str) -> None:
    """Emit `PUBLISHED` when the snapshot took in images; a run that found nothing new says nothing."""
    if not summary.finished:
        return
    outside = 100 * summary.statuses.get("out_of_scope", 0) // max(1, summary.images)
    emit_event(
        PUBLISHED,
        resource={
            "prefect.resource.id": f"covseg.destination.{hashlib.sha256(dest.encode()).hexdigest()[:16]}",
            "prefect.resource.name": dest,
            "covseg.out-of-scope-percent": str(outside // STEP * STEP),
        },
        payload={
            "snapshot": summary.snapshot, "images": summary.images, "statuses": summary.statuses,
            "grades": summary.grades, "changed": summary.changed,
        },
    )  # fmt: skip
