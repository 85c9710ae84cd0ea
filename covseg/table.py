"""The severity table: rows to Parquet and CSV, byte for byte the same for the same rows.

In: `Row` records. Out: bytes. Rows are sorted by key; floats carry six decimals; a CSV cell that a
spreadsheet would run as a formula is disarmed by a leading quote, and a carriage return in it, which
readers take for the end of a line, stands as a backslash and an r.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from covseg.records import RESEARCH_ONLY, Row

_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "tuple[str, ...]": pa.list_(pa.string())}
Cell = str | int | float | list[str] | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _arrow_type(annotation: str) -> pa.DataType:
    return _TYPES.get(annotation.removesuffix(" | None"), pa.string())


SCHEMA = pa.schema(
    [(column.name, _arrow_type(str(column.type))) for column in fields(Row)], {"intended_use": RESEARCH_ONLY}
)


def cells(row: Row) -> dict[str, Cell]:
    """Return a row as plain values: floats rounded to six decimals, enums as text."""
    return {column.name: _plain(getattr(row, column.name)) for column in fields(Row)}


def _plain(value: Any) -> Cell:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, tuple):
        return list(value)
    return text(value) if isinstance(value, str) else value


def text(value: str) -> str:
    """Return what UTF-8 can hold: a byte of a file name that is not UTF-8 becomes its escape."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _place(row: Row) -> tuple[str, str]:
    """Order rows by key as text, which is UTF-8 order; two versions of one key by their ids."""
    return text(row.key), row.input_id


def mark_duplicates(rows: Iterable[Row]) -> list[Row]:
    """Point every repeated content at the first key that has it, and flag it."""
    first: dict[str, str] = {}
    marked = []
    for row in sorted(rows, key=_place):
        original = first.setdefault(row.sha256, row.input_id) if row.sha256 else row.input_id
        repeated = original != row.input_id
        flags = (*row.qc_flags, "duplicate_content")
        marked.append(replace(row, duplicate_of=original, qc_flags=flags) if repeated else row)
    return marked


def quarantined_share(statuses: Mapping[str, int]) -> float:
    """Return the part of the readable images that is quarantined, which a run's ``max_failed`` allows or not.

    Parameters
    ----------
    statuses : mapping
        Status to count.

    Examples
    --------
    >>> quarantined_share({"scored": 3, "quarantined": 1, "out_of_scope": 9}), quarantined_share({})
    (0.25, 0.0)
    """
    failed = statuses.get("quarantined", 0)
    return failed / (statuses.get("scored", 0) + failed) if failed else 0.0


def lost_share(statuses: Mapping[str, int]) -> float:
    """Return the part of all images that was missing or changed when it was read; `statuses` as above.

    Examples
    --------
    >>> lost_share({"scored": 6, "missing": 1, "changed": 1}), lost_share({})
    (0.25, 0.0)
    """
    lost = statuses.get("missing", 0) + statuses.get("changed", 0)
    return lost / sum(statuses.values()) if lost else 0.0


def to_arrow(rows: Iterable[Row]) -> pa.Table:
    """Return the table in `SCHEMA`, sorted by key."""
    ordered = sorted(rows, key=_place)
    return pa.Table.from_pylist([cells(row) for row in ordered], schema=SCHEMA)


def to_parquet(table: pa.Table, compression: str = "zstd") -> bytes:
    """Return Parquet bytes, the same for the same table."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=compression)
    return sink.getvalue()


def to_csv(table: pa.Table) -> bytes:
    """Return UTF-8 CSV with a header; lists joined by ``;``, null as an empty cell."""
    return csv_header(table.schema) + csv_lines(table)


def csv_header(schema: pa.Schema) -> bytes:
    """Return the first line."""
    return ",".join(schema.names).encode() + b"\n"


def csv_lines(table: pa.Table) -> bytes:
    """Return the lines of some rows, for a file that is written piece by piece."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    for batch in table.to_batches(max_chunksize=10_000):
        columns = [[_cell(value) for value in column.to_pylist()] for column in batch.columns]
        writer.writerows(zip(*columns, strict=True))
    return sink.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = ";".join(value)
    if not isinstance(value, str):
        return value
    disarmed = "'" + value if value.startswith(_FORMULA) else value
    return disarmed.replace("\r", "\\r")  # the csv module before Python 3.13 leaves it bare
