"""The snapshots of a destination, side by side: what was published when, and what each changed."""

from __future__ import annotations

from dataclasses import dataclass

from covseg.archive.changes import Changes, changes
from covseg.archive.records import Manifest, read_record
from covseg.archive.runs import Run
from covseg.pages.environment import render_page
from covseg.stages.severity import GRADES
from covseg.storage import entries

PAGE_SNAPSHOTS = 50  # the newest; each is a small record of its own


@dataclass(frozen=True)
class Snapshot:
    """One published snapshot, and what it changed against the one before."""

    manifest: Manifest
    changed: Changes

    @property
    def added(self) -> int:
        """Images that it added."""
        return self.changed["images"].get("all", 0)


def snapshots(run: Run) -> list[Snapshot]:
    """Return the newest `PAGE_SNAPSHOTS` snapshots, newest first."""
    names = [entry.key for entry in entries(run.commits, "manifests/")]
    newest = sorted(names, key=lambda name: int(name.rpartition("/")[2].partition(".")[0]), reverse=True)
    manifests = [read_record(run.commits, name, Manifest) for name in newest[:PAGE_SNAPSHOTS]]
    return [Snapshot(manifest, changes(run, manifest)) for manifest in manifests]


def render_history(run: Run, found: list[Snapshot]) -> bytes:
    """Return the page with links to the files of the newest snapshot, which lie beside it."""
    reasons = sorted({reason for one in found for reason in one.manifest.reasons})
    statuses = sorted({status for one in found for status in one.manifest.statuses})
    return render_page(
        "covseg.archive", "snapshots.html.j2", url=run.dest.url, model=run.model_id, snapshots=found,
        grades=GRADES, reasons=reasons, statuses=statuses,
    )  # fmt: skip
