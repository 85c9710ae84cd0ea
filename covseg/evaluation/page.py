"""The evaluation as one offline HTML page: a pure function of its numbers, films and pictures.

The content security policy allows this page's own style, by its digest, and ``data:`` images; there
is no script and no address of anything outside the file.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from covseg.evaluation import charts, published
from covseg.evaluation.cases import Cases
from covseg.evaluation.convention import METRICS, REDUCTIONS, Empty, ratios
from covseg.evaluation.imagelevel import reliability, roc_curve
from covseg.evaluation.intervals import Floats, short
from covseg.evaluation.pictures import COLUMNS, MISSED, Strip

POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"


def render_page(template: str, **content: Any) -> bytes:
    """Fill one of our templates, with the style and its policy.

    Parameters
    ----------
    template : str
        File name below ``templates``.
    **content
        What the template names; autoescaped.
    """
    style = files("covseg.evaluation").joinpath("templates", "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("covseg.evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"short": lambda value, digits=3: "-" if value is None else short(float(value), digits)}
    page = environment.get_template(template).render(
        style=Markup(style), policy=POLICY.format(digest), **content  # noqa: S704 - our own file
    )  # fmt: skip
    return page.encode()


def render(content: dict[str, Any], cases: Cases, strips: list[Strip]) -> bytes:
    """Return the evaluation's page.

    Parameters
    ----------
    content : dict
        Of ``metrics.json``.
    cases : Cases
    strips : list of Strip
        In the order shown.
    """
    return render_page(
        "evaluation.html.j2",
        content=content,
        values={tuple(line[part] for part in _KEY): line for line in content["lines"]},
        rows=[*[name for name, count in content["data"]["counts"].items() if count], "negatives", "all"],
        metrics=METRICS,
        reductions=[str(one) for one in REDUCTIONS],
        policies=[str(one) for one in Empty],
        charts=_charts(cases),
        anchors=[(one, _warning(one)) for one in published.ANCHORS],
        second_reader=published.SECOND_READER,
        columns=COLUMNS,
        shelves=_group(strips),
        missed=[strip for strip in strips if strip.shelf == MISSED],
    )


_KEY = ("stratum", "part", "metric", "reduction", "empty")


def _warning(anchor: published.Anchor) -> str | None:
    if anchor.dice is None or anchor.iou is None:
        return None
    return published.impossible_pair(anchor.dice, anchor.iou)


def _group(strips: list[Strip]) -> dict[str, list[Strip]]:
    """Group the grid's strips by stratum and true severity."""
    groups: dict[str, list[Strip]] = {}
    for strip in strips:
        if strip.shelf != MISSED:
            groups.setdefault(f"{strip.stratum}, truth {strip.grade}", []).append(strip)
    return groups


def _charts(cases: Cases) -> list[tuple[str, str]]:
    """Draw every chart that these films allow; (URI, words for those who cannot see it)."""
    drawn = []
    positive, dice = cases.positive, ratios(cases.counts(), Empty.ZERO, cases.refused)[:, 0]
    if positive.any():
        named = {str(name): dice[positive & (cases.strata == name)] for name in np.unique(cases.strata[positive])}
        drawn.append((charts.histogram(named, "Dice per film, films with infection", "Dice"), "Histogram of Dice"))
        area = (cases.column("tp") + cases.column("fn")) / (cases.column("height") * cases.column("width"))
        labels = "true infected share of the film, %", "Dice"
        plot = charts.scatter(100 * area[positive], dice[positive], "Dice against lesion size", labels, log=True)
        drawn.append((plot, "Dice against lesion size"))
    predicted, truth = cases.column("fraction"), cases.column("fraction_truth")
    known = ~np.isnan(predicted) & ~np.isnan(truth)
    if known.sum() > 1:
        drawn.append((_bland_altman(predicted[known], truth[known]), "Bland-Altman plot of the infected fraction"))
    presence = cases.column("presence")
    scored = ~np.isnan(presence)
    if positive[scored].any() and not positive[scored].all():
        drawn += _presence_charts(presence[scored], positive[scored])
    return drawn


def _bland_altman(predicted: Floats, truth: Floats) -> str:
    difference = predicted - truth
    bias, spread = difference.mean(), 1.96 * difference.std(ddof=1)
    levels = {"bias": bias, "upper limit": bias + spread, "lower limit": bias - spread}
    labels = "mean of predicted and true fraction", "predicted - true"
    return charts.scatter((predicted + truth) / 2, difference, "Infected fraction: agreement", labels, levels)


def _presence_charts(presence: Floats, positive: Any) -> list[tuple[str, str]]:
    roc = charts.lines(
        {"image-level probability": roc_curve(presence, positive)}, "ROC: any infection",
        ("1 - specificity", "sensitivity"), diagonal=True,
    )  # fmt: skip
    said, seen, _ = map(np.array, zip(*reliability(presence, positive), strict=True))
    bins = charts.lines(
        {"bins of .1": (said, seen)}, "Reliability of the probability", ("said", "seen"), diagonal=True, markers=True
    )
    return [(roc, "ROC curve"), (bins, "Reliability curve")]
