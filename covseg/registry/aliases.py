"""``candidate`` and ``champion``: which version they are, and which they were.

Every promotion is a create-only record with the next number; the one with the highest number is in force. The
object ``aliases/<alias>.json`` repeats it for people and other programs; covseg does not read it, so a
promotion that was killed between the two writes, or two at once, cannot leave an old version in force.
"""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime

from pydantic import Field

from covseg.errors import ModelRefused
from covseg.registry.versions import Record, Version, parse_record
from covseg.storage import Store, entries


class Promotion(Record):
    """One line of an alias's history."""

    name: str
    alias: str
    number: int = Field(ge=1, description="place in the history")
    version: int = Field(ge=1)
    content: str = Field(description="of that version, so that it cannot be exchanged under the alias")
    previous: int | None = Field(description="version before it; None at first")
    by: str
    note: str
    promoted_at: str = Field(description="by the clock of whoever promoted; orders nothing")
    attempt: str = Field(description="tells our own record from another's with the same number")


def history(store: Store, name: str, alias: str) -> list[Promotion]:
    """Return every promotion, oldest first; empty when the alias was never given."""
    return [_read(store, name, alias, number) for number in _numbers(store, name, alias)]


def newest(store: Store, name: str, alias: str) -> Promotion | None:
    """Return the promotion in force."""
    numbers = _numbers(store, name, alias)
    return _read(store, name, alias, numbers[-1]) if numbers else None


def gaps(found: list[Promotion]) -> list[int]:
    """Return the numbers that a history lacks: somebody removed these records."""
    return sorted(set(range(1, found[-1].number)) - {one.number for one in found}) if found else []


def promote(store: Store, name: str, alias: str, version: Version, by: str, note: str) -> tuple[Promotion, bool]:
    """Let the alias mean this version from now on.

    Returns
    -------
    Promotion, bool
        What is in force, and whether this call made it; False when the alias meant the version already.
    """
    last, attempt = newest(store, name, alias), uuid.uuid4().hex
    for number in itertools.count(last.number + 1 if last else 1):
        if last and last.version == version.number:
            return last, False
        record = Promotion(
            name=name, alias=alias, number=number, version=version.number, content=version.content,
            previous=last.version if last else None, by=by, note=note, promoted_at=now(), attempt=attempt,
        )  # fmt: skip
        if store.create(_key(name, alias, number), record.to_bytes()):
            break
        last = _read(store, name, alias, number)
        if last.attempt == attempt:  # ours: the reply was lost on its way
            break
    in_force = newest(store, name, alias) or record
    store.write(f"{name}/aliases/{alias}.json", in_force.to_bytes())
    return record, True


def now() -> str:
    """Return the time of day; for people, never for order."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _folder(name: str, alias: str) -> str:
    return f"{name}/history/{alias}/"


def _key(name: str, alias: str, number: int) -> str:
    return f"{_folder(name, alias)}{number:08d}.json"


def _numbers(store: Store, name: str, alias: str) -> list[int]:
    folder = _folder(name, alias)
    stems = [entry.key.removeprefix(folder).removesuffix(".json") for entry in entries(store, folder)]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def _read(store: Store, name: str, alias: str, number: int) -> Promotion:
    key = _key(name, alias, number)
    found = parse_record(Promotion, store.read(key), f"{store.url}/{key}")
    if (found.name, found.alias, found.number) != (name, alias, number):
        raise ModelRefused(f"{store.url}/{key} is the record of another place: somebody moved it; nothing was opened")
    return found
