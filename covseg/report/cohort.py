"""Table to the numbers of a cohort: counts, distributions, zones, refusals.

In: the severity table, of any length. Out: a `Cohort`, small whatever the length. Everything is
counted by Arrow on whole columns; no row becomes a Python object here. A mean always comes with its
n, and null (an image without lungs, a refused file) is never counted as 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from covseg.report import words
from covseg.stages.severity import NOTES

BINS = 20  # of the histogram, 5 % each; exactly 0 % has its own bar
IDS_SHOWN = 100  # of one reason for refusal
IDENTITY = {
    "model_id": "Model",
    "weights_sha256": "Weights SHA-256",
    "config_sha256": "Config digest",
    "code_version": "covseg version",
    "backend": "Backend",
    "grade_table": "Grade table",
    "zone_method": "Zone method",
}
SIDES, LEVELS = ("right", "left"), ("upper", "middle", "lower")
MEASURED = [
    *words.SCALES,
    *(f"infected_fraction_{side}_{level}" for level in LEVELS for side in SIDES),
    "grade",
    "qc_flags",
]


@dataclass(frozen=True)
class Bar:
    """One counted name: `count` of `total`, with its explanation; `code` where the script knows it by another name."""

    name: str
    count: int
    total: int
    words: str = ""
    code: str = ""

    @property
    def share(self) -> float:
        """Of the total; 0 of 0 is 0."""
        return self.count / self.total if self.total else 0.0


@dataclass(frozen=True)
class Scale:
    """Where the cohort lies on one scale; the numbers are None when `n` is 0.

    Parameters
    ----------
    name : str
        Column.
    title, words : str
        What it is called, and what it means.
    n : int
        Images that have a value.
    mean, low, median, high : float or None
        `low` and `high` are the quartiles.
    """

    name: str
    title: str
    words: str
    n: int
    mean: float | None
    low: float | None
    median: float | None
    high: float | None


@dataclass(frozen=True)
class Zone:
    """One of six lung zones, the patient's side."""

    side: str
    level: str
    n: int
    mean: float | None
    affected: float | None


@dataclass(frozen=True)
class Refusal:
    """All inputs refused for one reason; `ids` are the first `IDS_SHOWN` in order."""

    bar: Bar
    status: str
    ids: list[str]


@dataclass(frozen=True)
class Cohort:
    """Everything the report says of a table, but for its single rows.

    Of the `planned` inputs some are `scored` (images with a mask); of these `no_lungs` have no lung, `zero` are at
    exactly 0 %, `flagged` have a flag that asks for a look, and `noted` any flag at all. The histogram has `BINS` bars
    above 0.
    """

    planned: int
    scored: int
    no_lungs: int
    zero: int
    flagged: int
    noted: int
    statuses: list[Bar]
    grades: list[Bar]
    flags: list[Bar]
    histogram: list[Bar]
    scales: list[Scale]
    zones: list[Zone]
    refusals: list[Refusal]
    identity: dict[str, list[str]]

    @property
    def refused(self) -> int:
        """Planned inputs without a mask."""
        return self.planned - self.scored

    @property
    def measured(self) -> int:
        """Scored images that have an infected fraction."""
        return self.scored - self.no_lungs

    @property
    def bars_of_fraction(self) -> list[Bar]:
        """The bar of exactly 0 % and those of the histogram; the code is the place."""
        bars = [Bar("0 %", self.zero, self.measured), *self.histogram]
        return [replace(bar, code=str(place)) for place, bar in enumerate(bars)]

    def ended(self, status: str) -> int:
        """Planned inputs that ended with this status."""
        return sum(bar.count for bar in self.statuses if bar.name == status)


def summarise(table: pa.Table) -> Cohort:
    """Count a severity table; the columns that name a source (key, etag) are not needed and not read."""
    scored = table.select(MEASURED).filter(pc.equal(table["status"], "scored"))
    fraction = scored["infected_fraction"].drop_null()
    identity = {title: sorted(map(str, _counts(table[name].drop_null()))) for name, title in IDENTITY.items()}
    return Cohort(
        planned=len(table),
        scored=len(scored),
        no_lungs=len(scored) - len(fraction),
        zero=_true(pc.equal(fraction, 0)),
        flagged=_true(_asks_for_a_look(scored["qc_flags"])),
        noted=_true(pc.greater(pc.list_value_length(scored["qc_flags"]), 0)),
        statuses=_bars(_counts(table["status"]), len(table), words.STATUSES),
        grades=_bars(
            _counts(scored["grade"].drop_null()), len(fraction), _edges(identity["Grade table"]), keep_empty=True
        ),
        flags=_bars(_counts(pc.list_flatten(scored["qc_flags"])), len(scored), words.FLAGS),
        histogram=_histogram(fraction),
        scales=[_scale(name, scored[name]) for name in words.SCALES],
        zones=[_zone(side, level, scored) for level in LEVELS for side in SIDES],
        refusals=_refusals(table),
        identity=identity,
    )


