"""Garbage collection: objects that no record names, and uploads that nobody finished."""

from __future__ import annotations

from dataclasses import dataclass

from covseg.archive.runs import Run


@dataclass(frozen=True)
class Swept:
    """What was removed.

    Parameters
    ----------
    orphans, uploads : int
        Objects no record names; unfinished uploads.
    bytes : int
        Of the orphans.
    """

    orphans: int
    uploads: int
    bytes: int


def gc(run: Run, older_than_s: float = 86_400, *, dry_run: bool = False) -> Swept:
    """Remove orphans and stale uploads older than `older_than_s` seconds.

    Younger ones may belong to a shard that is being committed right now.
    """
    raise NotImplementedError
