"""Which images get a picture in the report: a quota per group, so that no group crowds out the others.

In: the rows of a table, one by one or in DuckDB. Out: which belong to a `Group`, and in which order. Each group is
said twice, in Python for images that pass by once (`covseg.report.pictures.Gallery`) and in SQL for a snapshot's table
(`covseg.archive.pictures`); a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from covseg.records import Row
from covseg.stages.severity import GRADES, NOTES

MOST = 500  # pictures of a report


def asks_for_a_look(row: Row) -> bool:
    """Tell whether a scored image has a flag that is more than a note on its kind of file."""
    return row.status == "scored" and bool(set(row.qc_flags) - set(NOTES))


def _drawn(_: Row) -> float:
    return 0.0


@dataclass(frozen=True)
class Group:
    """Images that have a quota of their own.

    Parameters
    ----------
    name : str
        What they are.
    quota : int
        Of `MOST` pictures.
    holds : callable
        Whether a row belongs to it.
    where : str
        The same in SQL.
    rank : callable
        Higher first; among equals the lower id, and an id is a keyed hash: a random draw.
    order : str
        The same in SQL.
    """

    name: str
    quota: int
    holds: Callable[[Row], bool]
    where: str
    rank: Callable[[Row], float] = _drawn
    order: str = "input_id"


def _of_grade(grade: str) -> Group:
    return Group(grade, 36, lambda row: row.grade == grade, f"grade = '{grade}'")


def _doubtful(kind: str, is_kind: Callable[[Row], bool], where: str) -> Group:
    """Errors on marked images are larger; those on empty ones are all misses, and would be crowded out."""
    return Group(
        f"doubtful, {kind}", 50, lambda row: row.doubt is not None and is_kind(row), f"doubt IS NOT NULL AND {where}",
        lambda row: row.doubt or 0.0, "doubt DESC, input_id",
    )  # fmt: skip


_NOTES = ", ".join(f"'{note}'" for note in NOTES)
GROUPS = (
    _doubtful("marked", lambda row: (row.infected_fraction or 0) > 0, "infected_fraction > 0"),
    _doubtful("not marked", lambda row: not row.infected_fraction, "coalesce(infected_fraction, 0) = 0"),
    Group(
        "refused by the input filter", 60, lambda row: row.status == "out_of_scope" and row.stage == "input_filter",
        "status = 'out_of_scope' AND stage = 'input_filter'",
    ),
    Group(
        "at the border of the input filter", 60, lambda row: "out_of_distribution" in row.qc_flags,
        "list_contains(qc_flags, 'out_of_distribution')",
        lambda row: row.gate_score or 0.0, "coalesce(gate_score, 0) DESC, input_id",
    ),
    Group(
        "flagged", 100, asks_for_a_look, f"status = 'scored' AND NOT list_has_all([{_NOTES}], qc_flags)",
    ),
    *map(_of_grade, GRADES),
)  # fmt: skip
