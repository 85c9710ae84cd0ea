"""The records of a destination: the bytes that older runs wrote, and what is refused when one is read."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from covseg import table
from covseg.archive import PublishOptions, gc, load_run, pictures
from covseg.archive.listing import ListingNote
from covseg.archive.records import CommitRecord, Manifest, NamedObject, PlanRecord, Record, RunRecord
from covseg.errors import UsageError
from covseg.records import RESEARCH_ONLY
from covseg.report import Picture
from covseg.storage import MemoryStore
from tests.archives import images, make_run, score

# As covseg wrote them before its records had types; they lie in destinations that are still in use.
RUN = b"""\
{
 "config": {
  "backend": "none",
  "batch": 1,
  "card": {
   "thresholds": {
    "presence": 0.25
   }
  },
  "code_version": "1",
  "model_id": "made",
  "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000000"
 },
 "config_sha256": "5616b742a94809b8f4b25c6ab39aa31af237ebfccc8098c92201b97eb35eaf57",
 "dest": null,
 "format": 1,
 "key_id": "b76fa608981975ec",
 "masks": "png",
 "model_id": "made",
 "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000000"
}
"""
PLAN = b"""\
{
 "before": null,
 "exclude": "",
 "format": 1,
 "include": "*",
 "limit": null,
 "listed": 6,
 "number": 1,
 "parts": [
  {
   "bytes": 34,
   "films": 6,
   "generation": 1,
   "name": "plans/1/part-c13448e725e61920.parquet",
   "sha256": "c13448e725e6192018ab607e1737ec69f529da82ef5169cf3b9ef5d7d1c13071",
   "shards": 1
  }
 ],
 "shard_size": 8,
 "source": "memory://source"
}
"""
COMMIT = (
    b'{"attempt": "first", "films": 6, "format": 1, "objects": [{"name": "masks/3c84e6ba0eb38ee630711a10eda0fe6'
    b'c-be0a5f4f2794f4ea.png", "sha256": "be0a5f4f2794f4eabf5bbb165128fde06c7e2c40757f030e9488e141a4fecfff", "s'
    b'ize": 72}], "reasons": {"not_an_image": 1}, "shard": "eaccdf30c488802169450d0ea1c0e7f8", "statuses": {"ou'
    b't_of_scope": 1, "scored": 5}, "table": {"name": "tables/eaccdf30c488802169450d0ea1c0e7f8-704469fdc6b0d77e'
    b'.parquet", "sha256": "704469fdc6b0d77ea31aa941bccf5d28358b8ca3b037a4ead9fd871bab37ebe3", "size": 15423}}\n'
)
MANIFEST = b"""\
{
 "accepted": true,
 "commits": {
  "eaccdf30c488802169450d0ea1c0e7f8": "38e9e2a1889a0aa5757d1a482262f3cac2841ceb68a15398a2c2011426209657"
 },
 "failed_share": 0.0,
 "films": 6,
 "format": 1,
 "hide_keys": false,
 "max_failed": 1.0,
 "number": 1,
 "outputs": {
  "report.html": {
   "sha256": "7e7432886449277ed4a04afa643bb24cf768cb60d4810e8d0f387d5c5cfcc6ce",
   "size": 66506
  },
  "severity.csv": {
   "sha256": "54072726b45557704976bef4c4d1679c7ea78f04e90ff4051e43b9169fc58220",
   "size": 3102
  },
  "severity.parquet": {
   "sha256": "704469fdc6b0d77ea31aa941bccf5d28358b8ca3b037a4ead9fd871bab37ebe3",
   "size": 15423
  }
 },
 "pictures": {
  "name": "pictures/1-4f53cda18c2baa0c.json",
  "sha256": "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
  "size": 2
 },
 "plan": {
  "name": "plans/1/plan.json",
  "sha256": "7cef4341f522f4a162026e7bc08f27bd2acc9bf28c09a1e88efb6a7cbc668a18"
 },
 "published_at": "2026-11-25T18:57:57+00:00",
 "published_by": "first",
 "reasons": {
  "not_an_image": 1
 },
 "seconds": {
  "publish": 0.357,
  "score": 1.5
 },
 "statuses": {
  "out_of_scope": 1,
  "scored": 5
 },
 "versions": {
  "covseg": "0.1.0",
  "pyarrow": "26.0.1",
  "python": "3.11.7"
 }
}
"""
NOTE = (
    b'{"asked": "2b0f3e077b4806dda22faa11485e322a74d7193184d48585e9c882e9bff2aafe", "start": {"after": null, '
    b'"done": false, "listed": 0, "matched": 0}, "end": {"after": "a\\udcff", "done": true, "listed": 6, "matched": 6}}'
)
PICTURES = (
    b'[{"input_id": "a", "width": 2, "height": 3, "film": "data:1", "probability": "", "lung": "M0 0", '
    b'"infection": ""}]'
)
THRESHOLDS = b"""\
"card": {
   "thresholds": {
    "presence": 0.25
   }
  }"""
WRITTEN: list[tuple[type[Record], bytes]] = [
    (RunRecord, RUN),
    (PlanRecord, PLAN),
    (CommitRecord, COMMIT),
    (Manifest, MANIFEST),
    (ListingNote, NOTE),
]


@pytest.mark.parametrize(("kind", "data"), WRITTEN)
def test_a_record_that_was_written_before_comes_out_in_the_same_bytes(kind: type[Record], data: bytes) -> None:
    assert kind.decode(data, "it").encode() == data


def test_the_pictures_that_were_written_before_come_out_in_the_same_bytes() -> None:
    run = make_run()
    named = pictures.save(run, 1, [Picture("a", 2, 3, "data:1", "", "M0 0", "")])
    assert run.dest.read(named.name) == PICTURES
    assert pictures.load(run, named) == [Picture("a", 2, 3, "data:1", "", "M0 0", "")]


def test_a_run_writes_the_very_records_that_it_wrote_before() -> None:
    run, source = make_run(), MemoryStore(images(5) | {"t": b"text"}, "source")
    score(run, source)
    assert run.commits.read("run.json") == RUN.replace(THRESHOLDS, b'"card": {}')
    assert run.commits.read("plans/1/plan.json") == PLAN
    record = CommitRecord.decode(COMMIT, "it")
    written = CommitRecord.decode(run.commits.read(f"commits/{record.shard}.json"), "it").table
    before = pa.schema([column for column in table.SCHEMA if column.name not in table.YOUNGER], table.SCHEMA.metadata)
    sheet = pq.read_table(io.BytesIO(run.dest.read(written.name))).select(before.names).cast(before)
    assert NamedObject.of(f"tables/{record.shard}", table.to_parquet(sheet), ".parquet") == record.table


@pytest.mark.parametrize(
    ("hide_keys", "digest"),
    [
        (False, "f59165a0df46a9194f0920da39196830ea3a6287f83f1d7953564e75046b5e05"),
        (True, "80397380431d7448c4c298546d59e2c4fcbcdfea83158b17688b70ad4049fdb2"),
    ],
)
def test_a_table_has_the_bytes_that_it_had_before_but_for_younger_columns(hide_keys: bool, digest: str) -> None:
    odd = {"zz.png": b"film 3", "text.txt": b"text", "é\n": b"film 3", "empty": b""}
    run, source = make_run(), MemoryStore(images(30) | odd, "source")
    score(run, source, "one", shard_size=7)
    source.objects.update(images(9, "more") | {"film-00004.png": b"film 5"})
    score(run, source, "two", shard_size=5, options=PublishOptions(1.0, hide_keys=hide_keys, pictures=0))
    sheet = pq.read_table(io.BytesIO(run.dest.read("severity.parquet")))
    assert table.to_csv(sheet) == run.dest.read("severity.csv")
    lines = table.to_csv(sheet.drop_columns(list(table.YOUNGER))).replace(b",intended_use\n", b"\n", 1)
    without_use = lines.replace(f',"{RESEARCH_ONLY}"\n'.encode(), b"\n")
    assert hashlib.sha256(without_use).hexdigest() == digest


def changed(data: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(data) | fields).encode()


@pytest.mark.parametrize(("kind", "data"), WRITTEN)
def test_an_unknown_field_is_named_with_the_way_out(kind: type[Record], data: bytes) -> None:
    with pytest.raises(UsageError, match=r"^x has an unknown field 'new', covseg \S+ reads format 1: take the covseg"):
        kind.decode(changed(data, new=1), "x")


@pytest.mark.parametrize(("kind", "data"), WRITTEN[:4])
def test_a_later_format_is_named_with_the_way_out(kind: type[Record], data: bytes) -> None:
    with pytest.raises(UsageError, match=r"^x has format 2, covseg \S+ reads format 1: take the covseg that wrote it"):
        kind.decode(changed(data, format=2, new=1), "x")


def test_a_damaged_record_is_named() -> None:
    with pytest.raises(UsageError, match=r"^x is not whole JSON: run covseg verify"):
        PlanRecord.decode(PLAN[:-9], "x")
    with pytest.raises(UsageError, match=r"^x has a wrong parts\.0\.shards \(.*\): run covseg verify"):
        PlanRecord.decode(PLAN.replace(b'"shards": 1', b'"shards": "many"'), "x")
    with pytest.raises(UsageError, match=r"^x has a wrong source \(Field required\)"):
        PlanRecord.decode(b"{}", "x")


def test_the_threshold_of_a_run_is_read_from_its_record() -> None:
    record = RunRecord.decode(RUN, "it")
    assert record.presence_threshold == 0.25
    assert record.model_copy(update={"config": {"card": {}}}).presence_threshold is None
    run = make_run()
    run.commits.objects["run.json"] = RUN  # type: ignore[attr-defined]
    assert load_run(run.dest, run.commits).presence_threshold == 0.25


@pytest.mark.parametrize("prefix", ["run.json", "plans/1/plan.json", "commits/", "manifests/1.json"])
def test_a_destination_of_a_later_covseg_is_left_alone(prefix: str) -> None:
    run, source = make_run(), MemoryStore(images(5), "source")
    score(run, source)
    name = next(key for key in run.dest.objects if key.startswith(prefix))  # type: ignore[attr-defined]
    run.dest.objects[name] = changed(run.dest.read(name), format=2)  # type: ignore[attr-defined]
    before = dict(run.dest.objects)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=f"{name} in memory://dest has format 2"):
        gc(load_run(run.dest, run.commits), -1)
    assert run.dest.objects == before  # type: ignore[attr-defined]
