"""A run folder that belongs to a bucket: worked on here, sent there after every state.

In: ``--out``, a folder or a URL. Out: the folder to work in, and hooks that keep the bucket up to date.
Of one run in a bucket the state goes last, so that whoever resumes from there finds the rest at least as new.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from covseg.errors import StorageUnreachable
from covseg.records import Entry
from covseg.settings.environment import cache_folder
from covseg.storage import LocalStore, Store, entries, local_path, open_store
from covseg.storage.protocol import intact
from covseg.training.job import Hooks
from covseg.training.run_folder import STATE, Row

SCRATCH = ".ray/"  # a cluster's own checkpoints, beside the run


def folder_of(out: str | Path) -> Path:
    """Return where a run works: its folder, or the cache's folder for that URL."""
    name = hashlib.sha256(str(out).rstrip("/").encode()).hexdigest()[:16]
    return local_path(out) or cache_folder() / "runs" / name


def pull(out: str | Path) -> Path:
    """Return the folder of a run, made equal to the bucket where `out` is one.

    Raises
    ------
    StorageUnreachable, StorageDenied
        When the bucket does not answer, or a body is not what was listed.
    """
    folder = folder_of(out)
    if local_path(out) is None:
        store = open_store(str(out))
        store.check()
        _fetch(store, LocalStore(folder))
    return folder


def _fetch(store: Store, here: LocalStore) -> None:
    there = {entry.key: entry for entry in _files(store)}
    for entry in entries(here):
        if entry.key not in there:
            here.delete(entry.key)
    for key, entry in there.items():
        if _differs(here.root / key, entry.etag):
            here.path(key).parent.mkdir(parents=True, exist_ok=True)
            staged = here.root / f".covseg-{entry.etag[:8]}"  # a name that no listing shows
            store.download(key, staged)
            if not intact(entry.etag, staged.read_bytes()):
                raise StorageUnreachable(f"{store.url}/{key} did not arrive as it lies there; run again")
            staged.replace(here.path(key))


def _files(store: Store) -> list[Entry]:
    return [entry for entry in entries(store) if not entry.key.startswith(SCRATCH) and not entry.key.endswith("/")]


def _differs(path: Path, etag: str) -> bool:
    """Tell whether a file is not the object; one whose ETag is no MD5 always counts as another."""
    return not path.is_file() or hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != etag


def push(folder: Path, out: str | Path) -> None:
    """Upload what is new or changed, the state last."""
    store = open_store(str(out))
    there = {entry.key: entry.etag for entry in _files(store)}
    keys = {path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file()}
    for key in sorted(keys, key=lambda key: (key.endswith(STATE), key)):
        if not key.startswith(SCRATCH) and _differs(folder / key, there.get(key, "")):
            store.upload(folder / key, key)


def pushing(hooks: Hooks, out: str | Path) -> Hooks:
    """Return hooks that also send the run after every state; for a folder, the same hooks."""
    if local_path(out) is not None:
        return hooks
    folder = folder_of(out)

    def epoch_done(row: Row, run: Path) -> None:
        push(folder, out)
        hooks.epoch_done(row, run)

    def saved(run: Path) -> None:
        push(folder, out)
        hooks.saved(run)

    return replace(hooks, epoch_done=epoch_done, saved=saved)
