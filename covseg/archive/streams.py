"""Streams of Arrow tables: merged, sorted and cut anew with a bounded number of rows in memory.

What does not fit waits in Arrow files in a scratch folder; they are read back through a memory map, so
that their pages belong to the system's cache and not to this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

RUN_ROWS = 65_536  # rows of a sorted run, and of a row group


def merged(streams: Iterable[Iterator[pa.Table]], by: list[str]) -> Iterator[pa.Table]:
    """Join streams that are each in the order of `by` to one.

    All rows up to the smallest last row among the tables at hand are at hand too.

    Parameters
    ----------
    by : list of str
        Columns; the first must be text and decides how far a step goes.
    """
    heads = [(table, rest) for rest in streams if (table := _next(rest)) is not None]
    while heads:
        bound = min(table[by[0]][-1].as_py().encode() for table, _ in heads).decode()
        ready = [_count_up_to(table[by[0]], bound) for table, _ in heads]
        step = pa.concat_tables([table.slice(0, count) for (table, _), count in zip(heads, ready, strict=True)])
        yield step.sort_by([(name, "ascending") for name in by]) if len(heads) > 1 else step
        left = [(table.slice(count), rest) for (table, rest), count in zip(heads, ready, strict=True)]
        refilled = [(table if len(table) else _next(rest), rest) for table, rest in left]
        heads = [(table, rest) for table, rest in refilled if table is not None]


def _next(stream: Iterator[pa.Table]) -> pa.Table | None:
    return next((table for table in stream if len(table)), None)


def _count_up_to(column: pa.ChunkedArray, bound: str) -> int:
    return int(pc.sum(pc.less_equal(column, bound)).as_py())


def cut(stream: Iterator[pa.Table], rows: int = RUN_ROWS) -> Iterator[pa.Table]:
    """Cut a stream anew into tables of exactly `rows` rows, and a rest: the same for the same rows."""
    waiting: list[pa.Table] = []
    count = 0
    for table in stream:
        waiting.append(table)
        count += len(table)
        while count >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows).combine_chunks()
            waiting, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def resorted(stream: Iterator[pa.Table], by: list[str], scratch: Path) -> Iterator[pa.Table]:
    """Sort a stream of any length: sorted runs in the scratch folder, merged."""
    runs = []
    for number, table in enumerate(cut(stream)):
        runs.append(scratch / f"run-{number}.arrow")
        spill(iter([table.sort_by([(name, "ascending") for name in by])]), table.schema, runs[-1], 1024)
    yield from merged((unspilled(run) for run in runs), by)
    for run in runs:
        run.unlink()


def spill(stream: Iterator[pa.Table], schema: pa.Schema, path: Path, chunk: int | None = None) -> None:
    """Write a stream to an Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in stream:
            writer.write_table(table, max_chunksize=chunk)


def mapped(path: Path) -> pa.Table:
    """Return an Arrow file as a table that lies on the disk."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def unspilled(path: Path) -> Iterator[pa.Table]:
    """Yield an Arrow file batch by batch."""
    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])
