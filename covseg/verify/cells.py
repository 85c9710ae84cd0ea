"""Whether a CSV shows the rows of a Parquet file; written from the contract, not from the writer."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pyarrow.parquet as pq

from covseg.verify.digests import cell

LABEL = ("intended_use", "Research use only, not for diagnosis.")  # last cells of the CSV: its heading, each row


def same_cells(parquet: Path, text: Path) -> bool:
    """Tell whether a CSV shows the very rows of a Parquet file, in their order, under their names."""
    with pq.ParquetFile(parquet) as file, text.open(newline="", encoding="utf-8") as lines:
        rows = (row for batch in file.iter_batches(4096) for row in batch.to_pylist())
        try:
            labelled = lines.readline().rstrip("\n").endswith(f",{LABEL[0]}")  # not in a CSV of covseg 0.1.0
            lines.seek(0)
            heading, ending = (LABEL[:1], LABEL[1:]) if labelled else ((), ())
            wanted = itertools.chain(
                [[*file.schema_arrow.names, *heading]],
                ([*(cell(value) for value in row.values()), *ending] for row in rows),
            )
            pairs = itertools.zip_longest(csv.reader(lines), wanted)
            return all(cells == expected for cells, expected in pairs)
        except (csv.Error, UnicodeDecodeError):
            return False
