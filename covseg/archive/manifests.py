"""Publishing: accounting, table, report, and last the manifest that makes the snapshot exist."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from covseg.archive import pictures
from covseg.archive.parts import Plan
from covseg.archive.plans import load_plan, manifest_name, newest_plan, pending, plan_name
from covseg.archive.records import FileRecord, Manifest, NamedObject, PlanReference, read_record
from covseg.archive.runs import Run
from covseg.archive.scratch import Scratch, open_scratch
from covseg.archive.snapshot import Counts, collect, finish
from covseg.errors import NotPublished, UsageError
from covseg.report import Head, render
from covseg.settings.environment import code_version
from covseg.storage import Store, entries
from covseg.table import objections, quarantined_share

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
        At most this many images are drawn in the report, by the quotas of `covseg.report.quota`.
    max_out_of_scope : float
        Share of all images that may be out of scope in a snapshot that is accepted.
    max_missing : float
        (missing + changed) / all above which the snapshot is not accepted.
    title, source_label : str
        Of the report.
    overlays : bool
        Keep an overlay of each image that the report shows.
    timings : mapping of str to float
        Wall times of the run in seconds, by the caller's names; they stand in the manifest only.
    """

    max_failed: float = 0.05
    hide_keys: bool = False
    pictures: int = 500
    max_out_of_scope: float = 1.0
    max_missing: float = 0.01
    title: str = ""
    source_label: str = ""
    overlays: bool = False
    timings: Mapping[str, float] = field(default_factory=dict)


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
    if record := _existing(run, plan.number):
        return record if _in_place(run, record) else rebuild(run, plan)
    if lacking := sum(1 for _ in pending(run, plan)):
        raise NotPublished(
            f"{lacking} of {plan.shards} shards have no commit: run covseg score again, it goes on there"
        )
    begun, moment = time.monotonic(), datetime.now(UTC)
    with open_scratch() as scratch:
        build = _Build(run, plan, scratch)
        _stop_nonsense(build.counts)
        drawn = build.draw(source, options)
        head = Head.of(options.title, options.source_label, moment)
        outputs = build.files(drawn, head, hide_keys=options.hide_keys)
        shown = pictures.save(run, plan.number, drawn.pictures)
        build.upload()
        seconds = {**options.timings, "publish": round(time.monotonic() - begun, 3)}
        ours = _record(plan, options, build.counts, outputs, shown, drawn.overlays, attempt_id, moment, seconds)
        mine = run.commits.create(manifest_name(plan.number), ours.encode())
    record = _existing(run, plan.number) or ours
    if record.outputs != outputs:
        return rebuild(run, plan)  # another run published while we did, and saw other images or options
    return record.model_copy(update={"mine": mine or record.published_by == attempt_id})


def published_table(run: Run) -> bytes:
    """Return ``severity.parquet`` of the newest snapshot, found to be what its manifest names.

    Raises
    ------
    NotPublished
        When the newest plan has no snapshot yet, or the table is gone or another.
    """
    plan = newest_plan(run)
    record = _existing(run, plan.number) if plan else None
    if record is None:
        raise NotPublished(f"{run.dest.url} has no finished snapshot: run covseg score again")
    try:
        data = run.dest.read(OUTPUTS[0])
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() != record.outputs[OUTPUTS[0]].sha256:
        raise NotPublished(f"{OUTPUTS[0]} in {run.dest.url} is not the published one: run covseg publish")
    return data


def write_table(run: Run, number: int, path: Path) -> None:
    """Write ``severity.parquet`` of any snapshot to a file, made again from its commits.

    Raises
    ------
    UsageError
        When there is no such snapshot.
    NotPublished
        When what comes out is not what its manifest names.
    """
    record = _existing(run, number)
    if record is None:
        raise UsageError(f"{run.dest.url} has no snapshot {number}: covseg serve {run.dest.url} shows those there are")
    with open_scratch() as scratch:
        collect(run, load_plan(run, number), scratch.db)
        finish(scratch, hide_keys=record.hide_keys, dicom=run.dicom)
        made = scratch.folder / OUTPUTS[0]
        if _measured(made) != record.outputs[OUTPUTS[0]]:
            raise NotPublished(
                f"{OUTPUTS[0]} of snapshot {number} comes out otherwise than its manifest says: run covseg verify, and "
                f"covseg {record.versions['covseg']}, which published it"
            )
        shutil.move(made, path)


