"""An evaluation as one screen of text: 100 columns, about 50 lines."""

from __future__ import annotations

from typing import Any

from covseg.metrics.intervals import short


def screen(content: dict[str, Any]) -> list[str]:
    """Lay the whole table on one screen: 100 columns, about 50 lines, the headline first."""
    values = {tuple(line[part] for part in _KEY): line for line in content["lines"]}
    data, head = content["data"], content["headline"]
    counts = ", ".join(f"{name} {count or 'absent'}" for name, count in data["counts"].items())
    lines = [
        f"{content['model']['id']} on {data['set']} {data['split']}: {data['films']} images ({counts})",
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
