"""A bucket, or a prefix of one, as a store: s3fs's session and client, with deadlines and one error tree.

The requests are single calls of the S3 API, so that what is on the wire is known: a commit is one
single-part PUT with ``If-None-Match: *``, never the completion of a multipart upload, and no request
carries ``If-Match`` (servers get both wrong). Endpoint, region and credentials come from the standard
AWS settings; none is taken from a URL, kept here, or printed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import botocore.exceptions
import fsspec.asyn
import s3fs

from covseg.errors import CovsegError, RadiographRefused, Reason, Stage, StorageUnreachable
from covseg.records import Entry
from covseg.storage.protocol import Page, intact, missing, order, refuse_changed, refuse_large
from covseg.storage.s3_errors import code_of, translate

T = TypeVar("T")
Answer = Mapping[str, Any]  # of the server, as botocore parses it
DEADLINE_S, CHECK_DEADLINE_S = 120.0, 10.0
READS = 3  # a body that fails its MD5 is read so often before the image is refused
CONFLICTS = 8  # 409: another conditional write to the key is under way
PART_BYTES = 16 * 2**20
SETTINGS = {
    "retries": {"total_max_attempts": 6, "mode": "standard"},
    "connect_timeout": 5,
    "read_timeout": 20,
    "max_pool_connections": 64,
    # what we send carries Content-MD5, which every server checks; newer trailers are refused by older gateways
    "request_checksum_calculation": "when_required",
}


class S3Store:
    """Objects of a bucket below a prefix.

    Parameters
    ----------
    prefix : str
        Without it, the whole bucket; a slash is added when it lacks one.
    deadline_s : float
        Seconds after which any one call is given up, its retries included.
    """

    def __init__(self, bucket: str, prefix: str = "", deadline_s: float = DEADLINE_S) -> None:
        self.bucket = bucket
        self.prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        self.url = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self.deadline_s = deadline_s
        self._fs: s3fs.S3FileSystem | None = None
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple[type[S3Store], tuple[str, str, float]]:
        """Travel without the session; every process opens its own."""
        return S3Store, (self.bucket, self.prefix, self.deadline_s)

    def check(self) -> None:
        """Ask for one key; wrong credentials or no answer show within seconds."""
        self._run(lambda s3: s3.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1), CHECK_DEADLINE_S)

    def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Page:
        """List one page of at most 1,000 keys; the server's own limit."""
        behind = {} if after is None else {"StartAfter": self.prefix + after}
        request = {"Bucket": self.bucket, "Prefix": self.prefix + prefix, "MaxKeys": min(limit, 1000), **behind}
        answer = self._run(lambda s3: s3.list_objects_v2(**request))
        while answer.get("IsTruncated") and not answer.get("Contents"):  # behind many deleted keys a page may be empty
            request["ContinuationToken"] = answer["NextContinuationToken"]
            answer = self._run(lambda s3: s3.list_objects_v2(**request))
        listed = [self._entry(item) for item in answer.get("Contents", ())]
        keys = [order(entry.key) for entry in listed]
        if keys != sorted(keys):
            raise StorageUnreachable(
                f"{self.url} lists its keys unsorted; wanted a general purpose bucket, sorted by UTF-8"
            )
        return Page([entry for entry in listed if entry.key], listed[-1].key if answer.get("IsTruncated") else None)

    def _entry(self, item: Answer) -> Entry:
        key = item["Key"].removeprefix(self.prefix)
        return Entry(key, item["Size"], _unquoted(item["ETag"]), item["LastModified"].timestamp())

    def read(self, key: str) -> bytes:
        """Return the object's bytes, checked against an ETag that is an MD5."""
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
                f"{len(data)} bytes do not have the MD5 of their ETag, read {READS} times",
            )
        return data

    def _get(self, key: str, wanted: str | None = None, size: int = 0) -> tuple[str, bytes, bool]:
        """Return ETag, bytes, and whether the bytes are sound; a body of another ETag is not read.

        A body of a known `size` has a second a MiB on top of the deadline.
        """

        async def get(s3: Any) -> tuple[str, bytes, bool]:
            answer = await s3.get_object(Bucket=self.bucket, Key=self.prefix + key)
            etag = _unquoted(answer["ETag"])
            async with answer["Body"] as body:
                data = b"" if wanted not in (None, etag) else await body.read()
            return etag, data, wanted not in (None, etag) or _encrypted(answer) or intact(etag, data)

        for _ in range(READS):
            etag, data, sound = self._run(get, self.deadline_s + size / 2**20)
            if sound:
                break
        return etag, data, sound

    def write(self, key: str, data: bytes) -> None:
        """Replace by one PUT."""
        self._run(self._put(key, data))

    def create(self, key: str, data: bytes) -> bool:
        """Create by one single-part PUT with ``If-None-Match: *``; 412 is False, 409 is tried again."""
        for attempt in range(CONFLICTS):
            try:
                self._run(self._put(key, data, IfNoneMatch="*"), raw=("412", "409"))
            except botocore.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 412:
                    return False
                time.sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311 - spreads two writers, hides nothing
            else:
                return True
        raise StorageUnreachable(f"{self.url}: a create-only write met {CONFLICTS} conflicts (409) in a row; run again")

    def _put(self, key: str, data: bytes, **condition: str) -> Callable[[Any], Awaitable[Answer]]:
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        name = self.prefix + key
        return lambda s3: s3.put_object(Bucket=self.bucket, Key=name, Body=data, ContentMD5=digest, **condition)

    def modified(self, key: str) -> float:
        """Return the object's time, by a HEAD."""
        answer = self._run(lambda s3: s3.head_object(Bucket=self.bucket, Key=self.prefix + key))
        return float(answer["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        """Delete; S3 does not mind when it is gone."""
        self._run(lambda s3: s3.delete_object(Bucket=self.bucket, Key=self.prefix + key))

    def upload(self, path: Path, key: str) -> None:
        """Send a file; in parts when it is large, which is right for what may be replaced."""
        size = path.stat().st_size
        if size <= PART_BYTES:
            self.write(key, path.read_bytes())
            return
        place = f"{self.bucket}/{self.prefix}{key}"

        async def put(_: Any) -> None:
            await self.session()._put_file(
                str(path), place, chunksize=max(PART_BYTES, size // 9_000), max_concurrency=2
            )

        self._run(put, self.deadline_s + size / 2**20)

    def download(self, key: str, path: Path) -> None:
        """Stream the body into a file."""

        async def get(s3: Any) -> None:
            answer = await s3.get_object(Bucket=self.bucket, Key=self.prefix + key)
            async with answer["Body"] as body:
                with path.open("wb") as file:
                    while chunk := await body.read(PART_BYTES):
                        file.write(chunk)
            if path.stat().st_size != answer["ContentLength"]:
                raise aiohttp.ClientPayloadError("the body ended early")

        self._run(get, 60 * self.deadline_s)

    def stale_uploads(self, older_than_s: float) -> list[str]:
        """Name unfinished multipart uploads: upload id, a blank, the key."""
        before = time.time() - older_than_s
        stale: list[str] = []
        behind: dict[str, str] = {}
        while True:
            request = {"Bucket": self.bucket, "Prefix": self.prefix, **behind}
            answer = self._run(lambda s3, request=request: s3.list_multipart_uploads(**request))  # type: ignore[misc]
            for item in answer.get("Uploads", ()):
                if item["Initiated"].timestamp() <= before:
                    stale.append(f"{item['UploadId']} {item['Key'].removeprefix(self.prefix)}")
            if not answer.get("IsTruncated"):
                return stale
            behind = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def abort_upload(self, name: str) -> None:
        """Abort it; none there is as good."""
        upload, _, key = name.partition(" ")
        request = {"Bucket": self.bucket, "Key": self.prefix + key, "UploadId": upload}
        try:
            self._run(lambda s3: s3.abort_multipart_upload(**request), raw=("404",))
        except botocore.exceptions.ClientError as error:
            if code_of(error) != "NoSuchUpload":
                raise translate(error, self.url) from error

    def session(self) -> s3fs.S3FileSystem:
        """Return the session, opened at the first call."""
        with self._opening:
            if self._fs is None:
                self._fs = s3fs.S3FileSystem(
                    config_kwargs={**SETTINGS, **_addressing()}, use_listings_cache=False, skip_instance_cache=True
                )
            return self._fs

    def _run(
        self, call: Callable[[Any], Awaitable[T]], deadline_s: float | None = None, raw: tuple[str, ...] = ()
    ) -> T:
        """Run one call on s3fs's loop, by the deadline; HTTP statuses in `raw` come back as botocore's error."""
        limit = self.deadline_s if deadline_s is None else deadline_s
        try:
            return fsspec.asyn.sync(self.session().loop, self._bounded, call, limit)
        except CovsegError:
            raise
        except botocore.exceptions.ClientError as error:
            if str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")) in raw:
                raise
            raise translate(error, self.url) from error
        except (TimeoutError, OSError, aiohttp.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise translate(error, self.url, limit) from error

    async def _bounded(self, call: Callable[[Any], Awaitable[T]], limit: float) -> T:
        """Try bodies that break off again; the client itself retries what fails before the body."""
        async with asyncio.timeout(limit):
            s3 = await self.session().set_session()
            while True:
                try:
                    return await call(s3)
                except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionError):
                    await asyncio.sleep(0.2)
                except botocore.exceptions.HTTPClientError as error:
                    if not _broke_off(error):
                        raise
                    await asyncio.sleep(0.2)


def _broke_off(error: botocore.exceptions.HTTPClientError) -> bool:
    body = (botocore.exceptions.ResponseStreamingError, botocore.exceptions.IncompleteReadError)
    return isinstance(error, (*body, botocore.exceptions.ReadTimeoutError))


def _encrypted(answer: Answer) -> bool:
    """Tell whether the ETag is no MD5 of the bytes although it looks like one."""
    return answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer


def _unquoted(etag: str) -> str:
    return etag.strip('"')


def _addressing() -> dict[str, dict[str, str]]:
    """Name the bucket in the path, not in the host, on every server but Amazon's."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return {"s3": {"addressing_style": "path"}} if endpoint and "amazonaws.com" not in endpoint else {}
