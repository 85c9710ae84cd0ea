"""Publishing: accounting, table, report, and last the manifest that makes the snapshot exist."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from covseg.archive import pictures
from covseg.archive.parts import Plan
from covseg.archive.plans import load_plan, pending, plan_record
from covseg.archive.runs import Run
from covseg.archive.snapshot import Counts, collect, finish
from covseg.archive.streams import unspilled
from covseg.errors import NotPublished, StorageFull
from covseg.report import Picture, render
from covseg.settings.environment import code_version
from covseg.storage import Store, entries
from covseg.table import quarantined_share

OUTPUTS = ("severity.parquet", "severity.csv", "report.html")


@dataclass(frozen=True)
class PublishOptions:
    """How a snapshot is judged and shown.

    Parameters
    ----------
    max_failed : float
        quarantined / (scored + quarantined) above which the snapshot is not accepted.
    hide_keys : bool
        Leave the source keys out of the published table.
    pictures : int
        At most this many images are drawn in the report: four fifths the worst, the rest a sample.
    timings : mapping of str to float
        Wall times of the run in seconds, by the caller's names; they stand in the manifest only.
    """

    max_failed: float = 0.05
    hide_keys: bool = False
    pictures: int = 500
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A published snapshot.

    Parameters
    ----------
    number : int
        The plan's.
    accepted : bool
        False: published, exit code 3.
    mine : bool
        This call published it; False: it was there, or another run was first.
    published_by : str
        Attempt id of whoever published.
    statuses, reasons : mapping of str to int
        Counts over the whole snapshot.
    outputs : mapping of str to str
        Published files and their sha256.
    max_failed, hide_keys : float, bool
        What it was judged and shown by; a later call's options do not change them.
    """

    number: int
    accepted: bool
    mine: bool
    published_by: str
    statuses: Mapping[str, int]
    reasons: Mapping[str, int]
    outputs: Mapping[str, str]
    max_failed: float
    hide_keys: bool


def publish(run: Run, plan: Plan, options: PublishOptions, source: Store | None, attempt_id: str) -> Manifest:
    """Check the sum, write table and report, and create the manifest last.

    A snapshot that has its manifest keeps it; its files are rebuilt when one is missing or of another size.

    Parameters
    ----------
    source : Store or None
        Where the report's images are fetched again; None leaves the pictures out.
    attempt_id : str
        Stands in the manifest as who published.

    Raises
    ------
    NotPublished
        When a shard lacks its commit, the sum does not close, or every image that reached the model has an
        empty lung mask or non-finite output. Nothing is published then.
    """
    if record := _found(run, plan.number):
        return _manifest(record, mine=False) if _in_place(run, record) else rebuild(run, plan)
    if lacking := sum(1 for _ in pending(run, plan)):
        raise NotPublished(
            f"{lacking} of {plan.shards} shards have no commit: run covseg score again, it goes on there"
        )
    begun = time.monotonic()
    with _scratch() as folder:
        build = _Build(run, plan, folder)
        _stop_nonsense(build.counts)
        drawn = build.draw(source, options.pictures)
        outputs = build.files(drawn, hide_keys=options.hide_keys)
        shown = pictures.save(run, plan.number, drawn)
        build.upload()
        timings = {**options.timings, "publish": round(time.monotonic() - begun, 3)}
        facts = {"outputs": outputs, "pictures": shown, "published_by": attempt_id, "seconds": timings}
        mine = run.commits.create(_name(plan.number), _record(plan, options, build.counts, facts))
    record = _found(run, plan.number) or {}
    if record["outputs"] != outputs:
        return rebuild(run, plan)  # another run published while we did, and saw other images or options
    return _manifest(record, mine=mine or record["published_by"] == attempt_id)


def rebuild(run: Run, plan: Plan) -> Manifest:
    """Write table and report of a published snapshot anew, without its source.

    Raises
    ------
    NotPublished
        When there is no manifest, or what comes out is not what it names.
    """
    record = _found(run, plan.number)
    if record is None:
        raise NotPublished(f"plan {plan.number} of {run.dest.url} has no manifest: run covseg score again")
    with _scratch() as folder:
        build = _Build(run, plan, folder)
        outputs = build.files(pictures.load(run, record["pictures"]), hide_keys=record["hide_keys"])
        for name in OUTPUTS:
            if outputs[name] != record["outputs"][name]:
                raise NotPublished(
                    f"{name} comes out otherwise than manifest {plan.number} says: run covseg verify, "
                    f"and covseg {record['versions']['covseg']}, which published it"
                )
        build.upload()
    return _manifest(record, mine=False)


