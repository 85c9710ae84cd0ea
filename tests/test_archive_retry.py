"""Images that were refused for a reason are gone through again; each image still has one row."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest

from covseg.archive import gc, make_plan, pending, plan_retry, publish
from covseg.errors import RadiographRefused, Reason, UsageError
from covseg.records import Entry
from covseg.storage import MemoryStore
from covseg.verify import verify
from tests.archives import LENIENT, commit, images, make_run, score


class Locked(MemoryStore):
    """A store that does not give some keys away until they are unlocked."""

    locked: frozenset[str] = frozenset()

    def fetch(self, entry: Entry) -> bytes:
        if entry.key in self.locked:
            raise RadiographRefused(Reason.ACCESS_DENIED, "fetch", "locked")
        return super().fetch(entry)


def retried(run, source, reason="access_denied", shard_size=8):
    plan = plan_retry(run, source, reason, shard_size)
    done = list(pending(run, plan))
    for shard in done:
        commit(run, source, shard, "again")
    return plan, done, publish(run, plan, LENIENT, source, "again")


@pytest.mark.parametrize("shard_size", [1, 8])
def test_images_refused_for_a_reason_are_gone_through_again_and_each_has_one_row(shard_size):
    source = Locked(images(20) | {"z.txt": b"text"}, name="src")
    source.locked = frozenset(f"film-{number:05}.png" for number in (3, 4, 17))
    run = make_run()
    _, _, first = score(run, source, shard_size=shard_size)
    assert first.reasons == {"access_denied": 3, "not_an_image": 1}
    source.locked = frozenset({"film-00017.png"})
    plan, done, second = retried(run, source, shard_size=shard_size)
    assert [entry.key for shard in done for entry in shard.entries] == [
        "film-00003.png", "film-00004.png", "film-00017.png",
    ]  # fmt: skip
    assert (plan.images, plan.new_images, second.images) == (21, 3, 21)
    assert second.reasons == {"access_denied": 1, "not_an_image": 1} and second.statuses["scored"] == 19
    assert verify(run.dest).breaches == []
    source.locked = frozenset()
    _, done, third = retried(run, source, shard_size=shard_size)  # and once more what was refused again
    assert third.statuses == {"scored": 20, "out_of_scope": 1} and sum(len(shard.entries) for shard in done) == 1
    assert verify(run.dest).breaches == []
    published = pq.read_table(io.BytesIO(run.dest.read("severity.parquet")))
    assert published["key"].to_pylist() == sorted({*images(20), "z.txt"})
    assert gc(run, 0).orphans == 0
    assert retried(run, source)[0].published  # nobody is left: the same snapshot
    source.write("y.png", b"new")
    assert score(run, source, shard_size=shard_size)[2].images == 22  # and a listing goes on as before
    assert verify(run.dest).breaches == []


def test_a_retry_that_was_cut_is_resumed_by_the_same_and_by_the_ordinary_command():
    source = Locked(images(6), name="src")
    source.locked = frozenset({"film-00001.png", "film-00002.png"})
    run = make_run()
    with pytest.raises(UsageError, match="has no snapshot yet: run covseg score without --retry-refused"):
        plan_retry(run, source, "access_denied")
    score(run, source, shard_size=2)
    plan = plan_retry(run, source, "access_denied", shard_size=1)
    commit(run, source, next(iter(pending(run, plan))))
    assert plan_retry(run, source, "access_denied") == plan == make_plan(run, source)
    assert len(list(pending(run, plan))) == 1


def test_a_retry_waits_for_the_end_of_an_ordinary_plan():
    source, run = MemoryStore(images(3), name="src"), make_run()
    make_plan(run, source)
    with pytest.raises(UsageError, match="has an unfinished plan 1"):
        plan_retry(run, source, "empty")


def test_the_checker_finds_a_row_that_a_retry_should_have_replaced():
    source = Locked(images(4), name="src")
    source.locked = frozenset({"film-00001.png"})
    run = make_run()
    score(run, source)
    source.locked = frozenset()
    plan, *_ = retried(run, source)
    name = f"plans/{plan.number}/plan.json"
    record = json.loads(run.dest.read(name))
    del record["parts"][-1]["retry"]
    run.dest.write(name, json.dumps(record).encode())
    assert any("planned twice" in breach or "differ in number" in breach for breach in verify(run.dest).breaches)
