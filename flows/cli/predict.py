"""``covseg predict``: the pipeline in this process, with a progress line."""

from __future__ import annotations

import fnmatch
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

from covseg.errors import UsageError

if TYPE_CHECKING:  # numpy would triple the time of --help
    from covseg.records import Entry, Row
    from covseg.storage import Store


class PredictConfig(BaseModel):
    """What `covseg predict` can be told, by flags or by a TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path = Field(description="An image, or a folder of images (PNG, JPEG, DICOM; told apart by content).")
    output: Annotated[Path, Parameter(alias="-o")] = Field(description="Folder for masks, rows, table and report.")
    model: str = Field("default", description="'default', 'accurate', a model folder, or [REGISTRY/]NAME@TAG.")
    include: str = Field("*", description="Only keys that match this glob; * also crosses slashes.")
    exclude: str = Field("", description="Not the keys that match this glob.")
    backend: Literal["onnx", "torch"] = Field("onnx", description="What runs the model; torch is the reference.")
    batch: int = Field(4, ge=1, le=64, description="Images a forward pass.")
    streams: int | None = Field(None, ge=1, description="Batches side by side, one CPU thread each; default: all.")
    overlay: bool = Field(True, description="Write an overlay PNG per image.")
    pictures: bool = Field(True, description="Draw thumbnails into the report.")
    probability: bool = Field(False, description="Write the infection probability as an 8-bit PNG per image.")
    max_failed: float = Field(0.05, ge=0, le=1, description="Share of quarantined images above which we exit with 3.")
    dry_run: bool = Field(False, description="Say what would be scored, and stop.")
    json_: Annotated[bool, Parameter(name="--json")] = Field(False, description="Print the summary as JSON.")


def predict(config: Annotated[PredictConfig, Parameter(name="*")]) -> int:
    """Score an image or a folder in this process: masks, rows and a report."""
    from covseg.storage import LocalStore, entries

    root, only = _source(config.source)
    if only is None and config.output.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            f"-o {config.output} lies in {root}: the next run would score this one's pictures; go elsewhere"
        )
    source = LocalStore(root)
    chosen = [entry for entry in entries(source) if _wanted(entry.key, config, only)]
    if not chosen:
        empty = config.include == "*" and not config.exclude
        why = (
            "it holds no file" if empty else f"no key matches --include {config.include!r} --exclude {config.exclude!r}"
        )
        raise UsageError(f"nothing to score under {config.source}: {why}")
    if config.dry_run:
        return _tell(config, {"images": len(chosen), "bytes": sum(entry.size for entry in chosen), "dry_run": True})
    rows = _score(config, source, chosen)
    statuses = Counter(str(row.status) for row in rows)
    share = statuses["quarantined"] / max(statuses["scored"] + statuses["quarantined"], 1)
    summary: dict[str, Any] = {"images": len(rows), **statuses}
    summary["reasons"] = dict(sorted(Counter(str(row.reason) for row in rows if row.reason).items()))
    summary["accepted"] = share <= config.max_failed
    summary["report"], summary["table"] = str(config.output / "report.html"), str(config.output / "severity.csv")
    _tell(config, summary)
    _warn(config.output, rows)
    if summary["accepted"]:
        return 0
    message = f"not accepted: {share:.0%} of the images are quarantined, --max-failed allows {config.max_failed:.0%}"
    print(f"covseg: {message}", file=sys.stderr)
    return 3


def _warn(output: Path, rows: list[Row]) -> None:
    """Say what a person may not expect: nothing scored, or files of earlier runs beside these."""
    if not any(row.status == "scored" for row in rows):
        print(f"covseg: no image was scored; {output / 'severity.csv'} says why, image by image", file=sys.stderr)
    known = {row.input_id for row in rows}
    folders = (output / name for name in ("masks", "overlays", "rows", "probability"))
    stale = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.stem not in known]
    if stale:
        print(
            f"covseg: {len(stale)} files in {output} are of images that are not in this table (an earlier run, or "
            "images that changed since); remove them, or use a new folder",
            file=sys.stderr,
        )


def _source(path: Path) -> tuple[Path, str | None]:
    """Return the folder to list and, for a single image, its key."""
    if path.is_file():
        return path.parent, path.name
    if path.is_dir():
        return path, None
    if path.parts[0].endswith(":"):
        raise UsageError(f"{path.parts[0]}// is a bucket: predict reads files and folders here; use covseg score")
    raise UsageError(f"{path} is neither a file nor a folder; wanted an image or a folder of images")


def _wanted(key: str, config: PredictConfig, only: str | None) -> bool:
    if only is not None:
        return key == only
    return fnmatch.fnmatchcase(key, config.include) and not fnmatch.fnmatchcase(key, config.exclude)


def _score(config: PredictConfig, source: Store, chosen: list[Entry]) -> list[Row]:
    from covseg.model_folder.backends import open_backend
    from covseg.pipeline import Pipeline, resolve
    from covseg.predict import Outputs, predict
    from covseg.registry import open_model
    from covseg.storage import LocalStore

    folder = open_model(config.model)
    backend = open_backend(folder, config.backend)
    pipeline = Pipeline(folder.config, resolve(folder, backend, config.batch))
    streams = config.streams or len(os.sched_getaffinity(0))
    outputs = Outputs(config.overlay, config.probability, config.pictures)
    return predict(
        pipeline, backend, source, chosen, LocalStore(config.output), outputs, _progress(len(chosen)), streams
    )


def _progress(total: int) -> Callable[[Row], None]:
    """Return what is called with every finished row: a bar on a terminal, a line per 30 s elsewhere."""
    state = {"done": 0, "refused": 0, "start": time.monotonic(), "said": time.monotonic()}
    terminal = sys.stderr.isatty()

    def finished(row: Row) -> None:
        state["done"] += 1
        state["refused"] += row.status != "scored"
        now = time.monotonic()
        last = state["done"] == total
        if now - state["said"] < (0.2 if terminal else 30) and not (terminal and last):
            return
        state["said"] = now
        rate = state["done"] / max(now - state["start"], 1e-9)
        left = (total - state["done"]) / rate
        line = f"{state['done']}/{total} images, {rate:.1f}/s, {left:.0f} s left, {state['refused']} refused"
        print(
            f"\r{line}   " if terminal else line, end="\n" if last or not terminal else "", file=sys.stderr, flush=True
        )

    return finished


def _tell(config: PredictConfig, summary: dict[str, Any]) -> int:
    from covseg.records import RESEARCH_ONLY

    if config.json_:
        print(json.dumps({"intended_use": RESEARCH_ONLY, **summary}))
        return 0
    for name, value in summary.items():
        if not isinstance(value, dict):
            print(f"{name:>14}  {value}")
            continue
        for reason, count in value.items():
            print(f"{reason:>30}  {count}")
    print(RESEARCH_ONLY)
    return 0