def _edges(tables: list[str]) -> dict[str, str]:
    """Return the grades of the one grade table in use; none where rows disagree or the table is not known."""
    return words.GRADE_TABLES.get(tables[0], {}) if len(tables) == 1 else {}


def _true(answers: pa.ChunkedArray) -> int:
    return int(pc.sum(answers).as_py() or 0)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist()}


def _asks_for_a_look(flags: pa.ChunkedArray) -> pa.ChunkedArray:
    """Say of each image whether a flag is left when the notes on its kind of file are taken away."""
    left = pc.replace_substring_regex(pc.binary_join(flags, ";"), pattern="|".join((*NOTES, ";")), replacement="")
    return pc.not_equal(left, "")


def _bars(counts: dict[str, int], total: int, meanings: dict[str, str], keep_empty: bool = False) -> list[Bar]:
    """Order by the known names, then the unknown ones; names nobody has are dropped unless kept."""
    names = [name for name in meanings if keep_empty or name in counts]
    names += sorted(name for name in counts if name not in meanings)
    return [Bar(name, counts.get(name, 0), total, meanings.get(name, words.UNKNOWN)) for name in names]


def _histogram(fraction: pa.ChunkedArray) -> list[Bar]:
    """Count fractions above 0 in `BINS` equal bins; each holds its lower edge, the last also 100 %."""
    above = fraction.filter(pc.greater(fraction, 0))
    # Rounded first: 0.15 * 20 is 3.0000000000000004 at best and 2.9999999999999996 at worst.
    bins = pc.min_element_wise(pc.floor(pc.round(pc.multiply(above, BINS), ndigits=9)), BINS - 1)
    counts = {str(number): count for number, count in _counts(pc.cast(bins, pa.int32())).items()}
    edges = [round(100 * number / BINS) for number in range(BINS + 1)]
    names = [f"{low} to {'' if high == 100 else 'under '}{high} %" for low, high in pairwise(edges)]
    return [Bar(name, counts.get(str(number), 0), len(fraction)) for number, name in enumerate(names)]


def _together(column: pa.ChunkedArray) -> pa.Array:
    """Drop nulls and join the chunks: a mean must not depend on how the table was cut."""
    return column.drop_null().combine_chunks()


def _scale(name: str, column: pa.ChunkedArray) -> Scale:
    values = _together(column)
    low, median, high = pc.quantile(values, [0.25, 0.5, 0.75]).to_pylist()
    return Scale(name, *words.SCALES[name], len(values), pc.mean(values).as_py(), low, median, high)


def _zone(side: str, level: str, scored: pa.Table) -> Zone:
    values = _together(scored[f"infected_fraction_{side}_{level}"])
    affected = _true(pc.greater(values, 0)) / len(values) if len(values) else None
    return Zone(side, level, len(values), pc.mean(values).as_py(), affected)


def _refusals(table: pa.Table) -> list[Refusal]:
    """Group refused inputs by status and reason, the known reasons in their own order."""
    refused = table.select(["input_id", "status", "reason"]).filter(pc.not_equal(table["status"], "scored"))
    groups = refused.group_by(["status", "reason"]).aggregate([([], "count_all")]).to_pylist()
    order = list(words.REASONS)
    groups.sort(
        key=lambda group: (order.index(group["reason"]) if group["reason"] in order else len(order), str(group))
    )
    return [_refusal(refused, group, len(table)) for group in groups]


def _refusal(refused: pa.Table, group: dict[str, str | int], total: int) -> Refusal:
    reason, status, count = group["reason"], group["status"], group["count_all"]
    chosen = pc.and_(pc.equal(refused["status"], status), pc.equal(refused["reason"], reason))
    ids = refused.filter(chosen)
    first = ids.take(pc.select_k_unstable(ids, IDS_SHOWN, [("input_id", "ascending")]))["input_id"].to_pylist()
    return Refusal(
        Bar(str(reason), int(count), total, words.REASONS.get(str(reason), words.UNKNOWN)), str(status), first
    )
