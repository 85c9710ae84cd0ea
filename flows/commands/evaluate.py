"""``covseg evaluate``: judge a model on a labelled split; the whole table on one screen."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field


class EvaluateRun(BaseModel):
    """What the command and the flow `evaluate` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="'default', 'accurate', a model folder, or [REGISTRY/]NAME@TAG.")
    data: Path = Field(description="Folder with Train, Val, Test (COVID-QU-Ex), or with images/, masks/, labels.csv.")
    split: str = Field(default="Val", description="Name of the split; 'all' for a set without splits.")
    output: Annotated[Path, Parameter(alias="-o")] = Field(
        default=Path("evaluation"), description="Folder for metrics.json, cases.parquet and evaluation.html."
    )
    strata: tuple[str, ...] = Field(default=(), description="Only these strata; default: all.")
    limit: int | None = Field(default=None, ge=2, description="About so many films, spread over the strata.")
    lung: Literal["predicted", "truth"] = Field(
        default="predicted", description="Which lung mask clips the infection; truth only to compare with such papers."
    )
    backend: Literal["onnx", "torch"] = Field(
        default="onnx", description="What runs the model; torch is the reference."
    )
    batch: int = Field(default=4, ge=1, le=64, description="Films a forward pass.")
    streams: int | None = Field(
        default=None, ge=1, description="Batches side by side, one CPU thread each; default: all."
    )
    draws: int = Field(default=2000, ge=100, le=100_000, description="Resamples of the bootstrap.")

    def judge(self, progress: Callable[[int, int], None] = lambda *_: None) -> dict[str, Any]:
        """Judge the model, write the three files, and return the content of ``metrics.json``."""
        from covseg.evaluation.evaluate import Request, evaluate

        streams = self.streams or len(os.sched_getaffinity(0))
        given = self.model_dump(include=set(EvaluateRun.model_fields) - {"streams"})
        return evaluate(Request(**given, streams=streams), progress)


class EvaluateConfig(EvaluateRun):
    """What `covseg evaluate` can be told, by flags or by a TOML file."""

    json_: Annotated[bool, Parameter(name="--json")] = Field(default=False, description="Print the headline as JSON.")


def evaluate(config: Annotated[EvaluateConfig, Parameter(name="*")]) -> int:
    """Judge a model on a labelled split: every averaging convention, every stratum, with intervals."""
    content = config.judge(progress_line("films"))
    if config.json_:
        shown = {name: content[name] for name in ("headline", "data", "warnings", "cost")}
        print(json.dumps({"intended_use": content["intended_use"], **shown, "output": str(config.output)}))
        return 0
    print("\n".join(screen(content)))
    print(f"{config.output}/evaluation.html, metrics.json, cases.parquet. Research use only, not for diagnosis.")
    return 0


def progress_line(what: str) -> Callable[[int, int], None]:
    """Return what is called with done and total: a line that is rewritten on a terminal, one per 30 s elsewhere."""
    state = {"start": time.monotonic(), "said": time.monotonic()}
    terminal = sys.stderr.isatty()

    def tell(done: int, total: int) -> None:
        now = time.monotonic()
        if now - state["said"] < (0.2 if terminal else 30) and not (terminal and done == total):
            return
        state["said"] = now
        rate = done / max(now - state["start"], 1e-9)
        line = f"{done}/{total} {what}, {rate:.1f}/s, {(total - done) / rate:.0f} s left"
        end = "\n" if done == total or not terminal else ""
        print(f"\r{line}   " if terminal else line, end=end, file=sys.stderr, flush=True)

    return tell


def screen(content: dict[str, Any]) -> list[str]:
    """Lay the whole table on one screen: 100 columns, about 50 lines, the headline first."""
    values = {tuple(line[part] for part in _KEY): line for line in content["lines"]}
    data, head = content["data"], content["headline"]
    counts = ", ".join(f"{name} {count or 'absent'}" for name, count in data["counts"].items())
    lines = [
        f"{content['model']['id']} on {data['set']} {data['split']}: {data['films']} films ({counts})",
        f"COVID-19 only, per image: Dice {_full(head['covid_dice'])}  IoU {_full(head['covid_iou'])}",
        f"negative specificity:     {_full(head['negative_specificity'])}  (n {head['negative_specificity']['n']})",
        f"lung mask: {content['lung_mask']}; refused {_refused(data)}; left out {len(data['excluded'])}",
    ]
    lines += [f"WARNING  {warning}" for warning in content["warnings"]]
    named = [name for name, count in data["counts"].items() if count]
    lines += _pixel_table(values, [*named, "all"])
    lines += _other_table(values, [*named, "negatives", "all"], content["surface_status"])
    return [*lines, _last(content)]


