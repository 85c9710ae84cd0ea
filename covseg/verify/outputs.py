"""The published files of a snapshot: whether they are the manifest's, and the table that of the shards.

In: the store of a destination, what its newest manifest states of its outputs, the digests of the shards' rows.
Out: every breach in words. Eight bytes per row stay in memory.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from covseg.storage import Store
from covseg.verify.cells import same_cells
from covseg.verify.digests import Json, canonical, numbers, short

OUTPUTS = ("severity.parquet", "severity.csv", "report.html")


def output_breaches(
    dest: Store, stated: Mapping[str, Json], hide_keys: bool, rows: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> list[str]:
    """Compare every published file with the manifest, and the table with the shards' rows.

    Parameters
    ----------
    dest : Store
        Holds the outputs.
    stated : mapping of str to dict
        What the manifest says of each output, with its ``sha256``.
    hide_keys : bool
        Whether the published rows hide their keys.
    rows : ndarray of uint64, shape (N,)
        Short digests of the rows of all shard tables, in any order.

    Returns
    -------
    list of str
        Empty when everything holds.
    """
    if set(stated) != set(OUTPUTS):
        return [f"the manifest names {len(stated)} outputs: wanted {', '.join(OUTPUTS)}"]
    with tempfile.TemporaryDirectory(prefix="covseg-verify-") as folder:
        paths = [Path(folder) / name for name in OUTPUTS]  # never a name out of what is being checked
        breaches = [breach for path in paths if (breach := _file_breach(dest, path, str(stated[path.name]["sha256"])))]
        return breaches + list(_table_breaches(paths[0], paths[1], hide_keys, rows))


def _file_breach(dest: Store, path: Path, sha256: str) -> str | None:
    """Download an output to `path`; return what is wrong with its bytes."""
    try:
        dest.download(path.name, path)
    except FileNotFoundError:
        return f"{path.name} is gone: covseg publish rebuilds it"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == sha256 else f"{path.name} is not the one of the manifest"


def _table_breaches(
    parquet: Path, text: Path, hide_keys: bool, rows: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> Iterator[str]:
    if not parquet.exists():
        return
    try:
        published = np.sort(numbers(_published(parquet, hide_keys)))
    except pa.ArrowInvalid:
        yield "severity.parquet cannot be read"
        return
    if not np.array_equal(published, np.sort(rows)):
        yield "severity.parquet has other rows than the shards"
    if text.exists() and not same_cells(parquet, text):
        yield "severity.csv has other rows or cells than severity.parquet"


def _published(path: Path, hide_keys: bool) -> Iterator[int]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(4096):
            yield from (short(canonical(row, hide_keys=hide_keys)) for row in batch.to_pylist())
