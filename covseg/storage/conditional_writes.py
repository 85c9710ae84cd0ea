"""Whether a store keeps the promise that everything create-only rests on."""

from __future__ import annotations

import uuid

from covseg.errors import StorageDenied, UsageError
from covseg.storage.protocol import Store

SENTINEL = "probe/"


def refuse_overwriting(store: Store, way_out: str) -> None:
    """Write a sentinel twice, create-only, and refuse a store where the second write succeeds; leave it as it was.

    Parameters
    ----------
    way_out : str
        What to do instead; the end of the message.

    Raises
    ------
    UsageError
        When the store overwrites.
    StorageDenied
        When the store cannot be written.
    """
    sentinel = f"{SENTINEL}{uuid.uuid4().hex}"
    first = store.create(sentinel, b"1") or _holds(store, sentinel, b"1")  # the reply to ours may be lost
    second = store.create(sentinel, b"2")
    store.delete(sentinel)
    if not first:
        raise StorageDenied(f"{store.url} says that a new object exists already; it cannot keep commits")
    if second:
        raise UsageError(
            f"{store.url} ignores create-only writes (If-None-Match: *): two runs could both count. {way_out}"
        )


def _holds(store: Store, key: str, data: bytes) -> bool:
    try:
        return store.read(key) == data
    except FileNotFoundError:
        return False
