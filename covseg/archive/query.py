"""Questions to a published table: one SELECT over ``severity``, read only; small cells of a breakdown are withheld.

In: a `Run`, SQL, and perhaps a CSV joined by key. Out: an `Answer`. The SQL sees this one table and nothing of the
machine. What a breakdown counts stands in a column ``n``; a row whose `n` is below `SMALLEST` is withheld. That keeps
a cell from naming a person; it does not keep anybody with the table from asking otherwise.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from covseg.archive.manifests import published_table
from covseg.archive.runs import Run
from covseg.errors import UsageError

SMALLEST = 5  # images of a cell that is shown
TABLE, MEMORY = "severity", "2GB"
_GROUPS = re.compile(r"\b(group\s+by|distinct|pivot)\b", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Answer:
    """Columns, rows, and how many rows were withheld because their `n` is small."""

    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    withheld: int


def query(run: Run, sql: str, metadata: Path | None = None) -> Answer:
    """Ask the newest published table.

    Parameters
    ----------
    sql : str
        One SELECT over ``severity``; one that groups has ``count(*) AS n`` among its columns.
    metadata : Path or None
        CSV whose column ``key`` joins its other columns to the table; a key that the table lacks is passed over.

    Raises
    ------
    UsageError
        For another statement, a breakdown without `n`, SQL that cannot run, or a CSV that cannot be joined.
    NotPublished
        Without a snapshot, or when the table is not the published one.
    """
    with duckdb.connect(":memory:", config={"memory_limit": MEMORY, "threads": 2}) as db:
        db.register("published", pq.read_table(io.BytesIO(published_table(run))))
        db.execute(f"CREATE TABLE {TABLE} AS SELECT * FROM published {_joined(db, metadata)}")  # noqa: S608 - our names
        db.unregister("published")
        db.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            _check(sql)
            result = db.execute(sql)
            columns, rows = tuple(column[0] for column in result.description), result.fetchall()
        except duckdb.Error as error:
            raise UsageError(f"this SQL cannot run: {str(error).splitlines()[0]}") from error
    return _withheld(sql, columns, rows)


def breakdown(names: Sequence[str]) -> str:
    """Return the SQL that breaks the numbers of the scored images down by some columns.

    Raises
    ------
    UsageError
        For what is no name of a column.

    Examples
    --------
    >>> breakdown(["patient_sex"]).split(",")[0]
    'SELECT "patient_sex"'
    """
    if strange := [name for name in names if not _NAME.fullmatch(name)]:
        raise UsageError(f"--by {strange[0]!r}: wanted names of columns, with commas between them")
    by = ", ".join(f'"{name}"' for name in names)
    return (
        f"SELECT {by}, count(*) AS n, count(infected_fraction) AS measured, "  # noqa: S608 - names, checked above
        "round(avg(infected_fraction), 4) AS mean_infected_fraction, "
        "round(median(infected_fraction), 4) AS median_infected_fraction, "
        "round(avg((infected_fraction > 0)::INT), 4) AS share_with_infection "
        f"FROM {TABLE} WHERE status = 'scored' GROUP BY {by} ORDER BY {by}"
    )


def _check(sql: str) -> None:
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UsageError(f"wanted one SELECT over the table {TABLE}; it is only read")


def _withheld(sql: str, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> Answer:
    if "n" not in columns:
        if _GROUPS.search(sql):
            raise UsageError("a breakdown says how many images are in a cell: put count(*) AS n among its columns")
        return Answer(columns, rows, 0)
    place = columns.index("n")
    shown = [row for row in rows if isinstance(count := row[place], int) and count >= SMALLEST]
    return Answer(columns, shown, len(rows) - len(shown))


def _joined(db: duckdb.DuckDBPyConnection, metadata: Path | None) -> str:
    """Read the CSV and return the join, once it is found to be one row a key."""
    if metadata is None:
        return ""
    try:
        db.execute("CREATE TEMP TABLE metadata AS SELECT * FROM read_csv(?, header = true)", [str(metadata)])
    except duckdb.Error as error:
        raise UsageError(f"--metadata {metadata} is no readable CSV: {str(error).splitlines()[0]}") from error
    columns = [name for name, *_ in db.execute("DESCRIBE metadata").fetchall()]
    known = [name for name, *_ in db.execute("DESCRIBE published").fetchall()]
    if "key" not in columns or "key" not in known:
        where = "the CSV" if "key" not in columns else "the table, which was published with --hide-keys,"
        raise UsageError(f"--metadata joins by key: {where} has no column key")
    if taken := sorted((set(columns) & set(known)) - {"key"}):
        raise UsageError(f"--metadata has a column {taken[0]!r}, which the table has too: rename it")
    db.execute("ALTER TABLE metadata ALTER key TYPE VARCHAR")
    if repeated := db.execute("SELECT count(*) - count(DISTINCT key) FROM metadata").fetchall()[0][0]:
        raise UsageError(f"--metadata has {repeated} rows whose key stands there already: wanted one row a key")
    return "LEFT JOIN metadata USING (key)"
