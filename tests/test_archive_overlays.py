"""Overlays of an archive: drawn at publishing, led to from the report, known to `covseg verify` and `covseg gc`."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from covseg.archive import (
    Manifest,
    PublishOptions,
    Run,
    commit_shard,
    gc,
    make_plan,
    newest_plan,
    pending,
    publish,
    rebuild,
)
from covseg.records import RESEARCH_ONLY
from covseg.storage import MemoryStore
from covseg.verify import verify
from tests.archives import make_rows, make_run

KEPT = PublishOptions(max_failed=1.0, overlays=True)
SIDE = 200


def radiograph(number: int, side: int = SIDE) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (side, side), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def label_map(side: int) -> bytes:
    labels = np.zeros((side, side), np.uint8)
    labels[20:100, 20:100], labels[40:60, 40:60] = 1, 2
    return cv2.imencode(".png", labels)[1].tobytes()


def snapshot(run: Run, source: MemoryStore, options: PublishOptions = KEPT) -> Manifest:
    """Score what is new, the third image at twice the side an overlay may have, and publish."""
    plan = make_plan(run, source, shard_size=2)
    for shard in pending(run, plan):
        rows = [replace(row, grade="mild") for row in make_rows(source, shard)]
        masks = {row.input_id: label_map(2048 if row.key == "c.png" else SIDE) for row in rows}
        commit_shard(run, shard, rows, masks, "first")
    return publish(run, plan, options, source, "first")


@pytest.fixture
def source() -> MemoryStore:
    return MemoryStore({"a.png": radiograph(1), "b.png": radiograph(2), "c.png": radiograph(3, 2048)}, "source")


def led_to(run: Run) -> set[str]:
    return set(re.findall(r"overlays/[\w-]+\.jpg", run.dest.read("report.html").decode()))


def test_every_image_that_the_report_shows_has_an_overlay_that_says_what_it_may_be_used_for(
    source: MemoryStore,
) -> None:
    run = make_run()
    manifest = snapshot(run, source)
    names = {named.name for named in manifest.overlays}
    assert len(names) == 3 and led_to(run) == names
    shapes = set()
    for name in names:
        data = run.dest.read(name)
        assert RESEARCH_ONLY.encode() in data
        drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        shapes.add(drawn.shape)
        assert (np.abs(drawn.astype(int) - drawn[..., :1]).max(axis=2) > 60).any()  # contours are in colour
    assert shapes == {(SIDE, SIDE, 3), (1024, 1024, 3)}


def test_nothing_is_kept_unless_it_is_asked_for(source: MemoryStore) -> None:
    run = make_run()
    manifest = snapshot(run, source, PublishOptions(max_failed=1.0))
    assert not manifest.overlays and b"overlays" not in manifest.encode() and not led_to(run)
    assert not any(name.startswith("overlays/") for name in run.dest.objects)  # type: ignore[attr-defined]


def test_verify_reads_them_and_says_which_is_gone_or_another(source: MemoryStore) -> None:
    run = make_run()
    first, *_, last = sorted(named.name for named in snapshot(run, source).overlays)
    found = verify(run.dest)
    assert not found.breaches and found.orphans == 0
    run.dest.write("overlays/stray-0.jpg", b"x")
    assert verify(run.dest).orphans == 1
    run.dest.delete(first)
    run.dest.write(last, b"another")
    assert set(verify(run.dest).breaches) == {
        f"{first} is gone", f"{last} is not named by its content", f"{last} has other bytes than its record names",
    }  # fmt: skip


def test_a_later_snapshot_shares_what_did_not_change_and_gc_keeps_what_either_names(source: MemoryStore) -> None:
    run = make_run()
    before = snapshot(run, source).overlays
    source.write("d.png", radiograph(4))
    after = snapshot(run, source).overlays
    assert set(before) < set(after) and len(after) == 4
    run.dest.write("overlays/stray-0.jpg", b"x")
    assert gc(run, -1).orphans == 1
    assert {name for name in run.dest.objects if name.startswith("overlays/")} == {one.name for one in after}  # type: ignore[attr-defined]
    assert not verify(run.dest).breaches


def test_a_report_that_is_rebuilt_without_the_source_leads_to_the_same_overlays(source: MemoryStore) -> None:
    run = make_run()
    snapshot(run, source)
    report, plan = run.dest.read("report.html"), newest_plan(run)
    run.dest.delete("report.html")
    assert plan is not None
    rebuild(run, plan)
    assert run.dest.read("report.html") == report
