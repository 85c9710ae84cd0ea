"""Bytes in, bytes out: one small protocol, a local folder and memory behind it.

A store lists in pages, reads, writes, and commits create-only. Nothing else in covseg touches a
disk or a bucket. It knows nothing of films.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from covseg.errors import StorageDenied, StorageFull, StorageUnreachable, UsageError
from covseg.records import Entry


@dataclass(frozen=True)
class Page:
    """One page of a listing, in key order; `after` resumes behind it, None at the end."""

    entries: list[Entry]
    after: str | None


class Store(Protocol):
    """What every store offers; ``tests/test_storage.py`` is the behaviour suite that all pass.

    Keys are relative to the store's root, UTF-8, listed in code point order.
    """

    url: str

    def list_page(self, after: str | None = None, limit: int = 1000) -> Page:
        """List up to `limit` entries whose key sorts behind `after`."""
        ...

    def read(self, key: str) -> bytes:
        """Return the bytes of `key`; FileNotFoundError when it is gone."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Write or replace `key` as a whole; a reader never sees half of it."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write `key` only if it does not exist; tell whether this call made it."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; no error when it is gone already."""
        ...


def entries(store: Store) -> Iterator[Entry]:
    """Walk a whole listing, page by page."""
    after: str | None = None
    while True:
        page = store.list_page(after)
        yield from page.entries
        if page.after is None:
            return
        after = page.after


class LocalStore:
    """A folder. Keys are paths below it, with forward slashes; links are not followed.

    Parameters
    ----------
    root : Path
        The folder; made at the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def list_page(self, after: str | None = None, limit: int = 1000) -> Page:
        """List by walking the folder in key order."""
        found: list[Entry] = []
        with _storage_errors(self.url):
            for path, key in self._walk(self.root, "", after):
                state = path.lstat()
                found.append(Entry(key, state.st_size, f"{state.st_size}-{state.st_mtime_ns}"))
                if len(found) == limit:
                    return Page(found, key)
        return Page(found, None)

    def _walk(self, folder: Path, prefix: str, after: str | None) -> Iterator[tuple[Path, str]]:
        """Yield files in key order, skipping whole folders that sort before `after`."""
        with os.scandir(folder) as scan:
            children = sorted((child.name + "/" if child.is_dir(follow_symlinks=False) else child.name) for child in scan)
        for name in children:
            key = prefix + name
            if name.endswith("/"):
                if after is None or key > after or after.startswith(key):
                    yield from self._walk(folder / name[:-1], key, after)
            elif (after is None or key > after) and not name.startswith(".covseg-"):
                yield folder / name, key

    def path(self, key: str) -> Path:
        """Return where `key` lies; UsageError when it would leave the folder."""
        if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")) or "\0" in key:
            raise UsageError(f"key {key!r} cannot be a path below a folder: wanted names joined by single slashes")
        return self.root / key

    def read(self, key: str) -> bytes:
        """Return the file's bytes."""
        with _storage_errors(self.url):
            return self.path(key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        """Replace atomically: a temporary file beside it, then a rename."""
        with self._staged(key, data) as staged:
            staged.replace(self.path(key))

    def create(self, key: str, data: bytes) -> bool:
        """Create by a hard link to a finished, synced file: never a half-written one."""
        with self._staged(key, data, sync=True) as staged:
            try:
                os.link(staged, self.path(key))
            except FileExistsError:
                return False
            return True

    def delete(self, key: str) -> None:
        """Remove the file."""
        with _storage_errors(self.url):
            self.path(key).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _staged(self, key: str, data: bytes, *, sync: bool = False) -> Iterator[Path]:
        path = self.path(key)
        with _storage_errors(self.url):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".covseg-", dir=path.parent)
            staged = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    if sync:
                        file.flush()
                        os.fsync(file.fileno())
                staged.chmod(0o644)
                yield staged
            finally:
                staged.unlink(missing_ok=True)


class MemoryStore:
    """A dictionary; for tests, and for scoring bytes that never touch a disk."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects: dict[str, bytes] = dict(objects or {})
        self.url = "memory://"

    def list_page(self, after: str | None = None, limit: int = 1000) -> Page:
        """List in key order."""
        keys = sorted(key for key in self.objects if after is None or key > after)
        found = [Entry(key, len(self.objects[key]), _md5(self.objects[key])) for key in keys[:limit]]
        return Page(found, keys[limit - 1] if len(keys) > limit else None)

    def read(self, key: str) -> bytes:
        """Return the bytes."""
        try:
            return self.objects[key]
        except KeyError:
            raise FileNotFoundError(key) from None

    def write(self, key: str, data: bytes) -> None:
        """Replace."""
        self.objects[key] = data

    def create(self, key: str, data: bytes) -> bool:
        """Set once."""
        return self.objects.setdefault(key, data) is data

    def delete(self, key: str) -> None:
        """Forget."""
        self.objects.pop(key, None)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Turn an operating system error into the error tree; a missing key stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left under {url}: free some, then run the same command again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageDenied(f"not allowed to use {url} ({error.strerror}): check owner and mode") from error
        raise StorageUnreachable(f"cannot use {url}: {error.strerror}") from error
