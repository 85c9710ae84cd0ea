"""A dictionary as a store: for tests, and for bytes that never touch a disk."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from covseg.records import Entry
from covseg.storage.protocol import Page, missing, order, refuse_changed, refuse_large

_CREATING = threading.Lock()


class MemoryStore:
    """Objects of this process; a pickled copy is another store."""

    def __init__(self, objects: dict[str, bytes] | None = None, name: str = "") -> None:
        self.objects: dict[str, bytes] = dict(objects or {})
        self.url = f"memory://{name}"

    def check(self) -> None:
        """Memory is always there."""

    def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Page:
        """List in key order."""
        behind = b"" if after is None else order(after)
        keys = sorted((key for key in self.objects if key.startswith(prefix)), key=order)
        keys = [key for key in keys if after is None or order(key) > behind]
        listed = [Entry(key, len(self.objects[key]), _etag(self.objects[key])) for key in keys[:limit]]
        return Page(listed, keys[limit - 1] if len(keys) > limit else None)

    def read(self, key: str) -> bytes:
        """Return the bytes."""
        try:
            return self.objects[key]
        except KeyError:
            raise FileNotFoundError(key) from None

    def fetch(self, entry: Entry) -> bytes:
        """Return the bytes, if they are the planned ones."""
        refuse_large(entry)
        if entry.key not in self.objects:
            raise missing()
        data = self.objects[entry.key]
        refuse_changed(entry, _etag(data))
        return data

    def write(self, key: str, data: bytes) -> None:
        """Replace."""
        self.objects[key] = data

    def create(self, key: str, data: bytes) -> bool:
        """Set once."""
        with _CREATING:
            return key not in self.objects and self.objects.setdefault(key, data) is data

    def modified(self, key: str) -> float:
        """Return 0: memory does not know."""
        self.read(key)
        return 0.0

    def delete(self, key: str) -> None:
        """Forget."""
        self.objects.pop(key, None)

    def upload(self, path: Path, key: str) -> None:
        """Read the file whole: memory is what this store is."""
        self.objects[key] = path.read_bytes()

    def download(self, key: str, path: Path) -> None:
        """Write the file whole."""
        path.write_bytes(self.read(key))

    def stale_uploads(self, older_than_s: float) -> list[str]:  # noqa: ARG002 - the protocol's
        """Memory has no unfinished writes."""
        return []

    def abort_upload(self, name: str) -> None:
        """There is none."""


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
