"""What one bulk scoring is asked to do, and what it tells: settings in, progress and summary out; no Ray here.

`ScoreRun` is the one list of settings: the flags of ``covseg score`` and the parameters of the flow
`score` are made from its fields.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from covseg.config import SHARD_SIZE


class ScoreRun(BaseModel):
    """Settings of one bulk scoring."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1, description="Folder or s3://bucket/prefix with the films.")
    dest: str = Field(min_length=1, description="Folder or s3://bucket/prefix for masks, tables, snapshots and report.")
    model: str = Field(
        "default", min_length=1, description="'default', 'accurate', a model folder, or [REGISTRY/]NAME@TAG."
    )
    include: str = Field("*", min_length=1, description="Only keys that match this glob; * also crosses slashes.")
    exclude: str = Field("", description="Not the keys that match this glob.")
    limit: int | None = Field(None, ge=1, description="Only the first N matching keys.")
    masks: Literal["none", "png", "packed"] = Field("png", description="Keep label maps: none, a PNG each, or packed.")
    probability: bool = Field(False, description="Keep the infection probability as an 8-bit PNG per film.")
    max_failed: float = Field(0.05, ge=0, le=1, description="Share of quarantined films above which exit is 3.")
    hide_keys: bool = Field(False, description="Leave the source keys out of the published table.")
    commits: str | None = Field(None, description="Where create-only records go, if DEST's store has no such writes.")
    backend: str = Field("onnx", description="What runs the model: onnx or torch; torch uses GPUs where there are any.")
    batch: int = Field(4, ge=1, le=256, description="Films a forward pass; 4 suits a CPU, 32 a GPU.")
    shard_size: int = Field(SHARD_SIZE, ge=1, le=10_000, description="Films a shard, the unit that is redone.")
    workers: int | None = Field(None, ge=1, description="Decode workers, and model workers on CPU; default: the cores.")
    patience_s: float = Field(1800, gt=0, description="Seconds without a finished shard after which the run ends.")

    def absolute(self) -> ScoreRun:
        """Return the same with local paths made absolute, because a worker's folder is not ours.

        A model behind an alias becomes the version it means now: workers that start later take the same.
        """
        from covseg.models.registry import pinned  # pyarrow and more, which --help does without

        paths = {name: getattr(self, name) for name in ("source", "dest", "commits")}
        changed = {name: str(Path(path).absolute()) for name, path in paths.items() if path and "://" not in path}
        return self.model_copy(update={**changed, "model": pinned(self.model)})


@dataclass
class Progress:
    """How far a run is.

    Parameters
    ----------
    films : int
        Of the whole snapshot, those of earlier runs included.
    statuses, reasons : Counter
        Of the films that this run finished.
    shards : int
        Shards that this run finished.
    redone : int
        Shards dealt again, because a worker or the store gave way.
    """

    films: int
    shards: int = 0
    redone: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def finished(self) -> int:
        """Films that this run finished."""
        return self.statuses.total()


@dataclass(frozen=True)
class Summary:
    """What came of a run.

    Parameters
    ----------
    snapshot : int
        Number of the published snapshot.
    films : int
        Of the whole snapshot.
    finished : int
        Films that this run went through; 0 when there was nothing to do.
    redone : int
        Shards dealt again.
    accepted : bool
        False: published, but too many films were quarantined; exit code 3.
    published_by : str
        Attempt id of whoever published; ours when `mine`.
    mine : bool
        This run published the snapshot.
    statuses, reasons : dict
        Counts over the whole snapshot.
    report, table : str
        Where they lie.
    max_failed, hide_keys : float, bool
        What the snapshot was judged and shown by; a published one keeps its own.
    start_s, score_s, publish_s : float
        Wall seconds: cluster and model start-up; the shards; the publishing.
    """

    snapshot: int
    films: int
    finished: int
    redone: int
    accepted: bool
    published_by: str
    mine: bool
    statuses: dict[str, int]
    reasons: dict[str, int]
    report: str
    table: str
    max_failed: float
    hide_keys: bool
    start_s: float
    score_s: float
    publish_s: float

    @property
    def exit_code(self) -> int:
        """0, or 3 when the snapshot was not accepted."""
        return 0 if self.accepted else 3

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, seconds rounded to tenths."""
        return {name: round(value, 1) if name.endswith("_s") else value for name, value in vars(self).items()}
