"""The published table: DuckDB sorts it and finds its duplicates, and its bytes follow from the rows alone."""

from __future__ import annotations

import errno
import io
import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from covseg import table
from covseg.archive import PublishOptions, rebuild, scratch, snapshot
from covseg.archive.parts import read_part
from covseg.archive.pictures import choose
from covseg.errors import NotPublished, Reason, Status, StorageFull
from covseg.records import Row, input_id
from covseg.report import Head, render
from covseg.report.page import NO_HEAD
from covseg.storage import MemoryStore
from tests.archives import KEY, images, make_row, make_run, score

OUTPUTS = ("severity.parquet", "severity.csv", "report.html")
ODD = (
    "é",
    "e\u0301",
    "Z",
    "a",
    "日本",
    "\ue000",
    "😀",
    "a\udcff",
    "a\\xff",
    "a\x01",
    "a\n",
    "=1+1",
    " ",
    "~",
    "b" * 300,
)
GROUP_ROWS = 500


@pytest.fixture(autouse=True)
def groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "GROUP_ROWS", GROUP_ROWS)


def made_row(number: int, rng: random.Random) -> Row:
    """Three versions of every odd key; a third of the rows never read, the others with few contents."""
    key, etag = f"{ODD[number % len(ODD)]}{number // 3 // len(ODD)}", f"{number}"
    found = rng.choice((None, f"{rng.randrange(700):064x}", f"{number:064x}"))
    row = Row(input_id(KEY, "made", key, etag), key, etag, found, number, Status.SCORED, infected_fraction=rng.random())
    if found is None:
        return replace(row, status=Status.QUARANTINED, reason=Reason.CORRUPT, infected_fraction=None)
    if number % 5:
        return row
    return replace(row, qc_flags=("lungs_not_found", "x" * (number % 7)), infected_fraction=None)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    rng = random.Random(0)
    return [made_row(number, rng) for number in range(3_300)]


def expected(rows: list[Row], *, hide_keys: bool, group: int = GROUP_ROWS, head: Head = NO_HEAD) -> dict[str, bytes]:
    """Make the files in memory, without Arrow's or DuckDB's sort."""
    severity = table.to_arrow(table.mark_duplicates(rows))
    if hide_keys:
        order = np.argsort(np.array(severity["input_id"].to_pylist()))
        severity = severity.take(pa.array(order)).drop_columns(["key"])
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, severity.schema, compression="zstd") as parquet:
        for first in range(0, len(severity), group):
            parquet.write_table(severity.slice(first, group).combine_chunks())
    return dict(zip(OUTPUTS, (sink.getvalue(), table.to_csv(severity), render(severity, [], head=head)), strict=True))


