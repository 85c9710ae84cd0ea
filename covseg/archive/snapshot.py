"""A snapshot's rows: read from its commits, checked against its plan, and streamed to table files.

In: a `Run` and a `Plan`. Out: Parquet and CSV files in a scratch folder, and what was counted on the
way. The files are a function of the rows alone: the same for any cut into shards, plans or attempts.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from covseg import table
from covseg.archive.commits import commit_name
from covseg.archive.duplicates import Duplicates
from covseg.archive.parts import Part, Plan, Shard, read_part
from covseg.archive.runs import Run
from covseg.archive.streams import cut, mapped, merged, resorted, spill, unspilled
from covseg.errors import NotPublished

T = TypeVar("T")
U = TypeVar("U")
READERS, AHEAD = 8, 16  # shards on their way at once, of one generation


@dataclass
class Counts:
    """What was counted while the rows went by.

    Parameters
    ----------
    statuses, reasons : Counter of str
        Of all rows.
    no_lungs : int
        Scored images without a lung.
    commits : dict of str to str
        sha256 of every shard's commit record.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    no_lungs: int = 0
    commits: dict[str, str] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """Count some rows."""
        self.statuses.update(rows["status"].to_pylist())
        self.reasons.update(rows["reason"].drop_null().to_pylist())
        scored = rows.filter(pc.equal(rows["status"], "scored"))
        self.no_lungs += sum("lungs_not_found" in flags for flags in scored["qc_flags"].to_pylist())


def collect(run: Run, plan: Plan, scratch: Path) -> tuple[Counts, Duplicates]:
    """Read every row of the snapshot, in key order, into ``rows.arrow``.

    Raises
    ------
    NotPublished
        When a shard has no commit, or its table is not the one committed, or not of the plan's rows.
    """
    counts, duplicates = Counts(), Duplicates(scratch)
    numbers = sorted({part.generation for part in plan.parts})
    with ThreadPoolExecutor(READERS) as pool:
        generations = [_generation(run, plan, number, counts, pool) for number in numbers]

        def noted() -> Iterator[pa.Table]:
            for rows in cut(merged(generations, ["key", "input_id"])):
                counts.add(rows)
                duplicates.add(rows)
                yield rows

        spill(noted(), table.SCHEMA, scratch / "rows.arrow")
    if counts.statuses.total() != plan.images:
        raise NotPublished(f"{counts.statuses.total()} rows for {plan.images} planned images: run covseg verify")
    duplicates.resolve()
    return counts, duplicates


def _generation(run: Run, plan: Plan, number: int, counts: Counts, pool: ThreadPoolExecutor) -> Iterator[pa.Table]:
    """Yield the tables of the shards that one plan added, in its order."""
    parts = [part for part in plan.parts if part.generation == number]

    def load(shard: Shard) -> tuple[str, str, pa.Table]:
        return shard.id, *read_shard(run, shard)

    for name, digest, rows in _ahead(pool, load, _shards(run, parts)):
        counts.commits[name] = digest
        yield rows


def _shards(run: Run, parts: Iterable[Part]) -> Iterator[Shard]:
    for part in parts:
        yield from read_part(run.dest, part)


def _ahead(pool: ThreadPoolExecutor, work: Callable[[T], U], items: Iterator[T]) -> Iterator[U]:
    """Yield the results in order, a few items ahead."""
    waiting: deque[Future[U]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def read_shard(run: Run, shard: Shard) -> tuple[str, pa.Table]:
    """Return the digest of a shard's commit and its rows, once they are found to be the plan's.

    Raises
    ------
    NotPublished
        When they are not, or there is no commit.
    """
    try:
        data = run.commits.read(commit_name(shard.id))
        named = json.loads(data)["table"]
        sheet = run.dest.read(named["name"])
    except FileNotFoundError:
        raise NotPublished(f"shard {shard.id} has no commit, or its table is gone: run covseg score again") from None
    if hashlib.sha256(sheet).hexdigest() != named["sha256"]:
        raise NotPublished(f"{named['name']} is not what its commit names: run covseg verify")
    rows = pq.read_table(io.BytesIO(sheet)).cast(table.SCHEMA)
    planned = sorted((table.text(entry.key), entry.etag) for entry in shard.entries)
    found = sorted(zip(rows["key"].to_pylist(), rows["etag"].to_pylist(), strict=True))
    if found != planned:
        raise NotPublished(f"shard {shard.id} has {len(found)} rows that are not its {len(planned)} planned images")
    return hashlib.sha256(data).hexdigest(), rows


def finish(scratch: Path, duplicates: Duplicates, *, hide_keys: bool) -> pa.Table:
    """Turn ``rows.arrow`` into ``severity.parquet`` and ``severity.csv``; return the table, on disk.

    Without keys the rows go by input id: their order would tell the keys' order.
    """
    rows: Iterator[pa.Table] = _marked(unspilled(scratch / "rows.arrow"), duplicates)
    schema = table.SCHEMA
    if hide_keys:
        schema = schema.remove(schema.get_field_index("key"))
        rows = cut(resorted((part.drop_columns(["key"]) for part in rows), ["input_id"], scratch))
    with (
        pq.ParquetWriter(scratch / "severity.parquet", schema, compression="zstd") as parquet,
        (scratch / "severity.csv").open("wb") as text,
    ):
        text.write(table.csv_header(schema))

        def written() -> Iterator[pa.Table]:
            for part in rows:
                parquet.write_table(part)
                text.write(table.csv_lines(part))
                yield part

        spill(written(), schema, scratch / "severity.arrow")
    (scratch / "rows.arrow").unlink()
    return mapped(scratch / "severity.arrow")


def _marked(stream: Iterator[pa.Table], duplicates: Duplicates) -> Iterator[pa.Table]:
    first = 0
    for part in stream:
        yield duplicates.mark(part, first)
        first += len(part)
