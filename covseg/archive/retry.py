"""A plan that goes through refused images again: their new rows take the place of those before.

In: a destination and the reason. Out: the next plan, whose own part holds these images under shards of other names; old
commits stay as they are, and the snapshot takes an image's newest row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from covseg.archive.commits import commit_name
from covseg.archive.listing import Cursor, ListingNote
from covseg.archive.parts import Plan, describe, encode, read_part
from covseg.archive.plans import load_plan, newest_plan, plan_name
from covseg.archive.records import CommitRecord, PlanRecord, read_record
from covseg.archive.runs import Run
from covseg.archive.snapshot import read_shard
from covseg.errors import UsageError
from covseg.records import Entry
from covseg.settings.score import SHARD_SIZE
from covseg.storage import Store
from covseg.storage.protocol import order
from covseg.table import text


def plan_retry(run: Run, source: Store, reason: str, shard_size: int = SHARD_SIZE) -> Plan:
    """Plan every image again whose newest row was refused for `reason`; resume such a plan that is under way.

    Returns
    -------
    Plan
        The newest one again, marked published, when no image was refused for it.

    Raises
    ------
    UsageError
        When nothing was published yet, an ordinary plan is under way, or the source is another one.
    """
    newest = newest_plan(run)
    if newest is None or (not newest.published and not _retries(newest)):
        state = "has no snapshot yet" if newest is None else f"has an unfinished plan {newest.number}"
        raise UsageError(f"{run.dest.url} {state}: run covseg score without --retry-refused to its end first")
    if newest.source != source.url:
        raise UsageError(f"{run.dest.url} belongs to source {newest.source!r}, this run has {source.url!r}")
    if not newest.published:
        return newest
    source.check()
    images = sorted(_refused(run, newest, reason), key=lambda entry: order(entry.key))
    if not images:
        return newest
    number = newest.number + 1
    before = read_record(run.commits, plan_name(newest.number), PlanRecord)
    note = ListingNote(listing=f"retry {reason}", start=Cursor(), end=Cursor(done=True))
    data = encode(images, shard_size, note.encode(), again=number)
    part, _ = describe(data, number, retry=True)
    run.dest.write(part.name, data)
    changed = {"number": number, "before": newest.sha256, "shard_size": shard_size, "parts": (*newest.parts, part)}
    record = before.model_copy(update=changed).encode()
    made = run.commits.create(plan_name(number), record)
    plan = load_plan(run, number)
    if not made and plan.sha256 != hashlib.sha256(record).hexdigest():
        raise UsageError(f"{run.dest.url}: another run made plan {number} meanwhile; run the same command again")
    return plan


def _retries(plan: Plan) -> bool:
    return any(part.retry for part in plan.parts if part.generation == plan.number)


def _refused(run: Run, plan: Plan, reason: str) -> Iterator[Entry]:
    """Yield the images whose newest row has the reason; tables of shards without one are not read."""
    found: dict[tuple[str, str], Entry] = {}
    for part in plan.parts:
        for shard in read_part(run.dest, part):
            counted = read_record(run.commits, commit_name(shard.id), CommitRecord).reasons
            if reason not in counted and not part.retry:
                continue
            _, rows = read_shard(run, shard)
            columns = (rows[name].to_pylist() for name in ("key", "etag", "reason"))
            why = {(key, etag): reason_then for key, etag, reason_then in zip(*columns, strict=True)}
            for entry in shard.entries:
                place = text(entry.key), entry.etag
                if why[place] == reason:
                    found[place] = entry
                else:
                    found.pop(place, None)
    yield from found.values()