def finished(rows: pa.Table, *, hide_keys: bool, inserts: int = 7) -> dict[str, bytes]:
    """Let DuckDB make the files of rows that come in several tables."""
    with scratch.open_scratch() as work:
        work.db.from_arrow(table.SCHEMA.empty_table()).create("rows")
        step = -(-len(rows) // inserts)
        for first in range(0, len(rows), step):
            work.db.from_arrow(rows.slice(first, step)).insert_into("rows")
        severity = snapshot.finish(work, hide_keys=hide_keys)
        (work.folder / "report.html").write_bytes(render(severity, []))
        return {name: (work.folder / name).read_bytes() for name in OUTPUTS}


@pytest.mark.parametrize("hide_keys", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_files_are_a_function_of_the_rows(
    rows: list[Row], threads: int, seed: int, hide_keys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scratch.SETTINGS, "threads", threads)
    shuffled = table.to_arrow(rows).take(np.random.default_rng(seed).permutation(len(rows)))
    assert finished(shuffled, hide_keys=hide_keys, inserts=seed * 5) == expected(rows, hide_keys=hide_keys)


def test_rows_that_do_not_fit_in_memory_give_the_same_files(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """150,000 rows: DuckDB's batches end elsewhere with more threads, and it spills."""
    monkeypatch.setattr(snapshot, "GROUP_ROWS", 65_536)
    monkeypatch.setattr(table, "csv_lines", lambda _: b"")  # which takes most of the time
    few = table.to_arrow(rows[:3_000])
    names = [f"{number:032x}" for number in range(50 * len(few))]
    many = pa.concat_tables([few] * 50).set_column(0, "input_id", [names])
    order = np.random.default_rng(0).permutation(len(many))
    found = []
    for threads, limit, shuffled in ((1, "1GB", many), (2, "150MB", many.take(order))):
        monkeypatch.setitem(scratch.SETTINGS, "threads", threads)
        monkeypatch.setitem(scratch.SETTINGS, "memory_limit", limit)
        found.append(finished(shuffled, hide_keys=False))
    assert found[0] == found[1]
    groups = pq.ParquetFile(io.BytesIO(found[0]["severity.parquet"])).metadata
    assert [groups.row_group(place).num_rows for place in range(groups.num_row_groups)] == [65_536] * 2 + [18_928]


@pytest.fixture
def shuffled_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are read in another order in every snapshot."""
    rng = random.Random(0)

    def shuffled(*given: Any) -> list[Any]:
        shards = list(read_part(*given))
        return rng.sample(shards, len(shards))

    monkeypatch.setattr(snapshot, "read_part", shuffled)


@pytest.mark.usefixtures("shuffled_shards")
@pytest.mark.parametrize("hide_keys", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_no_cut_into_shards_plans_or_attempts_shows(
    threads: int, hide_keys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scratch.SETTINGS, "threads", threads)
    monkeypatch.setattr(snapshot, "GROUP_ROWS", 20)
    options = PublishOptions(1.0, hide_keys=hide_keys, pictures=0)
    first = {f"{key}{n}": b"same" if n else key.encode("utf-8", "replace") for key in ODD for n in range(3)}
    second = (
        {f"{key}0": key.encode("utf-8", "replace") + b"2" for key in ODD} | images(9) | {"a0": b"text", "Z0": b"same"}
    )
    seen, found = [], []
    for cuts in ((7, 50), (16, 9), (40, 5)):
        run, source = make_run(), MemoryStore(first, "source")
        entries = source.list_page().entries
        score(run, source, "one", shard_size=cuts[0], options=options)
        listed = [make_row(source, entry) for entry in entries]
        source.objects.update(second)
        listed += [make_row(source, entry) for entry in source.list_page().entries if entry not in entries]
        plan, _, _ = score(run, source, "two", shard_size=cuts[1], options=options)
        assert len(listed) == plan.images
        seen.append(listed)
        found.append({name: run.dest.read(name) for name in OUTPUTS})
    assert seen[0] == seen[1] == seen[2]
    today = Head.of("", "", datetime.now(UTC))
    uris = [replace(row, mask_uri=uri) for row, uri in zip(seen[0], _uris(run, seen[0]), strict=True)]
    assert found[0] == found[1] == found[2] == expected(uris, hide_keys=hide_keys, group=20, head=today)


def _uris(run: Any, rows: list[Row]) -> Iterator[str | None]:
    masks = {name[len("masks/") :].partition("-")[0]: name for name in run.dest.objects if name.startswith("masks/")}
    return (masks.get(row.input_id) for row in rows)


def test_every_group_of_pictures_gets_its_part_of_a_smaller_limit_and_what_room_is_left(rows: list[Row]) -> None:
    with scratch.open_scratch() as work:
        work.db.from_arrow(table.to_arrow(rows)).create("rows")
        chosen, none = choose(work.db, 50), choose(work.db, 0)
    flagged = sorted(row.input_id for row in rows if row.status is Status.SCORED and row.qc_flags)
    assert [image.input_id for image in chosen] == flagged[:50]  # these rows have no grade, no doubt and no filter
    assert none == []


def test_the_database_leaves_the_scratch_folder_and_the_network_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "secret.csv").write_text("a\n1\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with scratch.open_scratch() as work:
        for query in (
            f"FROM '{tmp_path}/secret.csv'",
            "INSTALL httpfs",
            "LOAD httpfs",
            f"COPY (SELECT 1) TO '{tmp_path}/x'",
        ):
            with pytest.raises(duckdb.PermissionException):
                work.db.execute(query)
        assert work.folder.parent == tmp_path / "tmp"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["secret.csv", "tmp"]


def test_a_full_disk_is_said(rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(scratch.SETTINGS, "memory_limit", "20MB")
    monkeypatch.setitem(scratch.SETTINGS, "max_temp_directory_size", "2MB")
    with pytest.raises(StorageFull, match=f"no space left in {tmp_path} for the table: .* set TMPDIR"):
        finished(pa.concat_tables([table.to_arrow(rows)] * 20), hide_keys=False)
    for error in (
        OSError(errno.ENOSPC, "no room"),
        duckdb.IOException('IO Error: Could not write file "x": No space left on device'),
    ):
        with pytest.raises(StorageFull), scratch.open_scratch():
            raise error
    for error in (OSError(errno.EIO, "broken"), duckdb.OutOfMemoryException("too little")):
        with pytest.raises(type(error)), scratch.open_scratch():
            raise error
    assert list(tmp_path.iterdir()) == []


def test_a_lost_commit_a_changed_table_and_foreign_rows_are_not_published() -> None:
    run, source = make_run(), MemoryStore(images(30), "source")
    plan, _, _ = score(run, source)
    whole = dict(run.dest.objects)  # type: ignore[attr-defined]
    first = next(iter(read_part(run.dest, plan.parts[0])))
    name = next(key for key in whole if key.startswith(f"tables/{first.id}"))
    run.dest.delete(f"commits/{first.id}.json")
    with pytest.raises(NotPublished, match=f"shard {first.id} has no commit, or its table is gone"):
        rebuild(run, plan)
    run.dest.objects = whole | {name: b"edited"}  # type: ignore[attr-defined]
    with pytest.raises(NotPublished, match=f"{name} is not what its commit names"):
        rebuild(run, plan)
    other = next(key for key in whole if key.startswith("commits/") and first.id not in key)
    run.dest.objects = whole | {f"commits/{first.id}.json": whole[other]}  # type: ignore[attr-defined]
    with pytest.raises(NotPublished, match=rf"shard {first.id} has \d rows that are not its 8 planned images"):
        rebuild(run, plan)
    run.dest.objects = whole  # type: ignore[attr-defined]
    lying = replace(plan, parts=(plan.parts[0].model_copy(update={"images": 31}),))
    with pytest.raises(NotPublished, match="30 rows for 31 planned images"):
        rebuild(run, lying)
