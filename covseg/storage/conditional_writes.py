"""Whether a store keeps the promises that everything rests on: one creator wins, and what is written is seen whole."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from covseg.errors import StorageDenied, UsageError
from covseg.storage.protocol import Store, entries

SENTINEL = "probe/"
CREATORS = 4  # at once; some servers keep the promise for one after the other only
REPLACEMENTS = 32
STATES = (b"1" * 100_000, b"2" * 200_000)


def refuse_overwriting(store: Store, way_out: str) -> None:
    """Write a sentinel create-only, at once and again, and refuse a store where more than one write succeeds.

    The store is left as it was.

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
    contents = [str(number).encode() for number in range(CREATORS)]
    with ThreadPoolExecutor(CREATORS) as pool:
        made = sum(pool.map(partial(store.create, sentinel), contents))
    first = made or _holds(store, sentinel, contents)  # the reply to ours may be lost
    second = store.create(sentinel, b"again")
    store.delete(sentinel)
    if not first:
        raise StorageDenied(f"{store.url} says that a new object exists already; it cannot keep commits")
    if second or made > 1:
        raise UsageError(
            f"{store.url} ignores create-only writes (If-None-Match: *, a link): two runs could both count. {way_out}"
        )


def refuse_unfit(store: Store) -> None:
    """Write, replace and remove a sentinel, and refuse a store where a reader does not see just that; leave it clean.

    A mount of a file server, or of a bucket, may be such a store. What another machine sees is not asked.

    Raises
    ------
    UsageError
        When what was written is not there at once, a replaced object is seen gone or in part, or a removed one stays.
    """
    key = f"{SENTINEL}{uuid.uuid4().hex}"
    try:
        found = _unfit(store, key)
    finally:
        store.delete(key)
    if found:
        raise UsageError(
            f"{store.url} cannot keep results: {found}. Give a folder on a disk of this machine, or on a file server "
            "whose mount renames in one step and does not cache, or a bucket by its URL"
        )


def _unfit(store: Store, key: str) -> str | None:
    store.write(key, STATES[0])
    if not _holds(store, key, STATES[:1]) or [entry.size for entry in entries(store, key)] != [len(STATES[0])]:
        return "what was written is not there at once"
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(_replace, store, key)
        while not writing.done():
            seen = _read(store, key) or _read(store, key)  # FUSE answers "gone" for an instant
            if seen not in STATES:
                return "an object is gone, or there in part, while it is replaced"
        writing.result()
    if not _holds(store, key, STATES[1:]):
        return "an old content is read after it was replaced"
    store.delete(key)
    if _holds(store, key, STATES) or any(entries(store, key)):
        return "what was removed is still there"
    return None


def _replace(store: Store, key: str) -> None:
    for number in range(REPLACEMENTS):
        store.write(key, STATES[number % 2])


def _holds(store: Store, key: str, contents: tuple[bytes, ...] | list[bytes]) -> bool:
    return _read(store, key) in contents


def _read(store: Store, key: str) -> bytes | None:
    try:
        return store.read(key)
    except FileNotFoundError:
        return None
