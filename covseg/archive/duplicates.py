"""Equal contents under several keys, found on disk: the first in key order is the original.

In: the sha256 and the input id of every row, in order. Out: of each row, the input id of its
original, or nothing. Rows are dealt by their digest to files that are small enough to sort, so memory
does not grow with the archive.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

PARTITIONS = 256  # of 10 million rows, 39,000 lie in each: 3 MB
RECORD = np.dtype([("sha256", "S64"), ("place", "<i8"), ("input_id", "S32")])
ID_BYTES = 32


class Duplicates:
    """Collects rows, then answers them in the same order.

    Parameters
    ----------
    scratch : Path
        An empty folder.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._answers = scratch / "originals"
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Note the rows of the next table; rows without a digest (never read) have no original."""
        records = np.empty(len(table), RECORD)
        records["sha256"] = table["sha256"].fill_null("").to_pylist()
        records["input_id"] = table["input_id"].to_pylist()
        records["place"] = np.arange(self._rows, self._rows + len(table))
        self._rows += len(table)
        records = records[records["sha256"] != b""]
        partitions = records["sha256"].astype("S2")
        for partition in np.unique(partitions):
            with self._partition(partition.decode()).open("ab") as file:
                records[partitions == partition].tofile(file)

    def _partition(self, name: str) -> Path:
        return self._scratch / f"pile-{name}"

    def resolve(self) -> int:
        """Find the originals; return how many rows have one."""
        found = 0
        with self._answers.open("wb") as file:
            file.truncate(self._rows * ID_BYTES)  # sparse: a row without an original stays zero
            for number in range(PARTITIONS):
                path = self._partition(f"{number:02x}")
                if path.exists():
                    for place, original in _repeated(np.fromfile(path, RECORD)):
                        file.seek(place * ID_BYTES)
                        file.write(original)
                        found += 1
                    path.unlink()
        return found

    def mark(self, table: pa.Table, first: int) -> pa.Table:
        """Fill `duplicate_of`, and flag, in the rows that begin at place `first`."""
        answers = np.fromfile(self._answers, f"S{ID_BYTES}", len(table), offset=first * ID_BYTES)
        names = [answer.decode() or None for answer in answers.tolist()]
        table = table.set_column(
            table.schema.get_field_index("duplicate_of"), "duplicate_of", pa.array(names, pa.string())
        )
        if not any(names):
            return table
        pairs = zip(table["qc_flags"].to_pylist(), names, strict=True)
        flags = [[*old, "duplicate_content"] if name else old for old, name in pairs]
        place = table.schema.get_field_index("qc_flags")
        return table.set_column(place, table.schema.field(place), pa.array(flags, pa.list_(pa.string())))


def _repeated(records: NDArray[np.void]) -> list[tuple[int, bytes]]:
    """Return place and original of every record whose digest came before."""
    records = records[np.lexsort((records["place"], records["sha256"]))]
    first = np.flatnonzero(np.r_[True, records["sha256"][1:] != records["sha256"][:-1]])
    lengths = np.diff(np.r_[first, len(records)])
    duplicates = np.repeat(records["input_id"][first], lengths)
    repeated = np.ones(len(records), bool)
    repeated[first] = False
    return list(zip(records["place"][repeated].tolist(), duplicates[repeated].tolist(), strict=True))
