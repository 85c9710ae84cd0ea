"""What every store offers; ``tests/test_storage.py`` is the behaviour suite that all of them pass."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from covseg.errors import RadiographRefused, Reason, Stage
from covseg.records import Entry

LARGEST_IMAGE = 512 * 2**20  # bytes; twice a raw 16-bit image of 144 megapixels
_MD5 = re.compile(r"[0-9a-f]{32}")
T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """One page of a listing, in key order; `after` resumes behind it, None at the end."""

    entries: list[Entry]
    after: str | None


class Store(Protocol):
    """Objects under string keys.

    Keys are relative to the store's root and listed in the order of `order`. Stores are picklable and
    may be used by several threads. Every call ends by a deadline with an error of the tree.
    """

    url: str

    def check(self) -> None:
        """Raise within seconds when the store cannot be reached or does not let us in."""
        ...

    def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Page:
        """List up to `limit` entries whose key begins with `prefix` and sorts behind `after`."""
        ...

    def read(self, key: str) -> bytes:
        """Return the bytes of `key`; FileNotFoundError when it is gone."""
        ...

    def fetch(self, entry: Entry) -> bytes:
        """Return the bytes that were listed as `entry`, checked.

        Raises
        ------
        RadiographRefused
            ``missing`` when the object is gone, ``access_denied`` when this file alone may not be read,
            ``changed`` when its ETag is another, ``too_large`` above `LARGEST_IMAGE`, ``checksum_mismatch``
            when the ETag is a plain MD5 and the bytes, read three times, do not have it.
        """
        ...

    def write(self, key: str, data: bytes) -> None:
        """Write or replace `key` as a whole; a reader never sees half of it."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write `key` only if it does not exist; tell whether this call made it.

        False may also answer our own call whose reply was lost: read back what lies there.
        """
        ...

    def modified(self, key: str) -> float:
        """Return when `key` was written, in seconds since 1970, 0 where unknown; FileNotFoundError when it is gone."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; no error when it is gone already."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Write or replace `key` with a file's content, without holding it in memory."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Copy `key` into a file, without holding it in memory; FileNotFoundError when it is gone."""
        ...

    def stale_uploads(self, older_than_s: float) -> list[str]:
        """Name what unfinished writes left behind, when it is older."""
        ...

    def abort_upload(self, name: str) -> None:
        """Remove one of `stale_uploads`."""
        ...


def order(key: str) -> bytes:
    """Return what keys are sorted by: UTF-8, an undecodable byte of a file name as its escape.

    S3 sorts by UTF-8 bytes; for valid text this is code point order too.
    """
    return key.encode("utf-8", "backslashreplace")


def entries(store: Store, prefix: str = "") -> Iterator[Entry]:
    """Walk a whole listing, page by page."""
    after: str | None = None
    while True:
        page = store.list_page(after, prefix=prefix)
        yield from page.entries
        if page.after is None:
            return
        after = page.after


def walk(
    children: Callable[[str], Iterable[tuple[str, T]]], prefix: str, after: str | None, folder: str = ""
) -> Iterator[tuple[str, T]]:
    """Walk a tree of folders in key order, skipping whole folders that sort before `after` or miss the prefix.

    Parameters
    ----------
    children : callable
        From a folder, ending with a slash or empty, to what lies in it, in any order: key and item; a folder's key ends
        with a slash.
    """
    behind = b"" if after is None else order(after)
    for key, item in sorted(children(folder), key=lambda child: order(child[0])):
        if not key.startswith(prefix[: len(key)]):
            continue
        if key.endswith("/"):
            if order(key) > behind or behind.startswith(order(key)):
                yield from walk(children, prefix, after, key)
        elif order(key) > behind and key.startswith(prefix):
            yield key, item


def overlap(first: Store, second: Store) -> bool:
    """Tell whether a store lies inside the other, or is the same."""
    left, right = (store.url.rstrip("/") + "/" for store in (first, second))
    return left.startswith(right) or right.startswith(left)


def refuse_changed(entry: Entry, etag: str) -> None:
    """Raise `RadiographRefused` when an object no longer has the ETag of its plan."""
    if etag != entry.etag:
        raise RadiographRefused(
            Reason.CHANGED,
            Stage.FETCH,
            f"planned with ETag {entry.etag}, read with {etag}: plan again to score the new one",
        )


def refuse_large(entry: Entry) -> None:
    """Raise `RadiographRefused` before an object is read that would fill the memory."""
    if entry.size > LARGEST_IMAGE:
        detail = f"{entry.size} bytes, more than the {LARGEST_IMAGE} that any image has"
        raise RadiographRefused(Reason.TOO_LARGE, Stage.FETCH, detail)


def missing() -> RadiographRefused:
    """Return the refusal of an object that is gone."""
    return RadiographRefused(Reason.MISSING, Stage.FETCH, "listed, but gone when it was read")


def intact(etag: str, data: bytes) -> bool:
    """Tell whether the bytes have the ETag's MD5; True where the ETag is not a plain MD5."""
    return not _MD5.fullmatch(etag) or hashlib.md5(data, usedforsecurity=False).hexdigest() == etag


def matches_globs(entry: Entry, include: str, exclude: str) -> bool:
    """Tell whether a key is selected; the empty objects that stand for folders are no inputs."""
    if entry.size == 0 and entry.key.endswith("/"):
        return False
    return fnmatch.fnmatchcase(entry.key, include) and not fnmatch.fnmatchcase(entry.key, exclude)