class _Build:
    """The files of one snapshot in a scratch folder."""

    def __init__(self, run: Run, plan: Plan, folder: Path) -> None:
        self.run, self.number, self.folder = run, plan.number, folder
        self.counts, self._duplicates = collect(run, plan, folder)

    def draw(self, source: Store | None, limit: int) -> list[Picture]:
        """Draw the report's images; without masks there is nothing to show on them."""
        if source is None or self.run.masks == "none" or limit == 0:
            return []
        chosen = pictures.choose(unspilled(self.folder / "rows.arrow"), limit)
        return pictures.draw(self.run, source, chosen)

    def files(self, drawn: list[Picture], *, hide_keys: bool) -> dict[str, dict[str, Any]]:
        """Write table and report; return their digests and sizes."""
        severity = finish(self.folder, self._duplicates, hide_keys=hide_keys)
        (self.folder / "report.html").write_bytes(render(severity, drawn, self.run.presence_threshold))
        return {name: _measured(self.folder / name) for name in OUTPUTS}

    def upload(self) -> None:
        """Put the files where readers look; a newer snapshot that they would hide gets its own back."""
        for name in OUTPUTS:
            self.run.dest.upload(self.folder / name, name)
        if _found(self.run, self.number + 1):
            rebuild(self.run, load_plan(self.run, self.number + 1))


def _stop_nonsense(counts: Counts) -> None:
    """Refuse to publish what no working model answers."""
    nonfinite = counts.reasons["nonfinite_logits"]
    reached = counts.statuses["scored"] + nonfinite
    if reached and reached == counts.no_lungs + nonfinite:
        raise NotPublished(
            f"none of {reached} images that the model answered has a lung ({nonfinite} answers were not finite): "
            "check the model and that these are chest radiographs; nothing was published, and this DEST goes on with "
            "the same images: score into another DEST once the model is right or other images lie beside them"
        )


def _record(plan: Plan, options: PublishOptions, counts: Counts, facts: dict[str, Any]) -> bytes:
    share = quarantined_share(counts.statuses)
    record = {
        "format": 1,
        "number": plan.number,
        "plan": {"name": plan_record(plan.number), "sha256": plan.sha256},
        "commits": dict(sorted(counts.commits.items())),
        "films": counts.statuses.total(),
        "statuses": dict(sorted(counts.statuses.items())),
        "reasons": dict(sorted(counts.reasons.items())),
        "failed_share": round(share, 6),
        "max_failed": options.max_failed,
        "accepted": share <= options.max_failed,
        "hide_keys": options.hide_keys,
        **facts,
        "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"covseg": code_version(), "python": platform.python_version(), "pyarrow": pa.__version__},
    }
    return (json.dumps(record, sort_keys=True, indent=1) + "\n").encode()


def _found(run: Run, number: int) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(run.commits.read(_name(number)))
    except FileNotFoundError:
        return None
    return record


def _manifest(record: dict[str, Any], *, mine: bool) -> Manifest:
    outputs = {name: output["sha256"] for name, output in record["outputs"].items()}
    who, counted = record["published_by"], (record["statuses"], record["reasons"])
    options = record["max_failed"], record["hide_keys"]
    return Manifest(record["number"], record["accepted"], mine, who, *counted, outputs, *options)


def _in_place(run: Run, record: dict[str, Any]) -> bool:
    """Tell whether the published files lie there with their sizes; `covseg verify` reads them too."""
    found = {entry.key: entry.size for prefix in ("severity.", "report.") for entry in entries(run.dest, prefix)}
    return all(found.get(name) == output["size"] for name, output in record["outputs"].items())


def _name(number: int) -> str:
    return f"manifests/{number}.json"


def _measured(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Give a folder of its own that is gone afterwards; say what is full when it is full."""
    try:
        with tempfile.TemporaryDirectory(prefix="covseg-publish-") as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = tempfile.gettempdir()
        raise StorageFull(
            f"no space left in {where} for the table: free some, or set TMPDIR, then run again"
        ) from error
