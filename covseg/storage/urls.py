"""A URL, or a path, to a store: allow-listed schemes and buckets, and nothing chained.

Notes
-----
A backend is one entry of `SCHEMES`: the scheme, and a function from the rest of the URL and the allowed buckets to
a `Store` that passes the behaviour suite of ``tests/test_storage.py``. So a backend from outside is one line, in a
module that every process of a run imports::

    SCHEMES["mine"] = lambda rest, buckets: MyStore(rest)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from covseg.errors import UsageError
from covseg.storage.local import LocalStore
from covseg.storage.memory import MemoryStore
from covseg.storage.protocol import Store

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_CLOUDS = {"s3": "AWS", "gs": "Google", "az": "Azure"}
_MEMORY: dict[str, MemoryStore] = {}
Opener = Callable[[str, Collection[str] | None], Store]


def open_store(
    url: str | Path, schemes: Collection[str] | None = None, buckets: Collection[str] | None = None
) -> Store:
    """Open a store; nothing is read or written, and no connection made.

    Parameters
    ----------
    url : str or Path
        A path, ``file:///path``, ``s3://bucket/prefix`` (so ``gs://``, ``az://``), or in tests ``memory://name``.
    schemes : collection of str or None
        Those allowed; None takes all of `SCHEMES` but ``memory``, which has to be named.
    buckets : collection of str or None
        Those allowed; None takes ``COVSEG_BUCKETS`` (names joined by commas), and without it any bucket.

    Raises
    ------
    UsageError
        For another scheme, another bucket, a chained URL, or credentials in the URL.
    """
    scheme, separator, rest = str(url).partition("://")
    if isinstance(url, Path) or not separator:
        return LocalStore(Path(url))
    if "::" in scheme:
        raise UsageError("a chained URL (with ::) is not opened: give the bucket or the folder itself")
    schemes = [name for name in SCHEMES if name != "memory"] if schemes is None else schemes
    opener = SCHEMES.get(scheme) or SOURCES.get(scheme)
    if scheme not in schemes or opener is None:
        raise UsageError(f"{scheme}:// is not an allowed scheme: wanted {', '.join(schemes)} or a path")
    return opener(rest, buckets)


def open_source(url: str | Path) -> Store:
    """Open a store that is only read: one that `open_store` opens, or a DICOMweb server."""
    return open_store(url, [name for name in (*SCHEMES, *SOURCES) if name != "memory"])


def local_path(url: str | Path) -> Path | None:
    """Return the folder that a path or a ``file://`` URL names; None for a bucket.

    Examples
    --------
    >>> local_path("runs/one").as_posix(), local_path("file:///data").as_posix(), local_path("s3://images/2026")
    ('runs/one', '/data', None)
    """
    scheme, separator, rest = str(url).partition("://")
    if isinstance(url, Path) or not separator:
        return Path(url)
    return _local_path(rest) if scheme == "file" else None


def _local_path(rest: str) -> Path:
    if not rest.startswith("/"):
        raise UsageError(f"file://{rest} names another machine: wanted file:///absolute/path")
    return Path(rest)


def _open_bucket(scheme: Literal["s3", "gs", "az"], rest: str, buckets: Collection[str] | None) -> Store:
    bucket, _, prefix = rest.partition("/")
    wanted = f"wanted {scheme}://bucket/prefix"
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            f"credentials or a port in the URL: {wanted}; the rest is in the settings of {_CLOUDS[scheme]}"
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{bucket!r} is not a bucket name: {wanted}")
    if buckets is None and (listed := os.environ.get("COVSEG_BUCKETS")):
        buckets = [name.strip() for name in listed.split(",")]
    if buckets is not None and bucket not in buckets:
        raise UsageError(f"bucket {bucket!r} is not among the allowed ones ({', '.join(buckets)}): see COVSEG_BUCKETS")
    if scheme == "s3":
        from covseg.storage.s3 import S3Store

        return S3Store(bucket, prefix)
    try:
        from covseg.storage.objects import ObjectStore
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{scheme}:// needs {error.name}, which is not installed: pip install 'covseg[{scheme}]'"
        ) from None
    return ObjectStore(scheme, bucket, prefix)


def _open_dicomweb(scheme: str, rest: str) -> Store:
    from covseg.storage.dicomweb import DicomWebStore

    root, _, query = rest.partition("?")
    return DicomWebStore(f"{scheme}://{root}", query)


SOURCES: dict[str, Opener] = {  # read only, and no folder of files
    "dicomweb+https": lambda rest, _: _open_dicomweb("https", rest),
    "dicomweb+http": lambda rest, _: _open_dicomweb("http", rest),
}
SCHEMES: dict[str, Opener] = {
    "file": lambda rest, _: LocalStore(_local_path(rest)),
    "s3": lambda rest, buckets: _open_bucket("s3", rest, buckets),
    "gs": lambda rest, buckets: _open_bucket("gs", rest, buckets),
    "az": lambda rest, buckets: _open_bucket("az", rest, buckets),
    "memory": lambda rest, _: _MEMORY.setdefault(rest, MemoryStore(name=rest)),
}
