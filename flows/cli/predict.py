"""``covseg predict``: the pipeline in this process, with a progress line."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from covseg.errors import UsageError
from covseg.settings.dicom import DICOM_KINDS, DicomSettings
from covseg.settings.score import FilterMode, ScoreSettings
from flows.cli.console import Report, progress, show, show_json, show_values, warn
from flows.cli.options import OUTPUT, Json, Options, same

if TYPE_CHECKING:  # numpy would triple the time of --help
    from covseg.records import Entry, Row
    from covseg.storage import LocalStore


DICOM_FOLDERS = [f"dicom/{kind}" for kind in DICOM_KINDS]


class PredictConfig(Options):
    """What `covseg predict` can be told."""

    source: Path = Field(description="An image, or a folder of images (PNG, JPEG, DICOM; told apart by content).")
    output: Annotated[Path, OUTPUT] = Field(description="Folder for masks, rows, table and report.")
    model: str = Field("default", description="'default', 'benchmark', a model folder, or [REGISTRY/]NAME@TAG.")
    include: str = Field("*", description="Only keys that match this glob; * also crosses slashes.")
    exclude: str = Field("", description="Not the keys that match this glob.")
    input_filter: FilterMode = same(ScoreSettings, "input_filter")
    backend: Literal["onnx", "torch", "cuda", "openvino", "auto"] = same(ScoreSettings, "backend")
    precision: Literal["float32", "bfloat16", "int8"] = same(ScoreSettings, "precision")
    batch: int = Field(4, ge=1, le=64, description="Images a forward pass.")
    streams: int | None = Field(None, ge=1, description="Batches side by side, one CPU thread each; default: all.")
    overlay: Literal["none", "report", "all", "full"] = Field(
        "report",
        description="Overlays: of the images that the report shows, of all (both JPEG, at most 1024 pixels a side), "
        "or full: a PNG of every image at its own size.",
    )
    pictures: bool = Field(True, description="Draw thumbnails into the report.")
    title: str = same(ScoreSettings, "title")
    source_label: str = same(ScoreSettings, "source_label")
    probability: bool = Field(False, description="Write the infection probability as an 8-bit PNG per image.")
    dicom: str = same(ScoreSettings, "dicom")
    link_patient: bool = same(ScoreSettings, "link_patient")
    max_failed: float = same(ScoreSettings, "max_failed")
    max_out_of_scope: float = same(ScoreSettings, "max_out_of_scope")
    dry_run: bool = Field(False, description="Say what would be scored, and stop.")
    json_: Json = False


def predict(config: PredictConfig) -> int:
    """Score an image or a folder in this process: masks, rows and a report."""
    from covseg.stages.severity import GRADES
    from covseg.table import objections

    dicom = _dicom(config)
    source, chosen = _choose(config)
    if config.dry_run:
        _show(config, {"images": len(chosen), "bytes": sum(entry.size for entry in chosen), "dry_run": True})
        return 0
    with progress("images") as report:
        rows = _score(config, dicom, source, chosen, report)
    statuses = Counter(str(row.status) for row in rows)
    why_not = objections(statuses, config.max_failed, config.max_out_of_scope)
    reasons = dict(sorted(Counter(str(row.reason) for row in rows if row.reason).items()))
    places = {"report": str(config.output / "report.html"), "table": str(config.output / "severity.csv")}
    graded = Counter(row.grade for row in rows if row.grade)
    grades = {name: graded[name] for name in GRADES if graded[name]}
    made = {"dicom": _count(dicom, rows)} if dicom.kinds else {}
    _show(
        config,
        {
            "images": len(rows),
            **statuses,
            "reasons": reasons,
            "grades": grades,
            **made,
            "accepted": not why_not,
            **places,
        },
    )
    _warn(config.output, rows)
    if why_not:
        warn(f"not accepted: {'; '.join(why_not)}; {config.output / 'severity.csv'} says why, image by image")
    return 3 if why_not else 0


def _dicom(config: PredictConfig) -> DicomSettings:
    """Return which DICOM objects are wanted, once it is known that they can be made."""
    from covseg.dicom import check_installed

    dicom = DicomSettings.parse(config.dicom, link_patient=config.link_patient)
    if dicom.kinds:
        check_installed()
    return dicom


def _count(dicom: DicomSettings, rows: list[Row]) -> dict[str, int]:
    """Count the objects of each kind, and the scored images that have none: no DICOM, or nothing to refer to."""
    made: dict[str, int] = {kind: sum(bool(getattr(row, f"{kind}_uri")) for row in rows) for kind in dicom.kinds}
    without = sum(row.status == "scored" and not (row.seg_uri or row.sr_uri or row.sc_uri) for row in rows)
    return {**made, "without": without}


def _choose(config: PredictConfig) -> tuple[LocalStore, list[Entry]]:
    """Return the folder of the images and those that are asked for; at least one."""
    from covseg.storage import LocalStore, entries, matches_globs

    root, only = _source(config.source)
    if only is None and config.output.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            f"-o {config.output} lies in {root}: the next run would score this one's pictures; go elsewhere"
        )
    source = LocalStore(root)
    chosen = [
        entry
        for entry in entries(source)
        if (matches_globs(entry, config.include, config.exclude) if only is None else entry.key == only)
    ]
    if not chosen:
        empty = config.include == "*" and not config.exclude
        without = f" without --exclude {config.exclude!r}" if config.exclude else ""
        globs = f"no key matches --include {config.include!r}{without}; wanted globs that match one, such as '*.dcm'"
        why = "it holds no file, wanted PNG, JPEG or DICOM" if empty else globs
        raise UsageError(f"nothing to score under {config.source}: {why}")
    return source, chosen


def _warn(output: Path, rows: list[Row]) -> None:
    """Say what a person may not expect: files of earlier runs beside these."""
    known = {row.input_id for row in rows}
    folders = (output / name for name in (*("masks", "overlays", "rows", "probability"), *DICOM_FOLDERS))
    stale = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.stem not in known]
    if stale:
        warn(
            f"{len(stale)} files in {output} are of images that are not in this table (an earlier run, or "
            "images that changed since); remove them, or use a new folder"
        )


def _source(path: Path) -> tuple[Path, str | None]:
    """Return the folder to list and, for a single image, its key."""
    if path.is_file():
        return path.parent, path.name
    if path.is_dir():
        return path, None
    if path.parts[0].endswith(":"):
        raise UsageError(f"{path.parts[0]}// is no folder: predict reads files and folders here; use covseg score")
    raise UsageError(f"{path} is neither a file nor a folder; wanted an image or a folder of images")


def _score(
    config: PredictConfig, dicom: DicomSettings, source: LocalStore, chosen: list[Entry], report: Report
) -> list[Row]:
    from covseg.model_folder.backends import open_backend
    from covseg.pipeline import Pipeline, resolve
    from covseg.predict import Outputs, predict
    from covseg.registry import open_model
    from covseg.report import Head
    from covseg.storage import LocalStore

    folder = open_model(config.model)
    backend = open_backend(folder, config.backend, config.precision)
    pipeline = Pipeline(folder.config, resolve(folder, backend, config.batch, config.input_filter), dicom=dicom)
    streams = config.streams or len(os.sched_getaffinity(0))
    head = Head.of(config.title, config.source_label, datetime.now(UTC))
    outputs = Outputs(config.overlay, config.probability, config.pictures, head)
    counts = Counter[str]()

    def finished(row: Row) -> None:
        counts["refused" if row.status != "scored" else "scored"] += 1
        report(counts.total(), len(chosen), f"{counts['refused']} refused")

    return predict(pipeline, backend, source, chosen, LocalStore(config.output), outputs, finished, streams)


def _show(config: PredictConfig, summary: dict[str, Any]) -> None:
    from covseg.records import RESEARCH_ONLY

    if config.json_:
        show_json({"intended_use": RESEARCH_ONLY, **summary})
    else:
        show_values(summary)
        show(RESEARCH_ONLY)
