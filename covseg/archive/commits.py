"""A shard's objects, and the one small record that makes them count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from covseg.archive.plans import Shard
from covseg.archive.runs import Run
from covseg.records import Row


@dataclass(frozen=True)
class Outcome:
    """What became of a shard.

    Parameters
    ----------
    shard : str
        Its id.
    mine : bool
        This attempt's commit counts; False: another attempt was first, and its objects are used.
    attempt : str
        Whose commit counts.
    statuses, reasons : mapping of str to int
        Counts of the rows that count.
    """

    shard: str
    mine: bool
    attempt: str
    statuses: Mapping[str, int]
    reasons: Mapping[str, int]


def commit_shard(
    run: Run,
    shard: Shard,
    rows: Sequence[Row],
    masks: Mapping[str, bytes],
    attempt_id: str,
    probability: Mapping[str, bytes] = MappingProxyType({}),
) -> Outcome:
    """Write a shard's objects, then its commit record.

    Parameters
    ----------
    rows : sequence of Row
        One per entry, in the shard's order.
    masks : mapping of input_id to bytes
        Label map PNG of every scored row; ignored under ``masks="none"``.
    attempt_id : str
        Unique to this attempt; stands in the commit record and nowhere else.
    probability : mapping of input_id to bytes
        Probability PNGs, of any scored rows; empty for none.

    Raises
    ------
    CovsegError
        When rows and entries do not match one to one: a fault of the caller, nothing is committed.
    EnvironmentFailed
        When the store gives way; the shard stays pending.
    """
    raise NotImplementedError
