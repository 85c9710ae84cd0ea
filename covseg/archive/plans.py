"""The plan: a listing of the source, committed before any work, cut into shards named by their members.

In: a source store and a `Run`. Out: a `Plan`, and the `Shard` s that still lack a commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from covseg.archive.commits import commit_name
from covseg.archive.listing import Listing
from covseg.archive.parts import Plan, Shard, read_part
from covseg.archive.records import PlanRecord, Selection, read_record
from covseg.archive.runs import Run
from covseg.errors import UsageError
from covseg.settings.score import SHARD_SIZE
from covseg.storage import Store, entries, overlap


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
        Images a shard.

    Returns
    -------
    Plan
        The newest one again, marked published, when nothing is new.

    Raises
    ------
    UsageError
        When nothing matches, source and destination lie inside each other, the destination belongs to
        another source, or an unfinished plan was made with other options.
    """
    check_disjoint(source, run.dest, run.commits)
    source.check()
    selection = Selection(source=source.url, include=include, exclude=exclude, limit=limit)
    newest = newest_plan(run)
    if newest and (not newest.published or newest.source != source.url):
        _check_same(run, newest, selection)
        return newest
    listing = Listing(run, source, newest, selection, shard_size)
    parts = list(listing.parts())
    if any(part.images for part in parts):
        record = listing.record(tuple(part for part in parts if part.images))
        made = run.commits.create(plan_name(listing.number), record.encode())
        plan = load_plan(run, listing.number)
        if not made:  # another run was first, perhaps with other options; or the reply to ours was lost
            _check_same(run, plan, selection)
        return plan
    listing.forget(parts)
    if newest is None or listing.cursor.matched == 0:
        raise UsageError(f"nothing to score under {source.url}: {_lacking(listing.cursor.listed, include, exclude)}")
    return newest


def _lacking(listed: int, include: str, exclude: str) -> str:
    if not listed:
        return "nothing lies there; check bucket, prefix or folder"
    without = f" without --exclude {exclude!r}" if exclude else ""
    return f"{listed} objects, none matches --include {include!r}{without}"


def check_disjoint(source: Store, dest: Store, commits: Store) -> None:
    """Refuse results that would be listed as images; nothing is read or written for it.

    Raises
    ------
    UsageError
        When the source and another store lie inside each other.
    """
    for name, store in (("DEST", dest), ("--commits", commits)):
        if overlap(source, store):
            raise UsageError(
                f"SOURCE {source.url} and {name} {store.url} lie inside each other: "
                "results would be listed as images; give a destination apart from the source"
            )


def _check_same(run: Run, plan: Plan, selection: Selection) -> None:
    record = read_record(run.commits, plan_name(plan.number), PlanRecord)
    for name, value in selection:
        if getattr(record, name) != value:
            state = "belongs to" if name == "source" else f"has an unfinished plan {plan.number} with"
            raise UsageError(
                f"{run.dest.url} {state} {name} {getattr(record, name)!r}, this run has {value!r}: "
                "run again with the same, or take another destination"
            )


def newest_plan(run: Run) -> Plan | None:
    """Return the newest committed plan; None before the first."""
    newest = max(plan_numbers(run.commits), default=None)
    return None if newest is None else load_plan(run, newest)


def plan_numbers(commits: Store) -> list[int]:
    """Return the numbers of all committed plans."""
    names = [entry.key for entry in entries(commits, "plans/")]
    return [int(name.split("/")[1]) for name in names if name.endswith("/plan.json")]


def load_plan(run: Run, number: int) -> Plan:
    """Return a committed plan by its number."""
    data = run.commits.read(plan_name(number))
    record = PlanRecord.decode(data, f"{plan_name(number)} in {run.commits.url}")
    manifest = manifest_name(number)
    published = any(entry.key == manifest for entry in entries(run.commits, manifest))
    return Plan(number, hashlib.sha256(data).hexdigest(), record.source, record.parts, published)


def pending(run: Run, plan: Plan) -> Iterator[Shard]:
    """Yield the shards of `plan` that have no commit, in plan order; one part in memory at a time.

    Carried shards have theirs: a plan is only made when all of the one before is published.
    """
    done = {entry.key for entry in entries(run.commits, "commits/")}
    for part in plan.parts:
        if part.generation == plan.number:
            yield from (shard for shard in read_part(run.dest, part) if commit_name(shard.id) not in done)


def plan_name(number: int) -> str:
    """Return the key of a plan's record."""
    return f"plans/{number}/plan.json"


def manifest_name(number: int) -> str:
    """Return the key of a snapshot's manifest."""
    return f"manifests/{number}.json"
