"""A URL to a PyArrow file system, for programs that want one; buckets by the same session settings as `S3Store`."""

from __future__ import annotations

import pyarrow.fs

from covseg.errors import UsageError
from covseg.storage.s3 import S3Store
from covseg.storage.urls import local_path, open_store


def arrow_filesystem(url: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return a file system, picklable and without credentials in it, and the path of `url` on it.

    Raises
    ------
    UsageError
        For a URL that `open_store` refuses, and for ``gs://`` and ``az://``.
    """
    folder = local_path(url)
    if folder is not None:
        return pyarrow.fs.LocalFileSystem(), str(folder.absolute())
    store = open_store(url)
    if not isinstance(store, S3Store):
        raise UsageError(f"{store.url} cannot take a training's checkpoints: wanted a folder or s3://bucket/prefix")
    handler = pyarrow.fs.FSSpecHandler(store.session())
    return pyarrow.fs.PyFileSystem(handler), f"{store.bucket}/{store.prefix}".rstrip("/")