def rebuild(run: Run, plan: Plan) -> Manifest:
    """Write table and report of a published snapshot anew, without its source.

    Raises
    ------
    NotPublished
        When there is no manifest, or what comes out is not what it names.
    """
    record = _existing(run, plan.number)
    if record is None:
        raise NotPublished(f"plan {plan.number} of {run.dest.url} has no manifest: run covseg score again")
    with open_scratch() as scratch:
        build = _Build(run, plan, scratch)
        head = Head.of(record.title, record.source_label, datetime.fromisoformat(record.published_at))
        drawn = pictures.Drawn(pictures.load(run, record.pictures), record.overlays)
        outputs = build.files(drawn, head, hide_keys=record.hide_keys)
        for name in OUTPUTS:
            if outputs[name] != record.outputs[name]:
                raise NotPublished(
                    f"{name} comes out otherwise than manifest {plan.number} says: run covseg verify, "
                    f"and covseg {record.versions['covseg']}, which published it"
                )
        build.upload()
    return record


class _Build:
    """The files of one snapshot in a scratch folder."""

    def __init__(self, run: Run, plan: Plan, scratch: Scratch) -> None:
        self.run, self.number, self.scratch = run, plan.number, scratch
        self.counts = collect(run, plan, scratch.db)

    def draw(self, source: Store | None, options: PublishOptions) -> pictures.Drawn:
        """Draw the report's images; without masks there is nothing to show on them."""
        if source is None or self.run.masks == "none" or options.pictures == 0:
            return pictures.Drawn([])
        chosen = pictures.choose(self.scratch.db, options.pictures)
        return pictures.draw(self.run, source, chosen, overlays=options.overlays)

    def files(self, drawn: pictures.Drawn, head: Head, *, hide_keys: bool) -> dict[str, FileRecord]:
        """Write table and report; return their digests and sizes."""
        severity, folder = finish(self.scratch, hide_keys=hide_keys, dicom=self.run.dicom), self.scratch.folder
        overlays = pictures.overlay_paths(drawn.overlays)
        page = render(severity, drawn.pictures, self.run.presence_threshold, head, overlays)
        (folder / "report.html").write_bytes(page)
        return {name: _measured(folder / name) for name in OUTPUTS}

    def upload(self) -> None:
        """Put the files where readers look; a newer snapshot that they would hide gets its own back."""
        for name in OUTPUTS:
            self.run.dest.upload(self.scratch.folder / name, name)
        if _existing(self.run, self.number + 1):
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


def _record(
    plan: Plan,
    options: PublishOptions,
    counts: Counts,
    outputs: dict[str, FileRecord],
    shown: NamedObject,
    overlays: tuple[NamedObject, ...],
    attempt_id: str,
    moment: datetime,
    seconds: dict[str, float],
) -> Manifest:
    return Manifest(
        number=plan.number,
        plan=PlanReference(name=plan_name(plan.number), sha256=plan.sha256),
        commits=counts.commits,
        images=counts.statuses.total(),
        statuses=counts.statuses,
        reasons=counts.reasons,
        grades=counts.grades,
        failed_share=round(quarantined_share(counts.statuses), 6),
        max_failed=options.max_failed,
        max_out_of_scope=options.max_out_of_scope,
        max_missing=options.max_missing,
        accepted=not objections(counts.statuses, options.max_failed, options.max_out_of_scope, options.max_missing),
        hide_keys=options.hide_keys,
        title=options.title,
        source_label=options.source_label,
        dicom=counts.dicom,
        outputs=outputs,
        pictures=shown,
        overlays=overlays,
        published_by=attempt_id,
        published_at=moment.isoformat(timespec="seconds"),
        seconds=seconds,
        versions={"covseg": code_version(), "python": platform.python_version(), "pyarrow": pa.__version__},
    )


def _existing(run: Run, number: int) -> Manifest | None:
    with contextlib.suppress(FileNotFoundError):
        return read_record(run.commits, manifest_name(number), Manifest)
    return None


def _in_place(run: Run, record: Manifest) -> bool:
    """Tell whether the published files lie there with their sizes; `covseg verify` reads them too."""
    sizes = {entry.key: entry.size for prefix in ("severity.", "report.") for entry in entries(run.dest, prefix)}
    return all(sizes.get(name) == output.size for name, output in record.outputs.items())


def _measured(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)
