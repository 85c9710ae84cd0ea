"""Publishing: accounting, table, report, and last the manifest that makes the snapshot exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from covseg.archive.parts import Plan
from covseg.archive.runs import Run
from covseg.storage import Store


@dataclass(frozen=True)
class PublishOptions:
    """How a snapshot is judged and shown.

    Parameters
    ----------
    max_failed : float
        quarantined / (scored + quarantined) above which the snapshot is not accepted.
    hide_keys : bool
        Leave the source keys out of the published table.
    pictures : int
        At most this many films are drawn in the report: four fifths the worst, the rest a sample.
    """

    max_failed: float = 0.05
    hide_keys: bool = False
    pictures: int = 500


@dataclass(frozen=True)
class Manifest:
    """A published snapshot.

    Parameters
    ----------
    number : int
        The plan's.
    accepted : bool
        False: published, exit code 3.
    mine : bool
        This call published it; False: it was there, or another run was first.
    published_by : str
        Attempt id of whoever published.
    statuses, reasons : mapping of str to int
        Counts over the whole snapshot.
    outputs : mapping of str to str
        Published files and their sha256.
    """

    number: int
    accepted: bool
    mine: bool
    published_by: str
    statuses: Mapping[str, int]
    reasons: Mapping[str, int]
    outputs: Mapping[str, str]


def publish(run: Run, plan: Plan, options: PublishOptions, source: Store | None, attempt_id: str) -> Manifest:
    """Check the sum, write table and report, and create the manifest last.

    A snapshot that has its manifest keeps it; its files are rebuilt when they are missing or differ.

    Parameters
    ----------
    source : Store or None
        Where the report's films are fetched again; None leaves the pictures out.
    attempt_id : str
        Stands in the manifest as who published.

    Raises
    ------
    NotPublished
        When a shard lacks its commit, the sum does not close, or every film that reached the model has an
        empty lung mask or non-finite output. Nothing is published then.
    """
    raise NotImplementedError
