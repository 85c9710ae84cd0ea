"""A bucket of Google Cloud Storage or a container of Azure Blob Storage as a store: obstore's client, one error tree.

A commit is one PUT, create-only (``x-goog-if-generation-match: 0``, ``If-None-Match: *``). What is written carries its
MD5 as metadata and is read against it; of what others wrote, the length is checked. Endpoint, account and credentials
come from the environment, or from the cloud's own chain; none is taken from a URL, kept here, or printed.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from obstore.store import AzureStore, GCSStore

from covseg.errors import RadiographRefused, Reason, Stage, StorageUnreachable, UsageError
from covseg.records import Entry
from covseg.storage.object_errors import Unanswered, object_errors
from covseg.storage.protocol import Page, intact, missing, order, refuse_changed, refuse_large, walk

if TYPE_CHECKING:
    from obstore import ObjectMeta  # not there at run time

T = TypeVar("T")
Scheme = Literal["gs", "az"]
Client = AzureStore | GCSStore
DEADLINE_S, CHECK_DEADLINE_S = 120.0, 10.0
STALL_S = 20  # a request without a byte for so long is tried again
READS = 3  # a body that is not what it should be is read so often
PART_BYTES = 8 * 2**20  # one has to be sent before it counts as stalled
STEP_BYTES = 64 * 2**20  # a larger image has a longer deadline, in steps: each is a client of its own
CHECKSUM = "covsegmd5"  # the name of our metadata; Azure wants an identifier
_NAMELESS = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")
ENDPOINTS = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL")


class ObjectStore:
    """Objects of a bucket below a prefix.

    Keys are names joined by single slashes; the client can name no others. Azure lists in an order of its own, which
    depends on the kind of account: a folder of it is sorted here, and held as one list.

    Parameters
    ----------
    scheme : {"gs", "az"}
        Whose bucket it is; the first part of `url`.
    deadline_s : float
        Seconds after which any one call is given up, its retries included.
    """

    def __init__(self, scheme: Scheme, bucket: str, prefix: str = "", deadline_s: float = DEADLINE_S) -> None:
        self.scheme, self.bucket, self.deadline_s = scheme, bucket, deadline_s
        self.prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        self.url = f"{scheme}://{bucket}/{self.prefix}".rstrip("/")
        self._clients: dict[float, Client] = {}
        self._walking: dict[tuple[str, str | None], Iterator[Entry]] = {}
        self._name("any")

    def __reduce__(self) -> tuple[type[ObjectStore], tuple[Scheme, str, str, float]]:
        """Travel without clients; every process opens its own."""
        return ObjectStore, (self.scheme, self.bucket, self.prefix, self.deadline_s)

    def check(self) -> None:
        """Ask for one page; wrong credentials or no answer show within seconds."""
        self._first(self.prefix or None, None, CHECK_DEADLINE_S)

    def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Page:
        """List one page, going on with the walk that the last page broke off."""
        walking = self._walking.pop((prefix, after), None) or self._walk(prefix, after)
        listed = list(itertools.islice(walking, limit))
        if len(listed) < limit:
            return Page(listed, None)
        self._walking = {(prefix, listed[-1].key): walking}
        return Page(listed, listed[-1].key)

    def _walk(self, prefix: str, after: str | None) -> Iterator[Entry]:
        """Go through Google's sorted listing behind a key; else folder by folder, for an order or a prefix it lacks."""
        if self.scheme == "gs" and prefix[-1:] in ("", "/"):
            return self._sorted(prefix, after)
        return (entry for _, entry in walk(self._children, prefix, after))

    def _sorted(self, prefix: str, after: str | None) -> Iterator[Entry]:
        behind = None if after is None else self.prefix + after
        place, last = self.prefix + prefix or None, b""
        while page := self._first(place, behind):
            if page[-1]["path"] == behind:  # what stands for a folder, shown without its slash
                return
            behind = page[-1]["path"]
            for entry in self._entries(page):
                if order(entry.key) < last:
                    raise StorageUnreachable(f"{self.url} lists its keys unsorted; wanted a bucket sorted by UTF-8")
                last = order(entry.key)
                yield entry

    def _first(self, place: str | None, behind: str | None, limit_s: float | None = None) -> Sequence[ObjectMeta]:
        """Return the first page behind a name: a later one that broke off could not be told from the listing's end."""
        return self._call(lambda client: next(iter(client.list(place, offset=behind, chunk_size=1000)), ()), limit_s)

    def _children(self, folder: str) -> Iterator[tuple[str, Entry]]:
        found = self._call(lambda client: client.list_with_delimiter(self.prefix + folder or None))
        for name in found["common_prefixes"]:
            key = name.removeprefix(self.prefix) + "/"
            yield key, Entry(key, 0, "")
        yield from ((entry.key, entry) for entry in self._entries(found["objects"]))

    def _entries(self, objects: Sequence[ObjectMeta]) -> Iterator[Entry]:
        """Turn what is listed into entries, but for the empty objects that stand for folders, shown without a slash."""
        for item in objects:
            key = item["path"].removeprefix(self.prefix)
            if item["size"] or self._is_there(key):
                yield Entry(key, item["size"], _etag(item), item["last_modified"].timestamp())

    def _is_there(self, key: str) -> bool:
        try:
            self.modified(key)
        except FileNotFoundError:
            return False
        return True

    def read(self, key: str) -> bytes:
        """Return the object's bytes, checked for length, and against our MD5 where it has one."""
        _, data, sound = self._get(key)
        if not sound:
            raise StorageUnreachable(f"{self.url}: an object does not have its own MD5 after {READS} reads")
        return data

    def fetch(self, entry: Entry) -> bytes:
        """Return the bytes that were planned."""
        refuse_large(entry)
        try:
            etag, data, sound = self._get(entry.key, entry.etag, entry.size)
        except FileNotFoundError:
            raise missing() from None
        refuse_changed(entry, etag)
        if not sound:
            raise RadiographRefused(
                Reason.CHECKSUM_MISMATCH,
                Stage.FETCH,
                f"{len(data)} bytes are not the {entry.size} of the listing, or lack their MD5, read {READS} times",
            )
        return data

    def _get(self, key: str, wanted: str | None = None, size: int = 0) -> tuple[str, bytes, bool]:
        """Return ETag, bytes, and whether the bytes are sound; a body of another ETag is not read.

        A body of a known `size` has a second a MiB on top of the deadline, in steps.
        """
        name, limit = self._name(key), self.deadline_s + size // STEP_BYTES * STEP_BYTES / 2**20

        def get(client: Client) -> tuple[str, bytes, bool]:
            answer = client.get(name)
            etag = _etag(answer.meta)
            if wanted not in (None, etag):
                return etag, b"", True
            data, checksum = bytes(answer.bytes()), str(answer.attributes.get(CHECKSUM, ""))
            return etag, data, len(data) == answer.meta["size"] and intact(checksum, data)

        for _ in range(READS):
            etag, data, sound = self._call(get, limit)
            if sound:
                break
        return etag, data, sound

    def write(self, key: str, data: bytes) -> None:
        """Replace; in parts where it is large, which show as one."""
        name, checksum = self._name(key), hashlib.md5(data, usedforsecurity=False).hexdigest()
        self._call(lambda client: client.put(name, data, attributes={CHECKSUM: checksum}, chunk_size=PART_BYTES))

    def create(self, key: str, data: bytes) -> bool:
        """Create by one PUT under a condition."""
        name, checksum = self._name(key), hashlib.md5(data, usedforsecurity=False).hexdigest()
        try:
            self._call(
                lambda client: client.put(
                    name, data, attributes={CHECKSUM: checksum}, mode="create", use_multipart=False
                )
            )
        except FileExistsError:
            return False
        return True

    def modified(self, key: str) -> float:
        """Return the object's time, by a HEAD."""
        name = self._name(key)
        return self._call(lambda client: client.head(name))["last_modified"].timestamp()

    def delete(self, key: str) -> None:
        """Delete; no error when it is gone."""
        name = self._name(key)
        try:
            self._call(lambda client: client.delete(name))
        except FileNotFoundError:
            return

    def upload(self, path: Path, key: str) -> None:
        """Send a file, in parts where it is large."""
        name = self._name(key)
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        self._call(
            lambda client: client.put(
                name, path, attributes={CHECKSUM: checksum}, chunk_size=PART_BYTES, max_concurrency=2
            )
        )

    def download(self, key: str, path: Path) -> None:
        """Stream the body into a file, and check it."""
        name = self._name(key)

        def get(client: Client) -> bool:
            answer, digest = client.get(name), hashlib.md5(usedforsecurity=False)
            with path.open("wb") as file:
                for chunk in answer.stream(PART_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
            return path.stat().st_size == answer.meta["size"] and answer.attributes.get(CHECKSUM) in (
                None, digest.hexdigest(),
            )  # fmt: skip

        if not self._call(get, 60 * self.deadline_s):
            raise StorageUnreachable(f"{self.url}: an object does not have its own length or MD5; run again")

    def stale_uploads(self, older_than_s: float) -> list[str]:  # noqa: ARG002 - the protocol's
        """Name none: Azure drops unfinished blocks after a week, a Google bucket by its lifecycle rule."""
        return []

    def abort_upload(self, name: str) -> None:
        """There is none."""

    def _name(self, key: str) -> str:
        """Return the name of `key` in the bucket; UsageError where the client cannot name it."""
        if _NAMELESS.search(self.prefix + key):
            raise UsageError(f"{self.url} cannot hold key {key!r}: wanted printable names joined by single slashes")
        return self.prefix + key

    def _call(self, do: Callable[[Client], T], limit_s: float | None = None) -> T:
        """Run one call by the deadline, in the error tree; a body that breaks off is asked for again."""
        limit = self.deadline_s if limit_s is None else limit_s
        until = time.monotonic() + limit / 3
        while True:
            try:
                with object_errors(self.url, limit):
                    if limit not in self._clients:
                        self._clients[limit] = self._open(limit)
                    return do(self._clients[limit])
            except Unanswered:
                if time.monotonic() > until:
                    raise
                time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - spreads two writers, hides nothing

    def _open(self, limit_s: float) -> Client:
        third = timedelta(seconds=limit_s / 3)  # of calls, of the client's own tries, and of its last
        plain = any(os.environ.get(name, "").startswith("http://") for name in ENDPOINTS)
        return (AzureStore if self.scheme == "az" else GCSStore)(
            self.bucket,
            client_options={
                "allow_http": plain,
                "connect_timeout": min(timedelta(seconds=5), third),
                "read_timeout": min(timedelta(seconds=STALL_S), third),
                "timeout": third,
            },
            retry_config={"max_retries": 5, "retry_timeout": third},
        )


def _etag(item: ObjectMeta) -> str:
    return (item["e_tag"] or "").strip('"')
