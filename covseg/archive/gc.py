"""Garbage collection: objects that no record names, and uploads that nobody finished."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from covseg.archive.lease import live_since
from covseg.archive.plans import plan_name, plan_numbers
from covseg.archive.records import CommitRecord, Manifest, PlanRecord, read_record
from covseg.archive.runs import Run
from covseg.storage import Store, entries
from covseg.storage.conditional_writes import SENTINEL

# Nothing else is touched.
FOLDERS = ("masks/", "packed/", "probability/", "dicom/", "tables/", "plans/", "pictures/", "overlays/", "leases/")
Names = np.ndarray[tuple[int], np.dtype[np.uint64]]


@dataclass(frozen=True)
class Collected:
    """What was removed: objects that no record names, unfinished uploads, and how many bytes the objects had."""

    orphans: int
    uploads: int
    bytes: int


def gc(run: Run, older_than_s: float = 86_400, *, dry_run: bool = False) -> Collected:
    """Remove orphans and stale uploads older than `older_than_s` seconds.

    Younger ones, and all that was written since a live run began, may belong to a shard that is being committed
    right now; a run that resumes meanwhile writes what it needs anew, so names and ages are read again before
    anything is removed.
    """
    now = time.time()
    before = min(now - older_than_s, live_since(run, now))
    named = _named(run)
    old = (entry for folder in FOLDERS for entry in entries(run.dest, folder) if entry.modified <= before)
    left = [entry for entry in old if not entry.key.endswith("/plan.json") and not _among(named, entry.key)]
    if left and not dry_run:
        named = _named(run)
        left = [entry for entry in left if not _among(named, entry.key) and _removed(run.dest, entry.key, before)]
    for entry in entries(run.commits, SENTINEL):
        if entry.modified <= before and not dry_run:
            run.commits.delete(entry.key)
    uploads = run.dest.stale_uploads(time.time() - before)
    for upload in () if dry_run else uploads:
        run.dest.abort_upload(upload)
    return Collected(len(left), len(uploads), sum(entry.size for entry in left))


def _removed(dest: Store, key: str, before: float) -> bool:
    """Remove an object unless it was written anew since it was listed; tell whether it was removed."""
    with contextlib.suppress(FileNotFoundError):
        if dest.modified(key) <= before:
            dest.delete(key)
            return True
    return False


def _named(run: Run) -> Names:
    """Return every object that a plan, a commit or a manifest names, shortened and sorted."""
    return np.sort(np.fromiter((_short(name) for name in _names(run)), np.uint64))


def _names(run: Run) -> Iterator[str]:
    for number in plan_numbers(run.commits):
        yield from (part.name for part in read_record(run.commits, plan_name(number), PlanRecord).parts)
    for entry in entries(run.commits, "commits/"):
        record = read_record(run.commits, entry.key, CommitRecord)
        yield from (named.name for named in (record.table, *record.objects))
    for entry in entries(run.commits, "manifests/"):
        manifest = read_record(run.commits, entry.key, Manifest)
        yield from (named.name for named in (manifest.pictures, *manifest.overlays))


def _short(name: str) -> int:
    """Shorten a name to eight bytes: ten million of them are 80 MB. Two that agree would only keep an orphan."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest())


def _among(named: Names, name: str) -> bool:
    short = np.uint64(_short(name))
    place = np.searchsorted(named, short)
    return bool(place < len(named) and named[place] == short)
