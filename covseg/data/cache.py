"""A labelled set in a bucket, brought to this machine once, for every process that asks.

In: a folder or a URL. Out: a folder that `covseg.data.layout` can list. Only the files of the wanted splits
are fetched; each body is checked against its size and, where the ETag is one, its MD5. The next call lists the
bucket again and fetches what is new or changed. It does not know what an image is.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath

from covseg.data.layout import LABELS
from covseg.errors import StorageUnreachable, UsageError
from covseg.records import Entry
from covseg.settings.environment import cache_folder
from covseg.storage import LocalStore, Store, entries, local_path, open_store

log = logging.getLogger(__name__)

INDEX = ".covseg-index.json"
STREAMS, BATCH = 16, 256  # requests side by side; files between two writes of the index
Index = dict[str, tuple[int, str]]


def local_copy(data: str | Path, splits: tuple[str, ...] = ("Train", "Val")) -> Path:
    """Return a folder with the labelled set: `data` itself, or its copy in the cache.

    Processes of one machine take turns: the first one fetches, the others find the files.

    Parameters
    ----------
    data : str or Path
        A folder, ``file:///path`` or ``s3://bucket/prefix``.
    splits : tuple of str
        Only these are fetched.

    Raises
    ------
    UsageError
        When the bucket has no file of these splits.
    StorageUnreachable
        When a body is not what was listed.
    """
    folder = local_path(data)
    if folder is not None:
        return folder
    store = open_store(str(data))
    root = cache_folder() / "data" / hashlib.sha256(store.url.encode()).hexdigest()[:16]
    with _alone(root):
        listed = [entry for entry in entries(store) if not entry.key.endswith("/")]
        wanted = _chosen(store, listed, splits)
        if not wanted:
            raise UsageError(f"{store.url} has no file of {', '.join(splits)}: wanted these folders, or {LABELS}")
        for gone in _read_index(root).keys() - {entry.key for entry in listed}:
            LocalStore(root).delete(gone)
        _bring(store, root, wanted)
    return root


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the copy's lock; the system lets go of it when a process dies."""
    root.mkdir(parents=True, exist_ok=True)
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _chosen(store: Store, listed: list[Entry], splits: tuple[str, ...]) -> list[Entry]:
    """Return the files of the splits, in either layout."""
    wanted = {split.casefold() for split in splits}
    if all(entry.key != LABELS for entry in listed):
        return [entry for entry in listed if entry.key.split("/")[0].casefold() in wanted]
    rows = csv.DictReader(io.StringIO(store.read(LABELS).decode("utf-8-sig")))
    if "split" not in (rows.fieldnames or ()):
        return listed
    stems = {PurePosixPath(row["film"]).stem for row in rows if row["split"].casefold() in wanted}
    return [entry for entry in listed if entry.key == LABELS or PurePosixPath(entry.key).stem in stems]


def _bring(store: Store, root: Path, wanted: list[Entry]) -> None:
    """Fetch what is new or changed; what was fetched before a kill is not fetched again."""
    local = LocalStore(root)
    index = _read_index(root)
    new = [entry for entry in wanted if not _here(local, entry, index)]
    if new:
        log.info("fetching %d of %d files from %s to %s", len(new), len(wanted), store.url, root)
    left = iter(new)
    with ThreadPoolExecutor(STREAMS) as pool:
        while batch := list(islice(left, BATCH)):
            list(pool.map(lambda entry: local.write(entry.key, _body(store, entry)), batch))
            index |= {entry.key: (entry.size, entry.etag) for entry in batch}
            local.write(INDEX, json.dumps(index).encode())


def _read_index(root: Path) -> Index:
    path = root / INDEX
    return {key: (size, etag) for key, (size, etag) in json.loads(path.read_bytes()).items()} if path.exists() else {}


def _here(local: LocalStore, entry: Entry, index: Index) -> bool:
    path = local.path(entry.key)
    return index.get(entry.key) == (entry.size, entry.etag) and path.is_file() and path.stat().st_size == entry.size


def _body(store: Store, entry: Entry) -> bytes:
    try:
        data = store.read(entry.key)
    except FileNotFoundError:
        data = b""
    if len(data) != entry.size:
        raise StorageUnreachable(
            f"{store.url}/{entry.key} has {len(data)} bytes, {entry.size} were listed: the set is changing; run again"
        )
    return data
