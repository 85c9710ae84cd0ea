"""Progress and summary of one bulk scoring; no Ray here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Progress:
    """How far a run is.

    `images` are of the whole snapshot, those of earlier runs included; the other counts are of what this run finished,
    `retried` of the shards that were retried because a worker or the store gave way, and `lost` of images that were
    missing or changed when they were read, by folder, in shards that are not committed for it.
    """

    images: int
    shards: int = 0
    retried: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def finished(self) -> int:
        """Images that this run finished."""
        return self.statuses.total()

    @property
    def refused(self) -> int:
        """Those of them that have no mask."""
        return self.finished - self.statuses["scored"]


@dataclass(frozen=True)
class Summary:
    """What came of a run: where report and table lie, and counts of images over the whole snapshot, but for two.

    Parameters
    ----------
    finished : int
        Images that this run went through; 0 when there was nothing to do.
    retried : int
        Shards that this run retried.
    accepted : bool
        False: published, but nothing was scored, or too many images were quarantined, out of scope, missing or
        changed; exit code 3.
    published_by : str
        Attempt id of whoever published; ours when `mine`.
    max_failed, max_out_of_scope, max_missing, hide_keys : float, float, float or None, bool
        What the snapshot was judged and shown by; a published one keeps its own.
    grades : dict
        Scored images by grade, mildest first; empty where an older covseg published it.
    changed : dict
        Counts of images, statuses, reasons and grades, minus those of the snapshot before.
    dicom : dict
        DICOM objects by kind, and ``without``: scored images that have none; empty where none were asked for.
    start_s, score_s, publish_s : float
        Wall seconds: cluster and model start-up; the shards; the publishing.
    """

    snapshot: int
    images: int
    finished: int
    retried: int
    accepted: bool
    published_by: str
    mine: bool
    statuses: dict[str, int]
    reasons: dict[str, int]
    report: str
    table: str
    max_failed: float
    max_out_of_scope: float
    max_missing: float | None
    hide_keys: bool
    start_s: float
    score_s: float
    publish_s: float
    dicom: dict[str, int] = field(default_factory=dict)
    grades: dict[str, int] = field(default_factory=dict)
    changed: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, or 3 when the snapshot was not accepted."""
        return 0 if self.accepted else 3

    @property
    def line(self) -> str:
        """The numbers of the run in one line."""
        added = self.changed.get("images", {}).get("all", 0)
        refused = self.images - self.statuses.get("scored", 0)
        grades = ", ".join(f"{name} {count:,}" for name, count in self.grades.items())
        counts = f"{self.images:,} images ({added:+,}), {refused:,} refused"
        return f"snapshot {self.snapshot}: {counts}; {grades or 'none graded'}"

    def as_dict(self) -> dict[str, object]:
        """Return plain values, seconds rounded to tenths."""
        return {name: round(value, 1) if name.endswith("_s") else value for name, value in vars(self).items()}
