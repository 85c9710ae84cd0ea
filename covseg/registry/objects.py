"""The objects of a registry: their keys, and how each is created once and read back.

In: a store and names. Out: `Version` records and files whose digest matches. The layout stands at the head of
``registry.py``; aliases are in ``aliases.py``.
"""

from __future__ import annotations

import hashlib
import itertools
import re

from covseg.errors import ModelRefused
from covseg.registry.versions import File, Version, parse_record
from covseg.storage import Store, entries

_MARKER = re.compile(r"([^/]+)/versions/v([1-9][0-9]{0,8})\.json")


def markers(registry: Store, prefix: str = "") -> list[tuple[str, int]]:
    """Return name and number of every version below a prefix, by name and number."""
    matches = (_MARKER.fullmatch(entry.key) for entry in entries(registry, prefix))
    return sorted((match[1], int(match[2])) for match in matches if match)


def versions(registry: Store, name: str) -> list[Version]:
    """Return the versions of a model, oldest first; empty when there is no such model."""
    return [read_version(registry, name, number) for _, number in markers(registry, f"{name}/versions/")]


def read_version(registry: Store, name: str, number: int) -> Version:
    """Return one version.

    Raises
    ------
    ModelRefused
        When there is no such version, or its record cannot be believed.
    """
    key = _marker(name, number)
    try:
        version = parse_record(Version, registry.read(key), f"{registry.url}/{key}")
    except FileNotFoundError:
        known = ", ".join(tags(registry, name))
        raise ModelRefused(f"{name} has no v{number} in {registry.url}: it has {known}") from None
    if version.number != number:
        raise ModelRefused(f"{registry.url}/{key} is the record of {version.tag}: somebody moved it")
    return version


def tags(registry: Store, name: str) -> list[str]:
    """Return the tags of a model's versions, oldest first.

    Raises
    ------
    ModelRefused
        When it has none; with the names that have one.
    """
    if found := markers(registry, f"{name}/versions/"):
        return [f"v{number}" for _, number in found]
    known = sorted({other for other, _ in markers(registry)})
    raise ModelRefused(
        f"no model {name!r} in {registry.url}: it holds {', '.join(known) or 'none; covseg models push makes one'}"
    ) from None


def complete(registry: Store, name: str, draft: Version) -> tuple[Version, bool]:
    """Give a version whose files are all written the next free number.

    Every number on the way is looked at, and records never change, so one content never gets two numbers.

    Returns
    -------
    Version, bool
        The version of this content, and whether this call completed it.
    """
    for number in itertools.count(draft.number):
        version = draft.model_copy(update={"number": number})
        if registry.create(_marker(name, number), version.to_bytes()):
            break
        version = read_version(registry, name, number)
        if version.content == draft.content:  # another push of the same, or ours whose reply was lost
            return version, False
    return version, True


def put(registry: Store, name: str, version: Version, file: File, data: bytes) -> None:
    """Create a file of a version, or find the very same bytes there: an earlier push of the same left them.

    Raises
    ------
    ModelRefused
        When other bytes lie there.
    """
    key = _file(name, version, file)
    if registry.create(key, data):
        return
    found = registry.read(key)
    if found != data:
        raise ModelRefused(
            f"{registry.url}/{key} exists with other content (sha256 {_sha(found)[:16]}..., wanted "
            f"{file.sha256[:16]}...): versions are immutable and somebody changed one; find out who, "
            "and push under another name"
        )


def get(registry: Store, name: str, version: Version, file: File) -> bytes:
    """Return a file of a version.

    Raises
    ------
    ModelRefused
        When it is gone, or its bytes are others than the version names.
    """
    key = _file(name, version, file)
    try:
        data = registry.read(key)
    except FileNotFoundError:
        raise ModelRefused(f"{registry.url}/{key} is gone: {name} {version.tag} is no longer whole") from None
    if _sha(data) != file.sha256:
        raise ModelRefused(
            f"{registry.url}/{key} has sha256 {_sha(data)[:16]}..., {name} {version.tag} names "
            f"{file.sha256[:16]}...: it was changed or damaged in the registry; nothing was opened"
        )
    return data


def _marker(name: str, number: int) -> str:
    return f"{name}/versions/v{number}.json"


def _file(name: str, version: Version, file: File) -> str:
    return f"{name}/content/{version.content[:16]}/{file.name}"


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
