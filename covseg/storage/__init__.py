"""Bytes in, bytes out: one small protocol; a folder, memory and S3 behind it.

A store lists in pages, reads, writes, and commits create-only. Nothing else in covseg touches a disk
or a bucket. It knows nothing of images, but that a planned object may have changed or gone.
"""

from covseg.storage.local import LocalStore
from covseg.storage.memory import MemoryStore
from covseg.storage.protocol import Page, Store, entries, matches_globs, overlap
from covseg.storage.urls import SCHEMES, local_path, open_source, open_store

__all__ = [
    "SCHEMES", "LocalStore", "MemoryStore", "Page", "Store", "entries", "local_path", "matches_globs", "open_source",
    "open_store", "overlap",
]  # fmt: skip
