"""What an S3 server, or the way to it, answered, as our error tree; never a secret, never a header."""

from __future__ import annotations

import errno

import botocore.exceptions

from covseg.errors import EnvironmentFailed, StorageDenied, StorageFull, StorageUnreachable

# Ceph says 403 QuotaExceeded, MinIO 507 XMinioStorageFull
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity", "TooManyObjects"}
_CREDENTIALS = (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError)


def code_of(error: botocore.exceptions.ClientError) -> str:
    """Return the server's error code, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def translate(error: BaseException, url: str, deadline_s: float | None = None) -> Exception:
    """Return what to raise instead of a library's error; a missing key becomes FileNotFoundError."""
    if isinstance(error, botocore.exceptions.ClientError):
        return _from_answer(error, url)
    if isinstance(error, _CREDENTIALS) or "credential" in type(error).__name__.lower():
        return StorageDenied(
            f"no usable credentials for {url}: set them as AWS tools expect (environment, profile, role)"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StorageFull("no space left in the scratch folder: free some, or set TMPDIR, then run again")
    if isinstance(error, TimeoutError):
        return StorageUnreachable(
            f"no answer from {url} within {deadline_s:g} s: check endpoint and network, then run again"
        )
    return StorageUnreachable(
        f"cannot reach {url} ({type(error).__name__}): check endpoint and network, then run again"
    )


def _from_answer(error: botocore.exceptions.ClientError, url: str) -> Exception:
    code, status = code_of(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in ("NoSuchKey", "404") and error.operation_name in ("GetObject", "HeadObject"):
        return FileNotFoundError(code)
    if code == "NoSuchBucket" or status == 404:
        return StorageUnreachable(f"no such bucket: {url}; check the name, or make it")
    if code in _FULL or status == 507:
        return StorageFull(
            f"{url} is full ({code}): free some room or raise the quota, then run the same command again"
        )
    return _refused(code, status, url)


def _refused(code: str, status: int, url: str) -> EnvironmentFailed:
    if code == "InvalidObjectState":
        return StorageDenied(
            f"an object of {url} lies in an archive storage class ({code}) and cannot be read: "
            "restore what lies there, then run again"
        )
    if status in (401, 403) or code in ("InvalidToken", "ExpiredToken", "TokenRefreshRequired"):
        return StorageDenied(
            f"{url} refused our credentials or our right to do this ({code}): renew or check them, then run again"
        )
    return StorageUnreachable(f"{url} answered {status} {code} to every try: wait, then run the same command again")