_KEY = ("stratum", "part", "metric", "reduction", "empty")
_REDUCTIONS, _POLICIES = ("image", "batch(8)", "dataset"), ("one", "zero", "skip")
_METRICS = ("dice", "iou", "precision", "recall", "f1", "specificity", "accuracy")


def _full(estimate: dict[str, Any]) -> str:
    from covseg.evaluation.intervals import short

    value, low, high = (
        short(float("nan") if estimate[name] is None else estimate[name]) for name in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def _refused(data: dict[str, Any]) -> int:
    return sum(count for reasons in data["refused"].values() for count in reasons.values())


def _pixel_table(values: dict[tuple[Any, ...], Any], rows: list[str]) -> list[str]:
    """One line per stratum and metric, one column per convention."""
    lines = [
        f"{'infection mask':<26}" + "".join(f"|{reduction:^18}" for reduction in _REDUCTIONS),
        f"{'what 0/0 is worth:':<26}" + ("|" + "".join(f"{policy:>6}" for policy in _POLICIES)) * 3,
    ]
    for stratum in rows:
        for metric in _METRICS:
            label = f"{stratum if metric == 'dice' else '':<12} {metric:<13}"
            cells = [
                "|" + "".join(_cell(values, stratum, "infection", metric, reduction, policy) for policy in _POLICIES)
                for reduction in _REDUCTIONS
            ]
            lines.append(label + "".join(cells))
    return lines


def _cell(values: dict[tuple[Any, ...], Any], *key: str, digits: int = 3, width: int = 6) -> str:
    from covseg.evaluation.intervals import short

    line = values.get(key)
    return f"{'-' if line is None or line['value'] is None else short(line['value'], digits):>{width}}"


_OTHERS = {
    "sens": ("image level", "sensitivity"),
    "spec": ("image level", "specificity"),
    "AUROC": ("image level", "auroc"),
    "NSD": ("surface", "nsd"),
    "fr.MAE": ("fraction", "mae"),
    "bias": ("fraction", "bias"),
    "r": ("fraction", "pearson_r"),
    "LoA-": ("fraction", "limit_low"),
    "LoA+": ("fraction", "limit_high"),
    "FParea": ("error", "false_positive_area"),
}


def _other_table(values: dict[tuple[Any, ...], Any], rows: list[str], status: dict[str, dict[str, int]]) -> list[str]:
    """Image level, boundaries, fraction: one line per stratum, statuses beside the boundary means."""
    heads = "".join(f"{head:>7}" for head in _OTHERS)
    lines = [f"{'':<12}{heads}{'lung':>7}{'HD95':>6}  missed/alarm/refused"]
    for stratum in rows:
        cells = "".join(_cell(values, stratum, part, metric, "image", "", width=7) for part, metric in _OTHERS.values())
        lung = _cell(values, stratum, "lung", "dice", "image", "one", width=7)
        far = _cell(values, stratum, "surface", "hd95", "image", "", digits=1)
        counts = "/".join(str(status[stratum][name]) for name in ("missed", "false_alarm", "refused"))
        lines.append(f"{stratum:<12}{cells}{lung}{far}  {counts}")
    return lines


def _last(content: dict[str, Any]) -> str:
    lesions, cost = content["lesions"], content["cost"]
    used = f"; use {content['test_use']} of Test is in the ledger" if "test_use" in content else ""
    return (
        f"small lesions missed {lesions['small_missed']}/{lesions['small_lesions']}; {cost['parameters'] / 1e6:.2f} M "
        f"parameters, {cost['gflop']:.2f} GFLOP, {cost['films_per_second']} films/s ({cost['backend']}){used}"
    )
