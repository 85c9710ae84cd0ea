"""What a registry holds: every model of it, or everything about one.

In: an open registry. Out: what `covseg models list` and `covseg models show` print.
"""

from __future__ import annotations

from dataclasses import dataclass

from covseg.errors import UsageError
from covseg.registry import aliases
from covseg.registry.aliases import Promotion
from covseg.registry.objects import markers, tags, versions
from covseg.registry.references import ALIASES
from covseg.registry.versions import Version
from covseg.storage import Store, local_path


@dataclass(frozen=True)
class Listed:
    """One model of a registry: its versions' numbers, and what the aliases mean."""

    name: str
    numbers: tuple[int, ...]
    aliases: dict[str, int]


@dataclass(frozen=True)
class Shown:
    """Everything a registry knows of one model, but its files."""

    name: str
    versions: list[Version]
    history: dict[str, list[Promotion]]


def list_models(registry: Store) -> list[Listed]:
    """Return every model that has a version, by name.

    Raises
    ------
    UsageError
        When the registry is a folder that is not there; one without models is empty.
    """
    if (folder := local_path(registry.url)) and not folder.is_dir():
        raise UsageError(f"{registry.url} is no folder: wanted a registry; covseg models push makes one")
    numbers: dict[str, list[int]] = {}
    for name, number in markers(registry):
        numbers.setdefault(name, []).append(number)
    return [Listed(name, tuple(found), _in_force(registry, name)) for name, found in numbers.items()]


def _in_force(registry: Store, name: str) -> dict[str, int]:
    found = {alias: aliases.newest(registry, name, alias) for alias in ALIASES}
    return {alias: promotion.version for alias, promotion in found.items() if promotion}


def show(registry: Store, name: str) -> Shown:
    """Return a model's versions and the history of its aliases.

    Raises
    ------
    ModelRefused
        When there is no such model.
    """
    tags(registry, name)  # refuses a name without a version
    return Shown(name, versions(registry, name), {alias: aliases.history(registry, name, alias) for alias in ALIASES})
