"""Where a snapshot is put together: a folder, and a database that keeps there what does not fit in memory.

Both are gone afterwards. The database reads and writes nothing outside the folder, loads no extension and
opens no connection; it compares text by its bytes.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
from duckdb import DuckDBPyConnection

from covseg.errors import StorageFull

SETTINGS: dict[str, str | int] = {
    "memory_limit": "512MB",
    "threads": 2,  # each wants its share of the memory; a published table does not depend on their number
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
}
FULL = ("No space left", "max_temp_directory_size")  # the disk's words, and DuckDB's before it comes to that


class Scratch(NamedTuple):
    """Where one snapshot is put together: a folder for its files, a database for its rows."""

    folder: Path
    db: DuckDBPyConnection


@contextlib.contextmanager
def open_scratch() -> Iterator[Scratch]:
    """Give a folder and a database of their own that are gone afterwards.

    Raises
    ------
    StorageFull
        When the disk has no room for the table.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="covseg-publish-") as folder, _database(folder) as db:
            yield Scratch(Path(folder), db)
    except (OSError, duckdb.Error) as error:
        if not _full(error):
            raise
        where = tempfile.gettempdir()
        raise StorageFull(
            f"no space left in {where} for the table: free some, or set TMPDIR, then run again"
        ) from error


def _database(folder: str) -> DuckDBPyConnection:
    db = duckdb.connect(config={**SETTINGS, "temp_directory": folder})
    db.execute("SET enable_external_access = false")  # not in the config: with it, no folder can be named
    return db


def _full(error: Exception) -> bool:
    return getattr(error, "errno", None) == errno.ENOSPC or any(word in str(error) for word in FULL)
