"""A snapshot's rows: read from its commits, checked against its plan, sorted, and written to table files.

In: a `Run` and a `Plan`. Out: Parquet and CSV files in a scratch folder, and what was counted. The files
are a function of the rows alone: the same for any cut into shards, plans or attempts, because DuckDB
sorts by what no two rows share, and because its result is cut anew on the disk.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from covseg import table
from covseg.archive.commits import commit_name
from covseg.archive.parts import Plan, Shard, read_part
from covseg.archive.records import CommitRecord
from covseg.archive.runs import Run
from covseg.archive.scratch import Scratch
from covseg.errors import NotPublished
from covseg.settings.dicom import NO_DICOM, DicomSettings

READ_AT_ONCE = 8  # shards on their way at once
GROUP_ROWS = 65_536  # rows of a row group
STATUSES = "SELECT status, count(*) FROM rows GROUP BY status"
REASONS = "SELECT reason, count(*) FROM rows WHERE reason IS NOT NULL GROUP BY reason"
GRADES = "SELECT grade, count(*) FROM rows WHERE grade IS NOT NULL GROUP BY grade"
REPLACED = "DELETE FROM rows WHERE input_id IN (SELECT input_id FROM again)"
NO_LUNGS = "SELECT count(*) FROM rows WHERE status = 'scored' AND list_contains(qc_flags, 'lungs_not_found')"
DUPLICATES = """
CREATE TABLE duplicates AS
SELECT input_id, first_value(input_id) OVER (PARTITION BY sha256 ORDER BY key, input_id) AS original
FROM rows WHERE sha256 IS NOT NULL QUALIFY original <> input_id
"""
DAYS = ", days_since_first - min(days_since_first) OVER (PARTITION BY patient_pseudonym) AS days_since_first"
MARKED = """
SELECT rows.* REPLACE (
    original AS duplicate_of,
    CASE WHEN original IS NULL THEN qc_flags ELSE list_append(qc_flags, 'duplicate_content') END AS qc_flags
    {days}
) FROM rows LEFT JOIN duplicates USING (input_id)
"""


@dataclass(frozen=True)
class Counts:
    """What was counted in all rows."""

    statuses: Counter[str]
    reasons: Counter[str]
    grades: Counter[str]  # of scored images
    no_lungs: int  # scored images without a lung
    dicom: dict[str, int]  # objects by kind, and scored images without any; empty where none were asked for
    commits: dict[str, str]  # sha256 of every shard's commit record


def collect(run: Run, plan: Plan, db: DuckDBPyConnection) -> Counts:
    """Read every row of the snapshot, in any order, into the table ``rows``.

    Raises
    ------
    NotPublished
        When a shard has no commit, or its table is not the one committed, or not of the plan's rows.
    """
    commits: dict[str, str] = {}
    db.from_arrow(table.schema_with(run.dicom).empty_table()).create("rows")
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for part in plan.parts:
            shards = list(read_part(run.dest, part))
            read = list(pool.map(partial(read_shard, run), shards))
            commits |= {shard.id: digest for shard, (digest, _) in zip(shards, read, strict=True)}
            fresh = db.from_arrow(pa.concat_tables(rows for _, rows in read))
            if part.retry:
                fresh.create("again")
                db.execute(REPLACED)
                fresh = db.table("again")
            fresh.insert_into("rows")
            db.execute("DROP TABLE IF EXISTS again")
    statuses, reasons, grades = (Counter(dict(db.sql(query).fetchall())) for query in (STATUSES, REASONS, GRADES))
    ((no_lungs,),) = db.sql(NO_LUNGS).fetchall()
    if statuses.total() != plan.images:
        raise NotPublished(f"{statuses.total()} rows for {plan.images} planned images: run covseg verify")
    return Counts(statuses, reasons, grades, no_lungs, _dicom(run, db), commits)


def _dicom(run: Run, db: DuckDBPyConnection) -> dict[str, int]:
    if not run.dicom.kinds:
        return {}
    rows = db.table("rows")
    of_none = " AND ".join(f"{kind}_uri IS NULL" for kind in run.dicom.kinds)
    conditions = {kind: f"{kind}_uri IS NOT NULL" for kind in run.dicom.kinds} | {"without": of_none}
    return {name: len(rows.filter(f"status = 'scored' AND {where}")) for name, where in conditions.items()}


def read_shard(run: Run, shard: Shard) -> tuple[str, pa.Table]:
    """Return the digest of a shard's commit and its rows, once they are found to be the plan's.

    Raises
    ------
    NotPublished
        When they are not, or there is no commit.
    """
    try:
        data = run.commits.read(commit_name(shard.id))
        named = CommitRecord.decode(data, f"{commit_name(shard.id)} in {run.commits.url}").table
        sheet = run.dest.read(named.name)
    except FileNotFoundError:
        raise NotPublished(f"shard {shard.id} has no commit, or its table is gone: run covseg score again") from None
    if hashlib.sha256(sheet).hexdigest() != named.sha256:
        raise NotPublished(f"{named.name} is not what its commit names: run covseg verify")
    rows = table.with_all_columns(pq.read_table(io.BytesIO(sheet)), table.schema_with(run.dicom))
    planned = sorted((table.text(entry.key), entry.etag) for entry in shard.entries)
    committed = sorted(zip(rows["key"].to_pylist(), rows["etag"].to_pylist(), strict=True))
    if committed != planned:
        raise NotPublished(f"shard {shard.id} has {len(committed)} rows that are not its {len(planned)} planned images")
    return hashlib.sha256(data).hexdigest(), rows


def finish(scratch: Scratch, *, hide_keys: bool, dicom: DicomSettings = NO_DICOM) -> pa.Table:
    """Turn the table ``rows`` into ``severity.parquet`` and ``severity.csv``; return what they hold, on disk.

    Without keys the rows go by input id: their order would tell the keys' order.
    """
    schema = table.schema_with(dicom)
    if hide_keys:
        schema = schema.remove(schema.get_field_index("key"))
    scratch.db.execute(DUPLICATES)
    days = DAYS if "days_since_first" in dicom.columns else ""
    marked = scratch.db.sql(MARKED.format(days=days)).select(", ".join(schema.names))
    ordered = marked.order("input_id" if hide_keys else "key, input_id")
    severity = _on_disk(ordered.to_arrow_reader(GROUP_ROWS).cast(schema), scratch.folder / "severity.arrow")
    scratch.db.execute("DROP TABLE rows")
    _write(severity, scratch.folder)
    return severity


def _on_disk(rows: pa.RecordBatchReader, path: Path) -> pa.Table:
    """Write a stream to an Arrow file and map it: its pages belong to the system's cache, not to this process."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        for batch in rows:
            writer.write_batch(batch)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _write(severity: pa.Table, folder: Path) -> None:
    """Write both files piece by piece; the pieces are whole, however the table came."""
    with (
        pq.ParquetWriter(folder / "severity.parquet", severity.schema, compression="zstd") as parquet,
        (folder / "severity.csv").open("wb") as text,
    ):
        text.write(table.csv_header(severity.schema))
        for first in range(0, len(severity), GROUP_ROWS):
            piece = severity.slice(first, GROUP_ROWS).combine_chunks()
            parquet.write_table(piece)
            text.write(table.csv_lines(piece))
