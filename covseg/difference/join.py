"""Two severity tables to their `Difference`.

In: two stores with a ``severity.parquet``. Out: counts. The tables go through DuckDB piece by piece, so memory does not
grow with the archive (`covseg.archive.scratch`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from covseg.archive.scratch import Scratch, open_scratch
from covseg.difference.records import Bin, Cell, Changed, Difference, Fractions, Side
from covseg.errors import UsageError
from covseg.storage import Store

TABLE = "severity.parquet"
BINS = 40  # a side of the scatter
MOST = 50  # images listed that changed most
COLUMNS = (
    "input_id", "status", "reason", "grade", "infected_fraction", "model_id", "weights_sha256", "config_sha256",
    "code_version",
)  # fmt: skip
JOINED = """
CREATE TABLE joined AS
SELECT input_id, b.status AS status_before, a.status AS status_after,
    coalesce(b.reason, 'scored') AS reason_before, coalesce(a.reason, 'scored') AS reason_after,
    coalesce(b.grade, 'no lung') AS grade_before, coalesce(a.grade, 'no lung') AS grade_after,
    b.infected_fraction AS before, a.infected_fraction AS after
FROM tables.before AS b JOIN tables.after AS a USING (input_id)
"""
SAME = """status_before = status_after AND reason_before = reason_after
    AND grade_before = grade_after AND before IS NOT DISTINCT FROM after"""
BOTH = "status_before = 'scored' AND status_after = 'scored'"


def compare(before: Store, after: Store, older: tuple[int, Path] | None = None) -> Difference:
    """Join two destinations by input id.

    Parameters
    ----------
    before, after : Store
        Each with its newest table.
    older : tuple of int and Path, optional
        An older snapshot of `before`, its number and table, in place of its newest; `after` may then be the same.

    Raises
    ------
    UsageError
        When both are one, one has no table or not one of covseg's, or no image is in both.
    """
    if before.url == after.url and older is None:
        raise UsageError(
            f"{before.url} is given twice: wanted two destinations, such as those of two models, or --snapshot"
        )
    with open_scratch() as scratch:
        scratch.db.execute("CREATE SCHEMA tables")
        sides = [_load(before, scratch, "before", older), _load(after, scratch, "after")]
        scratch.db.execute(JOINED)
        common = _one(scratch.db, "SELECT count(*) FROM joined")
        if not common:
            raise UsageError(
                f"no image of {before.url} ({sides[0].images}) is in {after.url} ({sides[1].images}): an input id "
                "comes from project key, archive, key and ETag; score the same images with the same project key"
            )
        return _difference(scratch.db, sides[0], sides[1], common)


def _load(store: Store, scratch: Scratch, name: str, older: tuple[int, Path] | None = None) -> Side:
    """Bring one table into the database, and say what made its rows."""
    number, path = older or (None, scratch.folder / f"{name}.parquet")
    try:
        if older is None:
            store.download(TABLE, path)
    except FileNotFoundError:
        raise UsageError(
            f"{store.url} has no {TABLE}: wanted the -o of covseg predict, or the DEST of a covseg score that published"
        ) from None
    try:
        _insert(path, scratch.db, name)
    except (pa.ArrowInvalid, KeyError) as error:
        raise UsageError(f"{store.url}/{TABLE} is no table of covseg's: {error}; make it again") from None
    table = f"tables.{name}"
    images, ids = scratch.db.sql(f"SELECT count(*), count(DISTINCT input_id) FROM {table}").fetchall()[0]
    if images != ids:
        raise UsageError(f"{store.url}/{TABLE} has {images} rows for {ids} images: run covseg verify on it")
    known = {column: _values(scratch.db, table, column) for column in COLUMNS[-4:]}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Side(
        url=store.url, snapshot=number, sha256=digest, images=images, statuses=_counts(scratch.db, table),
        models=known["model_id"], weights=known["weights_sha256"], configs=known["config_sha256"],
        versions=known["code_version"],
    )  # fmt: skip


def _insert(path: Path, db: DuckDBPyConnection, name: str) -> None:
    with pq.ParquetFile(path) as file:
        if lacking := [column for column in COLUMNS if column not in file.schema_arrow.names]:
            raise KeyError(f"it lacks {', '.join(lacking)}")
        schema = pa.schema([file.schema_arrow.field(column) for column in COLUMNS])
        batches = (batch.select(COLUMNS) for batch in file.iter_batches(columns=list(COLUMNS)))
        db.from_arrow(pa.RecordBatchReader.from_batches(schema, batches)).create(f"tables.{name}")


def _values(db: DuckDBPyConnection, table: str, column: str) -> tuple[str, ...]:
    rows = db.sql(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY 1").fetchall()
    return tuple(value for (value,) in rows)


def _counts(db: DuckDBPyConnection, table: str) -> dict[str, int]:
    return dict(db.sql(f"SELECT status, count(*) FROM {table} GROUP BY status ORDER BY status").fetchall())


def _one(db: DuckDBPyConnection, query: str) -> Any:
    return db.sql(query).fetchall()[0][0]


def _cells(db: DuckDBPyConnection, name: str, where: str) -> tuple[Cell, ...]:
    query = f"SELECT {name}_before, {name}_after, count(*) FROM joined WHERE {where} GROUP BY ALL ORDER BY ALL"
    return tuple(Cell(before=before, after=after, images=count) for before, after, count in db.sql(query).fetchall())


def _difference(db: DuckDBPyConnection, before: Side, after: Side, common: int) -> Difference:
    count = "SELECT count(*) FROM joined WHERE "
    return Difference(
        before=before,
        after=after,
        common=common,
        gone=before.images - common,
        new=after.images - common,
        same=_one(db, count + SAME),
        newly_refused=_one(db, count + "status_before = 'scored' AND status_after <> 'scored'"),
        newly_scored=_one(db, count + "status_before <> 'scored' AND status_after = 'scored'"),
        grades=_cells(db, "grade", BOTH),
        refusals=_cells(db, "reason", "status_before <> status_after OR reason_before <> reason_after"),
        fractions=_fractions(db),
        bins=_bins(db),
        changed=_changed(db),
    )


def _fractions(db: DuckDBPyConnection) -> Fractions:
    columns = (
        "count(*), avg(after - before), avg(abs(after - before)), quantile_cont(abs(after - before), 0.5), "
        "quantile_cont(abs(after - before), 0.95), corr(before, after)"
    )
    query = f"SELECT {columns} FROM joined WHERE before IS NOT NULL AND after IS NOT NULL"
    count, *values = db.sql(query).fetchall()[0]
    rounded = [None if value is None or value != value else round(value, 6) for value in values]
    return Fractions(images=count, **dict(zip(list(Fractions.model_fields)[1:], rounded, strict=True)))


def _bins(db: DuckDBPyConnection) -> tuple[Bin, ...]:
    place = "least(floor({} * {}), {})::INTEGER"
    across, up = (place.format(side, BINS, BINS - 1) for side in ("before", "after"))
    where = "before IS NOT NULL AND after IS NOT NULL"
    query = f"SELECT {across}, {up}, count(*) FROM joined WHERE {where} GROUP BY ALL ORDER BY ALL"
    return tuple(Bin(before=x, after=y, images=count) for x, y, count in db.sql(query).fetchall())


def _changed(db: DuckDBPyConnection) -> tuple[Changed, ...]:
    query = (
        "SELECT input_id, before, after, grade_before, grade_after FROM joined WHERE before <> after "
        f"ORDER BY abs(after - before) DESC, input_id LIMIT {MOST}"
    )
    return tuple(Changed(**dict(zip(Changed.model_fields, row, strict=True))) for row in db.sql(query).fetchall())
