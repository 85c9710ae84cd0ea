"""Plan, commits and snapshots: every planned image exactly once, whatever breaks off where."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covseg import table
from covseg.archive import (  # fmt: skip
    PublishOptions,
    Run,
    check_conditional_writes,
    commit_shard,
    gc,
    hold_lease,
    key_id,
    listing,
    load_run,
    make_plan,
    newest_plan,
    open_run,
    pending,
    publish,
    rebuild,
)
from covseg.archive.parts import shard_id
from covseg.errors import CovsegError, NotPublished, Reason, Status, StorageDenied, StorageUnreachable, UsageError
from covseg.records import Entry
from covseg.storage import LocalStore, MemoryStore, Store, open_store
from covseg.verify import verify
from tests import archives
from tests.archives import CONFIG, KEY, LENIENT, commit, images, make_masks, make_rows, make_run, score

OUTPUTS = ("severity.parquet", "severity.csv", "report.html")


def rows_of(store: Store) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(store.read("severity.parquet"))).to_pylist()


def outputs(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in OUTPUTS}


# --- run.json ----------------------------------------------------------------------------------------


def test_a_destination_of_another_model_is_refused_and_both_are_named() -> None:
    run = make_run()
    with pytest.raises(UsageError, match=r"'made'.*'other'"):
        open_run(run.dest, run.commits, CONFIG.model_copy(update={"model_id": "other"}), run.key_id)


def test_another_config_is_refused_with_the_field_that_differs() -> None:
    run = make_run()
    with pytest.raises(UsageError, match="batch: 1 there, 2 here"):
        open_run(run.dest, run.commits, CONFIG.model_copy(update={"batch": 2}), run.key_id)


def test_another_project_key_or_mask_mode_is_refused() -> None:
    run = make_run()
    with pytest.raises(UsageError, match="key_id"):
        open_run(run.dest, run.commits, CONFIG, key_id(b"another"))
    with pytest.raises(UsageError, match="masks"):
        open_run(run.dest, run.commits, CONFIG, run.key_id, "packed")


def test_the_project_key_is_nowhere_in_the_destination() -> None:
    run, source = make_run(), MemoryStore(images(3), "source")
    score(run, source)
    assert not any(KEY in data for data in run.dest.objects.values())  # type: ignore[attr-defined]
    assert run.key_id.encode() in run.dest.read("run.json")


class Overwriting(MemoryStore):
    """A store that answers every create as made, as servers without conditional writes do."""

    def create(self, key: str, data: bytes) -> bool:
        self.objects[key] = data
        return True


def test_a_store_that_overwrites_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="--commits URL"):
        check_conditional_writes(Overwriting())


@pytest.mark.parametrize("kept", [True, False])
def test_a_lost_reply_to_the_first_sentinel_is_read_back(kept: bool) -> None:
    class Lossy(MemoryStore):
        def create(self, key: str, data: bytes) -> bool:
            if kept:
                super().create(key, data)
            return False  # as a client sees it that sent the request twice

    if kept:
        return check_conditional_writes(Lossy())
    with pytest.raises(StorageDenied, match="exists already"):
        check_conditional_writes(Lossy())
    return None


def test_a_store_that_creates_once_passes_and_is_left_clean() -> None:
    store = MemoryStore()
    check_conditional_writes(store)
    assert store.objects == {}


def test_commits_can_live_in_another_store() -> None:
    dest, commits, source = Overwriting(name="dest"), MemoryStore(name="commits"), MemoryStore(images(20), "source")
    run = make_run(dest, commits=commits)
    plan, done, manifest = score(run, source)
    assert (done, manifest.mine, plan.images) == (3, True, 20)
    assert {key.partition("/")[0] for key in commits.objects} == {"run.json", "plans", "commits", "manifests"}
    assert score(run, source)[1] == 0


# --- the plan ----------------------------------------------------------------------------------------


@given(count=st.integers(1, 60), shard_size=st.integers(1, 20), part_images=st.integers(1, 40), page=st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_shards_are_a_partition_of_the_listing(count: int, shard_size: int, part_images: int, page: int) -> None:
    source = Paged(images(count), "source", page)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "PART_IMAGES", part_images)
        run = make_run()
        plan = make_plan(run, source, shard_size=shard_size)
    shards = list(pending(run, plan))
    assert [entry.key for shard in shards for entry in shard.entries] == sorted(source.objects)
    assert all(1 <= len(shard.entries) <= shard_size for shard in shards)
    assert all(shard.id == shard_id(shard.entries) for shard in shards)
    assert (plan.images, plan.shards) == (count, len(shards))


class Paged(MemoryStore):
    """Memory that lists in short pages, and may break off."""

    def __init__(self, objects: dict[str, bytes], name: str, page: int, fail_at: int | None = None) -> None:
        super().__init__(objects, name)
        self.page, self.fail_at, self.pages = page, fail_at, 0

    def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Any:
        self.pages += 1
        if self.pages == self.fail_at:
            raise StorageUnreachable("broke off")
        return super().list_page(after, min(limit, self.page), prefix)


def test_a_listing_that_broke_off_goes_on_behind_its_last_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PART_IMAGES", 20)
    unbroken, run = make_run(), make_run()
    whole = make_plan(unbroken, Paged(images(100), "source", 10), shard_size=4)
    with pytest.raises(StorageUnreachable):
        make_plan(run, Paged(images(100), "source", 10, fail_at=8), shard_size=4)
    again = Paged(images(100), "source", 10)
    assert make_plan(run, again, shard_size=4) == whole
    assert again.pages == 4  # 60 keys lay in three parts already


def test_a_shard_id_tells_key_size_and_etag_apart() -> None:
    same = [Entry("ab", 1, "c"), Entry("a", 1, "bc"), Entry("ab", 2, "c"), Entry("ab", 1, "d"), Entry("a", 11, "c")]
    assert len({shard_id([entry]) for entry in same}) == len(same)


def test_an_unfinished_plan_is_resumed_and_not_listed_again() -> None:
    run, source = make_run(), MemoryStore(images(20), "source")
    plan = make_plan(run, source, shard_size=8)
    commit(run, source, next(iter(pending(run, plan))))
    source.write("late.png", b"late")
    again = make_plan(run, source, shard_size=8)
    assert again == plan
    assert [len(shard.entries) for shard in pending(run, again)] == [8, 4]


def test_a_third_run_scores_nothing_and_ten_new_images_are_the_only_ones() -> None:
    run, source = make_run(), MemoryStore(images(50), "source")
    assert score(run, source)[1] == 7
    before = outputs(run.dest)
    assert score(run, source)[1] == 0
    assert outputs(run.dest) == before
    source.objects.update(images(10, "extra"))
    plan, done, manifest = score(run, source)
    assert (plan.number, plan.new_images, done, manifest.statuses) == (2, 10, 2, {"scored": 60})
    carried = [part for part in plan.parts if part.generation == 1]
    assert [part.images for part in carried] == [50]
    assert len(rows_of(run.dest)) == 60


def test_a_replaced_image_is_scored_again_beside_its_old_row() -> None:
    run, source = make_run(), MemoryStore(images(9), "source")
    score(run, source)
    source.write("film-00004.png", b"replaced")
    plan, done, _ = score(run, source)
    assert (plan.new_images, done) == (1, 1)
    rows = [row for row in rows_of(run.dest) if row["key"] == "film-00004.png"]
    assert len({row["input_id"] for row in rows}) == len({row["etag"] for row in rows}) == 2


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=25), st.integers(1, 6))
@settings(deadline=None, max_examples=15)
def test_generations_merge_to_one_table_in_key_order(changes: list[tuple[int, int]], shard_size: int) -> None:
    run, source = make_run(), MemoryStore({"seed": b"seed"}, "source")
    seen = set()
    for place in range(0, len(changes) + 1, 5):
        seen |= {(entry.key, entry.etag) for entry in source.list_page().entries}
        score(run, source, shard_size=shard_size, options=PublishOptions(1.0, pictures=0))
        for number, version in changes[place : place + 5]:
            source.write(f"k{number}", f"{number} {version}".encode())
    rows = rows_of(run.dest)
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert Counter((row["key"], row["etag"]) for row in rows) == Counter(seen)


def test_the_table_does_not_depend_on_the_cut_into_shards_and_plans() -> None:
    content = images(40) | {"zz.png": b"film 3"}
    once, source = make_run(), MemoryStore(content, "source")
    score(once, source, shard_size=7)
    twice, growing = make_run(), MemoryStore(dict(list(content.items())[::2]), "source")
    score(twice, growing, shard_size=5)
    growing.objects.update(content)
    score(twice, growing, shard_size=3)
    assert outputs(once.dest) == outputs(twice.dest)


def test_include_exclude_and_limit_choose_in_key_order() -> None:
    source = MemoryStore(images(5) | images(5, "masks/m") | {"folder/": b""}, "source")
    run = make_run()
    plan = make_plan(run, source, include="*.png", exclude="masks/*", limit=3)
    assert [entry.key for shard in pending(run, plan) for entry in shard.entries] == sorted(images(3))


def test_a_dry_run_counts_the_images_that_a_plan_holds() -> None:
    from covseg.settings.score import ScoreSettings
    from workers.estimate import _survey

    source = MemoryStore(images(5) | images(5, "masks/m") | {"folder/": b""}, "source")
    counts, _, _ = _survey(ScoreSettings(source="source", dest="dest", exclude="masks/*"), source)
    assert counts["images"] == make_plan(make_run(), source, exclude="masks/*").images == 5


def test_a_limit_names_the_first_images_so_that_a_second_run_has_nothing_to_do() -> None:
    run, source = make_run(), MemoryStore(images(9), "source")
    plan = make_plan(run, source, limit=4)
    for shard in pending(run, plan):
        commit(run, source, shard)
    publish(run, plan, PublishOptions(), source, "first")
    assert make_plan(run, source, limit=4) == replace(plan, published=True)
    assert make_plan(run, source, limit=6).new_images == 2


@pytest.mark.parametrize("content", [{}, {"folder/": b""}, {"a.txt": b"1"}])
def test_an_empty_prefix_is_an_error(content: dict[str, bytes]) -> None:
    with pytest.raises(UsageError, match="nothing to score under memory://source"):
        make_plan(make_run(), MemoryStore(content, "source"), include="*.png")


def test_a_source_inside_the_destination_or_around_it_is_an_error(tmp_path: Path) -> None:
    for source, dest in (("a", "a/b"), ("a/b", "a"), ("a", "a")):
        run = make_run(LocalStore(tmp_path / f"{source}-{len(dest)}" / dest))
        with pytest.raises(UsageError, match="lie inside each other"):
            make_plan(run, LocalStore(tmp_path / f"{source}-{len(dest)}" / source))


def test_an_unfinished_plan_of_other_options_is_named() -> None:
    run, source = make_run(), MemoryStore(images(9), "source")
    make_plan(run, source, include="*")
    with pytest.raises(UsageError, match=r"unfinished plan 1 with include '\*', this run has '\*\.png'"):
        make_plan(run, source, include="*.png")


def test_of_two_first_runs_at_once_the_loser_does_not_score_another_selection() -> None:
    class Overtaken(MemoryStore):
        def create(self, key: str, data: bytes) -> bool:
            if key == "plans/1/plan.json":
                winner = MemoryStore(self.objects, "dest")
                make_plan(make_run(winner), source, include="film-00001*")
                self.objects |= winner.objects
            return super().create(key, data)

    run, source = make_run(Overtaken(name="dest")), MemoryStore(images(9), "source")
    with pytest.raises(UsageError, match=r"unfinished plan 1 with include 'film-00001\*', this run has '\*'"):
        make_plan(run, source)


def test_a_lost_part_of_a_plan_is_named() -> None:
    run, source = make_run(), MemoryStore(images(9), "source")
    plan = make_plan(run, source)
    run.dest.delete(plan.parts[0].name)
    with pytest.raises(NotPublished, match=f"{plan.parts[0].name} in memory://dest is gone.* run covseg verify"):
        list(pending(run, plan))


def test_a_destination_of_another_source_is_refused() -> None:
    run = make_run()
    score(run, MemoryStore(images(9), "source"))
    with pytest.raises(UsageError, match="belongs to source 'memory://source'"):
        make_plan(run, MemoryStore(images(9), "other"))


# --- commits -----------------------------------------------------------------------------------------


def test_what_a_worker_needs_is_picklable() -> None:
    run, source = make_run(), MemoryStore(images(3), "source")
    shard = next(iter(pending(run, make_plan(run, source))))
    assert pickle.loads(pickle.dumps(shard)) == shard
    assert pickle.loads(pickle.dumps(run)).config_sha256 == run.config_sha256


def test_a_reply_lost_after_the_commit_counts_once() -> None:
    class Lossy(MemoryStore):
        def create(self, key: str, data: bytes) -> bool:
            super().create(key, data)
            return False  # as a client sees it that sent the request twice

    run = replace(make_run(), commits=Lossy(name="lossy"))
    source = MemoryStore(images(3), "source")
    shard = next(iter(pending(run, make_plan(run, source))))
    rows = make_rows(source, shard)
    outcome = commit_shard(run, shard, rows, make_masks(rows), "mine")
    assert (outcome.mine, outcome.statuses) == (True, {"scored": 3})


def test_a_shard_done_by_another_attempt_keeps_its_commit() -> None:
    run, source = make_run(), MemoryStore(images(3), "source")
    shard = next(iter(pending(run, make_plan(run, source))))
    rows = make_rows(source, shard)
    assert commit_shard(run, shard, rows, make_masks(rows), "first").mine
    before = dict(run.dest.objects)  # type: ignore[attr-defined]
    second = commit_shard(run, shard, rows, make_masks(rows), "second")
    assert (second.mine, second.attempt) == (False, "first")
    assert run.dest.objects == before  # type: ignore[attr-defined]


def test_rows_that_are_not_the_shards_are_not_committed() -> None:
    run, source = make_run(), MemoryStore(images(5), "source")
    shard = next(iter(pending(run, make_plan(run, source))))
    rows = make_rows(source, shard)
    masks = make_masks(rows)
    swapped = [[replace(rows[0], key="x"), *rows[1:]], [replace(rows[0], config_sha256="x"), *rows[1:]]]
    wrong = [rows[:-1], [*rows, rows[0]], rows[::-1], *swapped, [replace(row, input_id="x") for row in rows]]
    for these in wrong:
        with pytest.raises(CovsegError, match="shard"):
            commit_shard(run, shard, these, masks, "first")
    with pytest.raises(CovsegError, match="masks"):
        commit_shard(run, shard, rows, {}, "first")
    assert list(pending(run, make_plan(run, source))) == [shard]


@pytest.mark.parametrize("mode", ["none", "png", "packed"])
def test_every_mask_uri_leads_to_its_mask(mode: Any) -> None:
    run, source = make_run(masks=mode), MemoryStore(images(20) | {"t": b"text"}, "source")
    score(run, source, options=PublishOptions(1.0, pictures=0))
    for row in rows_of(run.dest):
        if mode == "none" or row["status"] != "scored":
            assert row["mask_uri"] is None
            continue
        name, _, input_id = row["mask_uri"].partition("#")
        data = run.dest.read(name)
        if input_id:
            packed = pq.read_table(io.BytesIO(data)).to_pylist()
            data = next(one["mask"] for one in packed if one["input_id"] == input_id == row["input_id"])
        assert data == f"mask of {row['sha256']}".encode()


def test_probabilities_are_kept_beside_the_masks() -> None:
    for mode in ("png", "packed"):
        run, source = make_run(masks=mode), MemoryStore(images(2), "source")  # type: ignore[arg-type]
        shard = next(iter(pending(run, make_plan(run, source))))
        rows = make_rows(source, shard)
        commit_shard(run, shard, rows, make_masks(rows), "first", {rows[0].input_id: b"shades"})
        assert sum(b"shades" in data for data in run.dest.objects.values()) == 1  # type: ignore[attr-defined]


# --- publishing --------------------------------------------------------------------------------------


def test_nothing_is_published_while_a_shard_lacks_its_commit() -> None:
    run, source = make_run(), MemoryStore(images(20), "source")
    plan = make_plan(run, source, shard_size=8)
    commit(run, source, next(iter(pending(run, plan))))
    with pytest.raises(NotPublished, match="2 of 3 shards"):
        publish(run, plan, PublishOptions(), source, "first")
    assert not set(OUTPUTS) & set(run.dest.objects)  # type: ignore[attr-defined]


def test_statuses_add_up_to_the_plan() -> None:
    content = images(30) | {"notes.txt": b"text", "empty.png": b"", "gone.png": b"x", "new.png": b"x"}
    run, source = make_run(), MemoryStore(content, "source")
    plan = make_plan(run, source, shard_size=8)
    source.delete("gone.png")
    source.write("new.png", b"other")
    for shard in pending(run, plan):
        commit(run, source, shard)
    manifest = publish(run, plan, PublishOptions(max_missing=0.06), source, "first")
    assert manifest.statuses == {"scored": 30, "out_of_scope": 1, "quarantined": 1, "missing": 1, "changed": 1}
    assert manifest.reasons == {"not_an_image": 1, "empty": 1, "missing": 1, "changed": 1}
    assert manifest.accepted  # 1 of 31 is under 5 %, 2 of 34 under 6 %


def test_too_many_missing_images_are_not_accepted_whoever_committed_them() -> None:
    run, source = make_run(), MemoryStore(images(99) | {"gone.png": b"x", "new.png": b"x"}, "source")
    plan = make_plan(run, source)
    source.delete("gone.png")
    source.write("new.png", b"other")
    for shard in pending(run, plan):
        commit(run, source, shard)
    manifest = publish(run, plan, PublishOptions(), source, "first")
    assert (manifest.accepted, manifest.max_missing) == (False, 0.01)
    assert (verify(run.dest).missing, verify(run.dest).breaches) == (2, [])


def test_too_many_quarantined_images_are_published_but_not_accepted() -> None:
    run, source = make_run(), MemoryStore(images(9) | {"empty": b"", "t1": b"text", "t2": b"text"}, "source")
    _, _, manifest = score(run, source, options=PublishOptions(max_failed=0.09))
    assert manifest.accepted is False
    assert json.loads(run.dest.read("manifests/1.json"))["failed_share"] == 0.1


def test_too_many_images_out_of_scope_are_published_but_not_accepted_where_a_limit_is_given() -> None:
    content = images(8) | {"t1": b"text", "t2": b"text"}
    for limit, accepted in ((1.0, True), (0.2, True), (0.1, False)):
        run = make_run()
        _, _, manifest = score(run, MemoryStore(content, "source"), options=PublishOptions(max_out_of_scope=limit))
        kept = json.loads(run.dest.read("manifests/1.json"))
        assert (manifest.accepted, kept["accepted"]) == (accepted, accepted)
        assert kept.get("max_out_of_scope", 1.0) == limit and ("max_out_of_scope" in kept) == (limit < 1)
        assert publish(run, newest_plan(run), PublishOptions(), None, "again").accepted is accepted


def test_a_snapshot_with_nothing_scored_is_not_accepted() -> None:
    _, _, manifest = score(make_run(), MemoryStore({"t1": b"text", "t2": b"text"}, "source"), options=LENIENT)
    assert manifest.accepted is False


def test_nothing_is_published_when_no_image_has_a_lung_or_a_finite_answer() -> None:
    run, source = make_run(), MemoryStore(images(6) | {"t": b"text"}, "source")
    plan = make_plan(run, source)
    (shard,) = pending(run, plan)
    rows = make_rows(source, shard)
    blind = [replace(row, qc_flags=("lungs_not_found",)) if row.status is Status.SCORED else row for row in rows]
    broken = replace(blind[0], status=Status.QUARANTINED, reason=Reason.NONFINITE_LOGITS)
    blind[0] = broken
    commit_shard(run, shard, blind, make_masks(blind), "first")
    with pytest.raises(NotPublished, match=r"none of 6 images .* score into another DEST"):
        publish(run, plan, PublishOptions(), source, "first")
    assert "manifests/1.json" not in run.dest.objects  # type: ignore[attr-defined]


def test_empty_infection_is_normal() -> None:
    run, source = make_run(), MemoryStore(images(4), "source")
    plan = make_plan(run, source)
    (shard,) = pending(run, plan)
    rows = [replace(row, infected_fraction=0.0) for row in make_rows(source, shard)]
    commit_shard(run, shard, rows, make_masks(rows), "first")
    assert publish(run, plan, PublishOptions(), source, "first").accepted


def test_equal_contents_point_at_the_first_key_across_plans() -> None:
    run, source = make_run(), MemoryStore({"b": b"same", "c": b"other", "t": b"text", "u": b"text"}, "source")
    score(run, source, shard_size=1)
    source.objects |= {"a": b"same", "d": b"same"}
    score(run, source, shard_size=1)
    rows = {row["key"]: row for row in rows_of(run.dest)}
    assert [key for key in "abcdtu" if rows[key]["duplicate_of"]] == ["b", "d"]
    assert rows["b"]["duplicate_of"] == rows["d"]["duplicate_of"] == rows["a"]["input_id"]
    assert rows["d"]["qc_flags"] == ["duplicate_content"]


def test_the_published_table_is_the_one_of_a_folder_run() -> None:
    run, source = make_run(masks="none"), MemoryStore(images(30) | {"x": b"film 3", "t": b"text"}, "source")
    score(run, source)
    rows = [archives.make_row(source, entry) for entry in source.list_page().entries]
    expected = table.to_arrow(table.mark_duplicates(rows))
    assert pq.read_table(io.BytesIO(run.dest.read("severity.parquet"))).equals(expected)
    assert run.dest.read("severity.csv") == table.to_csv(expected)


def test_hidden_keys_are_in_no_published_file_and_not_in_their_order() -> None:
    run, source = make_run(), MemoryStore(images(50, "jane-doe"), "source")
    score(run, source, options=PublishOptions(hide_keys=True))
    rows = rows_of(run.dest)
    assert "key" not in rows[0]
    assert [row["input_id"] for row in rows] == sorted(row["input_id"] for row in rows)
    assert not any(b"jane-doe" in data for data in outputs(run.dest).values())
    assert b"jane-doe" not in run.dest.read("manifests/1.json")


def test_keys_that_spreadsheets_or_browsers_would_run_are_disarmed() -> None:
    run, source = make_run(), MemoryStore({'=HYPERLINK("x")': b"1", "<script>alert(1)</script>": b"2"}, "source")
    score(run, source)
    assert b"\n=HYPERLINK" not in run.dest.read("severity.csv")
    assert b"'=HYPERLINK" in run.dest.read("severity.csv")
    assert b"HYPERLINK" not in run.dest.read("report.html")
    assert b"alert(1)" not in run.dest.read("report.html")


def test_missing_outputs_are_rebuilt_to_the_same_bytes_without_the_source() -> None:
    run, source = make_run(), MemoryStore(images(30), "source")
    score(run, source)
    before = outputs(run.dest)
    run.dest.delete("report.html")
    run.dest.write("severity.csv", b"edited")
    source.objects.clear()
    plan = newest_plan(run)
    assert plan is not None
    rebuild(run, plan)
    assert outputs(run.dest) == before


def test_a_snapshot_that_comes_out_otherwise_is_not_written() -> None:
    run, source = make_run(), MemoryStore(images(30), "source")
    plan, _, _ = score(run, source)
    name = next(key for key in run.dest.objects if key.startswith("tables/"))  # type: ignore[attr-defined]
    run.dest.write(name, b"edited")
    with pytest.raises(NotPublished, match="is not what its commit names"):
        rebuild(run, plan)


def test_two_identical_runs_at_once_make_one_manifest_and_the_loser_says_who() -> None:
    run, source = make_run(), MemoryStore(images(60), "source")
    gate = threading.Barrier(2)

    def attempt(name: str) -> Any:
        gate.wait()
        return score(run, source, name)[2]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(attempt, ("first", "second"))
    assert sorted((first.mine, second.mine)) == [False, True]
    winner = "first" if first.mine else "second"
    assert first.published_by == second.published_by == winner
    alone = make_run()
    score(alone, source)
    assert outputs(run.dest) == outputs(alone.dest)


def test_a_slow_run_does_not_leave_an_older_snapshot_over_a_newer_one() -> None:
    class Slow(MemoryStore):
        def upload(self, path: Path, key: str) -> None:
            if key == "severity.parquet" and fast.dest.objects is not self.objects:  # type: ignore[attr-defined]
                fast.dest.objects = self.objects  # type: ignore[attr-defined]
                score(fast, source, "fast")
                source.write("late.png", b"late")
                assert score(fast, source, "fast")[2].number == 2
            super().upload(path, key)

    fast, slow = make_run(MemoryStore(name="dest")), make_run(Slow(name="dest"))
    source = MemoryStore(images(9), "source")
    assert score(slow, source, "slow")[2].published_by == "fast"
    assert len(rows_of(slow.dest)) == 10
    assert verify(slow.dest).breaches == []


class Killed(BaseException):
    """Nothing of ours catches it, as nothing catches SIGKILL."""


class Mortal(MemoryStore):
    """Memory whose user dies before its n-th change."""

    left = 10**9

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def write(self, key: str, data: bytes) -> None:
        self._step()
        super().write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._step()
        return super().create(key, data)

    def upload(self, path: Path, key: str) -> None:
        self._step()
        super().upload(path, key)


def test_a_run_killed_between_any_two_steps_resumes_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from covseg.archive import commits

    monkeypatch.setattr(commits, "WRITERS", 1)
    source = MemoryStore(images(10) | {"t": b"text"}, "source")
    whole = make_run(Mortal(name="dest"))
    score(whole, source, shard_size=4)
    steps = 10**9 - whole.dest.left  # type: ignore[attr-defined]
    expected = {key: data for key, data in whole.dest.objects.items() if not key.startswith(("manifests", "commits"))}  # type: ignore[attr-defined]
    assert steps > 20
    for killed_before in range(1, steps):
        dest = Mortal(name="dest")
        run: Run | None = None
        dest.left = killed_before
        with pytest.raises(Killed):
            run = make_run(dest)
            score(run, source, "killed", shard_size=4)
        dest.left = 10**9
        score(make_run(dest), source, "second", shard_size=4)
        found = {key: data for key, data in dest.objects.items() if not key.startswith(("manifests", "commits"))}
        assert found == expected, f"killed before step {killed_before}"


# --- gc ----------------------------------------------------------------------------------------------


def test_gc_removes_what_no_record_names_and_nothing_else(tmp_path: Path) -> None:
    run, source = make_run(LocalStore(tmp_path / "dest")), MemoryStore(images(20), "source")
    score(run, source)
    kept = {path for path in (tmp_path / "dest").rglob("*") if path.is_file()}
    for orphan in ("masks/0-0.png", "tables/x-0.parquet", "plans/2/part-0.parquet", "packed/p", "pictures/7-0.json"):
        run.dest.write(orphan, b"orphan")
    run.dest.write("notes/mine.txt", b"not covseg's")
    (tmp_path / "dest" / "masks" / ".covseg-half").write_bytes(b"half")
    assert (gc(run).orphans, gc(run).uploads) == (0, 0)  # too young
    assert gc(run, 0, dry_run=True).orphans == 5
    swept = gc(run, 0)
    assert (swept.orphans, swept.uploads, swept.bytes) == (5, 1, 30)
    assert {path for path in (tmp_path / "dest").rglob("*") if path.is_file()} == kept | {
        tmp_path / "dest" / "notes" / "mine.txt"
    }


def test_gc_refuses_the_commits_of_another_destination() -> None:
    source = MemoryStore(images(9), "source")
    one, other = make_run(MemoryStore(name="one")), make_run(MemoryStore(name="other"))
    check_disjoint = make_run(MemoryStore(name="apart"), commits=MemoryStore(name="commits"))
    for run in (one, other, check_disjoint):
        score(run, source)
    for dest, commits in (
        (one.dest, other.commits),
        (one.dest, check_disjoint.commits),
        (check_disjoint.dest, one.commits),
    ):
        with pytest.raises(UsageError, match=f"not of {dest.url}"):
            load_run(dest, commits)
    assert load_run(check_disjoint.dest, check_disjoint.commits) == check_disjoint
    assert gc(load_run(one.dest, one.commits), -1).orphans == 0


def grow_old(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))


def test_gc_leaves_what_a_resume_commits_while_it_looks(tmp_path: Path) -> None:
    class Resumed(LocalStore):
        def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Any:
            page = super().list_page(after, limit, prefix)
            if prefix == "masks/":
                commit(run, source, shard, "second")
            return page

    run, source = make_run(Resumed(tmp_path)), MemoryStore(images(5), "source")
    plan = make_plan(run, source)
    (shard,) = pending(run, plan)
    commit(run, source, shard, "killed")
    run.commits.delete(f"commits/{shard.id}.json")
    grow_old(tmp_path)
    assert gc(run).orphans == 0
    assert len(list((tmp_path / "masks").iterdir())) == 5


def test_gc_leaves_what_a_resume_has_written_but_not_yet_committed(tmp_path: Path) -> None:
    class Resumed(LocalStore):
        def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Any:
            page = super().list_page(after, limit, prefix)
            if prefix == "masks/":
                self.write("masks/a", b"the same")
            return page

    run = make_run(Resumed(tmp_path))
    for orphan in ("masks/a", "masks/b"):
        run.dest.write(orphan, b"the same")
    grow_old(tmp_path)
    assert gc(run).orphans == 1
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a"]


def test_gc_leaves_the_parts_that_a_resumed_listing_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PART_IMAGES", 20)
    run, source = make_run(LocalStore(tmp_path)), Paged(images(50), "source", 10, fail_at=4)
    with pytest.raises(StorageUnreachable):
        make_plan(run, source)
    grow_old(tmp_path)
    list_page = source.list_page
    monkeypatch.setattr(source, "list_page", lambda *given: gc(run) and list_page(*given))
    plan = make_plan(run, source)
    assert sum(len(shard.entries) for shard in pending(run, plan)) == 50


def test_gc_leaves_what_a_live_run_wrote_and_takes_what_was_there_before_it(tmp_path: Path) -> None:
    run, source = make_run(LocalStore(tmp_path)), MemoryStore(images(5), "source")
    run.dest.write("masks/orphan.png", b"of a run that was killed")
    grow_old(tmp_path)
    (shard,) = pending(run, make_plan(run, source))
    with hold_lease(run.dest, "live", every_s=0.05):
        commit(run, source, shard)
        run.commits.delete(f"commits/{shard.id}.json")  # as it is before the commit
        (tmp_path / "masks" / ".covseg-half").write_bytes(b"half")
        time.sleep(0.2)
        swept = gc(run, 0)
        assert (swept.orphans, swept.uploads) == (1, 0)
        assert not (tmp_path / "masks" / "orphan.png").exists()
    assert not list((tmp_path / "leases").iterdir())
    assert gc(run, 0).uploads == 1


def test_a_lease_that_nobody_renews_holds_gc_no_longer_and_goes_with_the_rest(tmp_path: Path) -> None:
    run = make_run(LocalStore(tmp_path))
    killed = hold_lease(run.dest, "killed", every_s=1e6)
    killed.__enter__()
    run.dest.write("masks/orphan.png", b"x")
    assert gc(run, 0).orphans == 0
    grow_old(tmp_path)
    assert gc(run, 0).orphans == 2
    killed.__exit__(None, None, None)


def test_gc_beside_writers_meets_files_that_are_renamed_and_fails_on_none(tmp_path: Path) -> None:
    run, done = make_run(LocalStore(tmp_path)), threading.Event()

    def write() -> None:
        for number in range(10**6):
            if done.is_set():
                return
            run.dest.write(f"masks/{number % 50}", b"x" * 1000)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write) for _ in range(2)]
        try:
            for _ in range(300):
                gc(run, 60)
        finally:
            done.set()
        for writer in writers:
            writer.result()


# --- a bucket ----------------------------------------------------------------------------------------

ODD_KEYS = [
    "=HYPERLINK(1).png", "<script>alert(1)</script>.png", "a//b", "../../etc/passwd", "a\nb.png", "a\rb",
    "日本/胸部.png", "😀.png", "é" * 300, "k" * 1000, "+1", "@x", "\t.png", " ", "a b%20c+d&e?f#g", "'", '"', "\\",
    "a\u2028b",
]  # fmt: skip


@pytest.mark.service
@pytest.mark.slow
def test_a_bucket_of_odd_keys_over_three_pages_is_accounted_exactly(ceph_bucket: str) -> None:
    source = open_store(f"s3://{ceph_bucket}/" + "p" * 15)
    content = images(2500 - len(ODD_KEYS)) | {key: f"odd {key}".encode() for key in ODD_KEYS}
    content["k" * 1000] = b"text"
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(source.write, content, content.values()))
    run = make_run(open_store(f"s3://{ceph_bucket}/dest"), masks="packed")
    check_conditional_writes(run.commits)
    plan, done, manifest = score(run, source, shard_size=256, options=PublishOptions(pictures=0))
    assert (plan.images, done, manifest.statuses) == (2500, 10, {"scored": 2499, "out_of_scope": 1})
    assert Counter(row["key"] for row in rows_of(run.dest)) == Counter(list(content))
    assert verify(run.dest).breaches == []
    before = outputs(run.dest)
    assert score(run, source, shard_size=256)[1] == 0
    assert outputs(run.dest) == before
    # a folder cannot hold such keys, memory can: the same images give the same table
    memory = make_run(masks="packed")
    score(memory, MemoryStore(content, "source"), shard_size=256, options=PublishOptions(pictures=0))
    assert outputs(memory.dest) == before


# --- the commands ------------------------------------------------------------------------------------


def covseg(*words: Any) -> int:
    from flows.cli.app import run

    return run([str(word) for word in words])


def test_publish_verify_and_gc_answer_with_their_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest, source = tmp_path / "dest", LocalStore(tmp_path / "source")
    for key, data in (images(9) | {"empty.png": b""}).items():
        source.write(key, data)
    assert covseg("publish", dest) == 2
    assert "no run.json" in capsys.readouterr().err
    run = make_run(LocalStore(dest))
    assert covseg("publish", dest) == 1
    plan = make_plan(run, source)
    assert covseg("publish", dest) == 1
    assert covseg("verify", dest) == 1
    for shard in pending(run, plan):
        commit(run, source, shard)
    assert covseg("publish", dest) == 3  # one of ten is quarantined
    assert covseg("publish", dest) == 3
    assert covseg("verify", dest) == 0
    before = outputs(run.dest)
    (dest / "report.html").unlink()
    assert covseg("verify", dest) == 1
    assert covseg("publish", dest, "--pictures", 0) == 3
    assert outputs(run.dest) == before
    (dest / "masks" / "orphan.png").write_bytes(b"x")
    capsys.readouterr()
    assert covseg("gc", dest, "--older-than-hours", 0, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"orphans": 1, "uploads": 0, "bytes": 1, "removed": 1}
    assert covseg("verify", dest, "--json") == 0
    assert json.loads(capsys.readouterr().out)["holds"] is True


def test_options_that_a_published_snapshot_does_not_take_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.cli import score as command
    from workers.summary import Summary

    source, dest = LocalStore(tmp_path / "source"), tmp_path / "dest"
    for key, data in images(3).items():
        source.write(key, data)
    _, _, manifest = score(make_run(LocalStore(dest)), source, options=PublishOptions())
    facts = {
        name: getattr(manifest, name)
        for name in ("accepted", "published_by", "mine", "max_failed", "max_out_of_scope", "max_missing", "hide_keys")
    }
    summary = Summary(
        1, 3, 0, 0, statuses={}, reasons={}, report="", table="", start_s=0, score_s=0, publish_s=0, **facts
    )
    monkeypatch.setattr(command, "run", lambda *_, **__: summary)
    for words in (("publish", dest), ("score", source.url, dest)):
        assert covseg(*words, "--max-failed", 0.05) == 0
        assert "snapshot 1" not in capsys.readouterr().err
        assert covseg(*words, "--hide-keys", "--max-failed", 0.5) == 0
        said = capsys.readouterr().err
        assert "snapshot 1 was published with its keys" in said
        assert "judged by --max-failed 0.05" in said


def test_publish_verify_and_gc_find_commits_that_live_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, dest, commits = (LocalStore(tmp_path / name) for name in ("source", "dest", "commits"))
    for key, data in images(9).items():
        source.write(key, data)
    run = make_run(dest, commits=commits)
    for shard in pending(run, make_plan(run, source)):
        commit(run, source, shard)
    elsewhere = ("--commits", commits.url)
    assert covseg("publish", dest.url, *elsewhere) == 0
    assert covseg("verify", dest.url, *elsewhere) == 0
    assert covseg("gc", dest.url, *elsewhere, "--older-than-hours", 0) == 0
    assert covseg("verify", dest.url, *elsewhere) == 0
    capsys.readouterr()
    assert covseg("verify", dest.url) == 2
    assert f"{dest.url} has no run.json" in capsys.readouterr().err


def test_the_report_shows_images_with_their_masks(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    source = LocalStore(tmp_path / "source")
    for number in range(6):
        image = cv2.resize(rng.integers(0, 255, (16, 16), np.uint8), (256, 256))
        source.write(f"{number}.png", cv2.imencode(".png", image)[1].tobytes())
    run = make_run(LocalStore(tmp_path / "dest"), masks="packed")
    plan = make_plan(run, source)
    (shard,) = pending(run, plan)
    rows = [replace(row, grade="moderate", doubt=row.infected_fraction) for row in make_rows(source, shard)]
    label_map = np.zeros((256, 256), np.uint8)
    label_map[50:200, 50:200] = 1
    label_map[100:150, 100:150] = 2
    png = cv2.imencode(".png", label_map)[1].tobytes()
    commit_shard(run, shard, rows, {row.input_id: png for row in rows}, "first")
    publish(run, plan, PublishOptions(pictures=5, title="A ward", source_label="autumn"), source, "first")
    report = run.dest.read("report.html")
    assert b"<h1>A ward</h1>" in report and b"Source: autumn" in report
    shown = set(re.findall(rb'data:image/jpeg;base64,[^"]+', report))
    assert len(shown) == 5  # whichever fall into the same groups
    (kept,) = (tmp_path / "dest" / "pictures").iterdir()
    pictures = json.loads(kept.read_bytes())
    assert all(picture["lung"] and picture["infection"] for picture in pictures)
    worst = max(rows, key=lambda row: row.infected_fraction or 0)
    assert pictures[0]["input_id"] == worst.input_id
    for key in ("0.png", "1.png"):
        source.delete(key)
    (tmp_path / "dest" / "report.html").unlink()
    rebuild(run, plan)
    assert run.dest.read("report.html") == report
