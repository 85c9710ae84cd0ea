"""The plan: a listing of the source, committed before any work, cut into shards named by their members.

In: a source store and a `Run`. Out: a `Plan`, and the `Shard` s that still lack a commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from covseg.archive.runs import Run
from covseg.records import Entry
from covseg.storage import Store

SHARD_SIZE = 256


@dataclass(frozen=True)
class Shard:
    """One unit of work.

    Parameters
    ----------
    id : str
        Hexadecimal digest of its members, in order.
    entries : tuple of Entry
        In key order.
    """

    id: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Part:
    """One Parquet part of a plan.

    Parameters
    ----------
    name, sha256 : str
        Its key below DEST and the digest of its bytes.
    generation : int
        The plan that listed it.
    films, shards, bytes : int
        What it holds.
    """

    name: str
    sha256: str
    generation: int
    films: int
    shards: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """A committed plan.

    Parameters
    ----------
    number : int
        From 1.
    sha256 : str
        Of its record.
    source : str
        URL of what was listed.
    parts : tuple of Part
        Carried ones first, as they were; then this plan's own.
    published : bool
        Its manifest exists: nothing new was found, nothing is pending.
    """

    number: int
    sha256: str
    source: str
    parts: tuple[Part, ...]
    published: bool

    @property
    def films(self) -> int:
        """Films of the whole snapshot."""
        return sum(part.films for part in self.parts)

    @property
    def shards(self) -> int:
        """Shards of the whole snapshot."""
        return sum(part.shards for part in self.parts)

    @property
    def new_films(self) -> int:
        """Films that this plan added."""
        return sum(part.films for part in self.parts if part.generation == self.number)

    @property
    def new_shards(self) -> int:
        """Shards that this plan added."""
        return sum(part.shards for part in self.parts if part.generation == self.number)


def make_plan(
    run: Run,
    source: Store,
    include: str = "*",
    exclude: str = "",
    limit: int | None = None,
    shard_size: int = SHARD_SIZE,
) -> Plan:
    """Resume the newest plan when it has no manifest; else list the source and shard what is new or changed.

    Parameters
    ----------
    include, exclude : str
        Globs on the key below the source, case-sensitive; ``*`` also crosses slashes.
    limit : int or None
        Only the first `limit` matching keys of the listing.
    shard_size : int
        Films a shard.

    Raises
    ------
    UsageError
        When nothing matches, source and destination lie inside each other, the destination belongs to
        another source, or an unfinished plan was made with other options.
    """
    raise NotImplementedError


def newest_plan(run: Run) -> Plan | None:
    """Return the newest committed plan; None before the first."""
    raise NotImplementedError


def pending(run: Run, plan: Plan) -> Iterator[Shard]:
    """Yield the shards of `plan` that have no commit, in plan order; one part in memory at a time."""
    raise NotImplementedError
