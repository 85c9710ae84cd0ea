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
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from covseg.records import RESEARCH_ONLY, Row
from covseg.settings.dicom import COLUMNS, DICOM_KINDS, NO_DICOM, DicomSettings

INTENDED_USE = "intended_use"  # last column of the CSV; Parquet has it in its metadata
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "tuple[str, ...]": pa.list_(pa.string())}
YOUNGER = ("doubt", "doubt_reason", "input_filter")  # columns that rows scored before they were there lack
Cell = str | int | float | list[str] | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


_NAMES = tuple(column.name for column in fields(Row))
_values = attrgetter(*_NAMES)


def _arrow_type(annotation: str) -> pa.DataType:
    return _TYPES.get(annotation.removesuffix(" | None"), pa.string())


_OF_DICOM: dict[str, str] = {f"{kind}_uri": kind for kind in DICOM_KINDS}
_OF_DICOM |= {column: name for name, column in COLUMNS.items()}


def schema_with(dicom: DicomSettings = NO_DICOM) -> pa.Schema:
    """Return the columns of a table of a run that makes these DICOM objects and columns; others have no column."""
    wanted = None, *dicom.kinds, *dicom.columns
    names = [column for column in fields(Row) if _OF_DICOM.get(column.name) in wanted]
    return pa.schema([(column.name, _arrow_type(str(column.type))) for column in names], {INTENDED_USE: RESEARCH_ONLY})


SCHEMA = schema_with()


def cells(row: Row) -> dict[str, Cell]:
    """Return a row as plain values: floats rounded to six decimals, enums as text."""
    return dict(zip(_NAMES, map(_plain, _values(row)), strict=True))


def _plain(value: Any) -> Cell:
    if value is None:
        return None
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, tuple):
        return list(value)
    return text(value) if isinstance(value, str) else value


def text(value: str) -> str:
    """Return what UTF-8 can hold: a byte of a file name that is not UTF-8 becomes its escape."""
    return str(value) if value.isascii() else str(value).encode("utf-8", "backslashreplace").decode()


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


def objections(
    statuses: Mapping[str, int], max_failed: float, max_out_of_scope: float = 1.0, max_missing: float | None = None
) -> list[str]:
    """Say in words why what came of some images is not accepted; no objection where it is, or where no image was.

    Parameters
    ----------
    statuses : mapping
        Status to count.
    max_failed, max_out_of_scope : float
        Largest share that is quarantined, of those scored or quarantined; and that is out of scope, of all.
    max_missing : float or None
        Largest share that was missing or changed when it was read, of all; None allows any.

    Examples
    --------
    >>> objections({"scored": 3, "quarantined": 1}, 0.05)
    ['1 images quarantined, 25.0% of the readable; --max-failed allows 5.0%']
    >>> objections({"out_of_scope": 2}, 0.05)
    ['no image was scored']
    """
    images, outside = sum(statuses.values()), statuses.get("out_of_scope", 0)
    found = []
    if images and not statuses.get("scored"):
        found.append("no image was scored")
    if (share := quarantined_share(statuses)) > max_failed:
        failed = f"{statuses['quarantined']} images quarantined, {share:.1%} of the readable"
        found.append(f"{failed}; --max-failed allows {max_failed:.1%}")
    if images and outside / images > max_out_of_scope:
        beyond = f"{outside} images out of scope, {outside / images:.1%} of all"
        found.append(f"{beyond}; --max-out-of-scope allows {max_out_of_scope:.1%}")
    if max_missing is not None and (lost := lost_share(statuses)) > max_missing:
        found.append(f"{lost:.1%} missing or changed at reading; --max-missing allows {max_missing:.1%}")
    return found


def to_arrow(rows: Iterable[Row], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Return the table in `schema`, sorted by key."""
    ordered = sorted(rows, key=_place)
    return pa.Table.from_pylist([cells(row) for row in ordered], schema=schema)


def with_all_columns(rows: pa.Table, schema: pa.Schema | None = None) -> pa.Table:
    """Return rows in a schema (`SCHEMA`): a column that is younger than the rows is null in them."""
    wanted = SCHEMA if schema is None else schema
    younger = [name for name in YOUNGER if name not in rows.column_names]
    for name in younger:
        rows = rows.append_column(name, pa.nulls(len(rows), wanted.field(name).type))
    return rows.select(wanted.names).cast(wanted) if younger else rows.cast(wanted)


def to_parquet(table: pa.Table, compression: str = "zstd") -> bytes:
    """Return Parquet bytes, the same for the same table."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=compression)
    return sink.getvalue()


def to_csv(table: pa.Table) -> bytes:
    """Return UTF-8 CSV with a header; lists joined by ``;``, null as an empty cell, last what it may be used for."""
    return csv_header(table.schema) + csv_lines(table)


def csv_header(schema: pa.Schema) -> bytes:
    """Return the first line."""
    return ",".join([*schema.names, INTENDED_USE]).encode() + b"\n"


def csv_lines(table: pa.Table) -> bytes:
    """Return the lines of some rows, for a file that is written piece by piece."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    for batch in table.to_batches(max_chunksize=10_000):
        columns = [[_cell(value) for value in column.to_pylist()] for column in batch.columns]
        writer.writerows(zip(*columns, [RESEARCH_ONLY] * len(batch), strict=True))
    return sink.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = ";".join(value)
    if not isinstance(value, str):
        return value
    disarmed = "'" + value if value.startswith(_FORMULA) else value
    return disarmed.replace("\r", "\\r")  # the csv module before Python 3.13 leaves it bare
