"""The checker finds what was tampered with, and shares no code with what it checks."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from covseg import table
from covseg import verify as package
from covseg.archive import Run, make_plan, pending, publish
from covseg.storage import LocalStore, MemoryStore
from covseg.verify import verify
from tests.archives import LENIENT, commit, images, make_run, score

Objects = dict[str, bytes]


@pytest.fixture
def scored() -> tuple[Run, Objects]:
    """A destination of two snapshots."""
    source = MemoryStore(images(30) | {"t": b"text", "again.png": b"film 3"}, "source")
    run = make_run(MemoryStore(name="dest"))
    score(run, source)
    source.objects |= images(5, "late")
    score(run, source)
    return run, run.dest.objects  # type: ignore[attr-defined]


def one(objects: Objects, prefix: str) -> str:
    return min(name for name in objects if name.startswith(prefix))


def test_an_untouched_destination_holds(scored: tuple[Run, Objects]) -> None:
    verdict = verify(scored[0].dest)
    assert (verdict.breaches, verdict.images, verdict.orphans, verdict.snapshot) == ([], 37, 0, 2)


@pytest.mark.parametrize("mode", ["none", "packed"])
def test_other_mask_modes_hold(mode: str) -> None:
    run = make_run(masks=mode)  # type: ignore[arg-type]
    score(run, MemoryStore(images(20) | {"t": b"text"}, "source"))
    assert verify(run.dest).breaches == []


def lose_a_mask(objects: Objects) -> None:
    del objects[one(objects, "masks/")]


def flip_a_byte(objects: Objects) -> None:
    name = one(objects, "masks/")
    objects[name] = bytes([objects[name][0] ^ 1]) + objects[name][1:]


def rewrite_rows(objects: Objects, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a shard's table the thorough way: new name, new digest in commit and manifest."""
    name = one(objects, "tables/")
    shard = name.removeprefix("tables/").partition("-")[0]
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(objects.pop(name)))), sink)
    digest = hashlib.sha256(sink.getvalue()).hexdigest()
    commit_name = f"commits/{shard}.json"
    record = json.loads(objects[commit_name])
    record["table"] = {"name": f"tables/{shard}-{digest[:16]}.parquet", "sha256": digest, "size": len(sink.getvalue())}
    objects[record["table"]["name"]] = sink.getvalue()
    objects[commit_name] = json.dumps(record).encode()
    for manifest_name in [key for key in objects if key.startswith("manifests/")]:
        manifest = json.loads(objects[manifest_name])
        if shard in manifest["commits"]:
            manifest["commits"][shard] = hashlib.sha256(objects[commit_name]).hexdigest()
        objects[manifest_name] = json.dumps(manifest).encode()


def double_a_row(objects: Objects) -> None:
    rewrite_rows(objects, lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))


def drop_a_row(objects: Objects) -> None:
    rewrite_rows(objects, lambda rows: rows.slice(1))


def add_a_foreign_commit(objects: Objects) -> None:
    objects["commits/" + "f" * 32 + ".json"] = objects[one(objects, "commits/")]


def truncate_the_manifest(objects: Objects) -> None:
    objects["manifests/2.json"] = objects["manifests/2.json"][:-100]


def edit_the_table(objects: Objects) -> None:
    rows = pq.read_table(io.BytesIO(objects["severity.parquet"]))
    place = rows.schema.get_field_index("infected_fraction")
    sink = io.BytesIO()
    pq.write_table(rows.set_column(place, rows.schema.field(place), pa.array([0.0] * len(rows))), sink)
    objects["severity.parquet"] = sink.getvalue()


def edit_the_table_and_the_manifest(objects: Objects) -> None:
    edit_the_table(objects)
    manifest = json.loads(objects["manifests/2.json"])
    manifest["outputs"]["severity.parquet"]["sha256"] = hashlib.sha256(objects["severity.parquet"]).hexdigest()
    objects["manifests/2.json"] = json.dumps(manifest).encode()


def plan_one_more(objects: Objects) -> None:
    name = one(objects, "plans/2/part-")
    rows = pq.read_table(io.BytesIO(objects[name]))
    extra = rows.slice(0, 1).set_column(1, rows.schema.field(1), pa.array([b"extra.png"]))
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables([rows, extra]), sink)
    objects[name] = sink.getvalue()


def plan_one_more_thoroughly(objects: Objects) -> None:
    """Add a row to a part, and put the new digests into plan and manifest."""
    name = one(objects, "plans/2/part-")
    plan_one_more(objects)
    data = objects.pop(name)
    digest = hashlib.sha256(data).hexdigest()
    plan = json.loads(objects["plans/2/plan.json"])
    part = next(part for part in plan["parts"] if part["name"] == name)
    part |= {"name": f"plans/2/part-{digest[:16]}.parquet", "sha256": digest, "films": part["films"] + 1}
    objects[part["name"]] = data
    objects["plans/2/plan.json"] = json.dumps(plan).encode()
    manifest = json.loads(objects["manifests/2.json"])
    manifest["plan"]["sha256"] = hashlib.sha256(objects["plans/2/plan.json"]).hexdigest()
    manifest["films"] += 1
    objects["manifests/2.json"] = json.dumps(manifest).encode()


def lose_a_commit(objects: Objects) -> None:
    del objects[one(objects, "commits/")]


def lose_the_report(objects: Objects) -> None:
    del objects["report.html"]


def publish_nothing(objects: Objects) -> None:
    for name in ("manifests/1.json", "manifests/2.json"):
        del objects[name]


def empty_a_record(objects: Objects) -> None:
    objects[one(objects, "commits/")] = b"{}"


def change_the_manifest(objects: Objects, **changed: object) -> None:
    manifest = json.loads(objects["manifests/2.json"])
    objects["manifests/2.json"] = json.dumps(manifest | changed).encode()


def name_no_outputs(objects: Objects) -> None:
    change_the_manifest(objects, outputs={})
    for name in ("severity.parquet", "severity.csv", "report.html"):
        objects[name] = b"garbage"


def edit_the_csv_and_the_manifest(objects: Objects) -> None:
    objects["severity.csv"] = objects["severity.csv"].replace(b",scored,", b",missing,", 1)
    outputs = json.loads(objects["manifests/2.json"])["outputs"]
    outputs["severity.csv"]["sha256"] = hashlib.sha256(objects["severity.csv"]).hexdigest()
    change_the_manifest(objects, outputs=outputs)


def accept_against_the_limits(objects: Objects) -> None:
    change_the_manifest(objects, max_failed=0.0, accepted=not json.loads(objects["manifests/2.json"])["accepted"])


def set_cells(objects: Objects, column: str, change: Callable[[list[str | None]], list[str | None]]) -> None:
    def changed(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index(column)
        return rows.set_column(place, rows.schema.field(place), pa.array(change(rows[column].to_pylist()), pa.string()))

    rewrite_rows(objects, changed)


def swap_two_masks(objects: Objects) -> None:
    set_cells(objects, "mask_uri", lambda uris: [uris[1], uris[0], *uris[2:]])


def take_another_config(objects: Objects) -> None:
    set_cells(objects, "config_sha256", lambda digests: ["0" * 64, *digests[1:]])


def say_another_mask_mode(objects: Objects) -> None:
    objects["run.json"] = objects["run.json"].replace(b'"masks": "png"', b'"masks": "none"')


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lose_a_mask, "is gone"), (flip_a_byte, "has other bytes"), (double_a_row, "are not its"),
        (drop_a_row, "are not its"), (add_a_foreign_commit, "belongs to no plan"),
        (truncate_the_manifest, "not whole JSON"), (edit_the_table, "not the one of the manifest"),
        (edit_the_table_and_the_manifest, "other rows than the shards"), (plan_one_more, "has other bytes"),
        (plan_one_more_thoroughly, "not named by its members"), (lose_a_commit, "is gone"),
        (lose_the_report, "covseg publish rebuilds it"), (publish_nothing, "nothing is published"),
        (empty_a_record, "cannot be read"), (name_no_outputs, "names 0 outputs"),
        (edit_the_csv_and_the_manifest, "other rows or cells"), (swap_two_masks, "mask not committed"),
        (take_another_config, "another model or config"), (say_another_mask_mode, "mask not committed"),
        (accept_against_the_limits, "against its own limits"),
    ],
)  # fmt: skip
def test_a_tampered_destination_is_found(
    scored: tuple[Run, Objects], tamper: Callable[[Objects], None], said: str
) -> None:
    tamper(scored[1])
    assert any(said in breach for breach in verify(scored[0].dest).breaches)


def test_a_manifest_cannot_make_the_checker_write_outside_its_scratch_folder(
    scored: tuple[Run, Objects], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scored[1]["../x"] = b"from the outside"
    digest = hashlib.sha256(b"from the outside").hexdigest()
    change_the_manifest(scored[1], outputs={"../x": {"sha256": digest, "size": 16}})
    assert any("names 1 outputs" in breach for breach in verify(scored[0].dest).breaches)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_names_what_lies_outside_a_folder_is_a_breach(tmp_path: Path) -> None:
    run = make_run(LocalStore(tmp_path / "dest"))
    score(run, MemoryStore(images(3), "source"))
    manifest = json.loads(run.dest.read("manifests/1.json"))
    manifest["pictures"]["name"] = "../x"
    run.dest.write("manifests/1.json", json.dumps(manifest).encode())
    assert any("'../x' cannot be a path" in breach for breach in verify(run.dest).breaches)


def test_a_packed_mask_of_another_image_is_found() -> None:
    run = make_run(masks="packed")
    score(run, MemoryStore(images(8), "source"))
    set_cells(run.dest.objects, "mask_uri", lambda uris: uris[::-1])  # type: ignore[attr-defined]
    assert any("mask not committed" in breach for breach in verify(run.dest).breaches)


def test_keys_that_need_quotes_or_a_disarming_hold_and_the_table_keeps_its_lines() -> None:
    odd = [
        "a\rb",
        "\rc",
        "x\r=HYPERLINK(1)",
        "=HYPERLINK(1)",
        "a\nb",
        "\t",
        " ",
        "'",
        '"',
        'a","b',
        "\\",
        "a\u2028b",
        "a;b",
    ]
    run = make_run()
    score(run, MemoryStore({key: f"odd {key}".encode() for key in odd}, "source"))
    assert verify(run.dest).breaches == []
    assert b"\r" not in run.dest.read("severity.csv")
    with io.StringIO(run.dest.read("severity.csv").decode(), newline="") as text:
        assert len(list(csv.reader(text))) == 1 + len(odd)


def test_a_table_of_an_older_covseg_holds_and_one_with_other_words_for_its_use_does_not() -> None:
    run = make_run()
    score(run, MemoryStore({f"{place}.png": f"{place}".encode() for place in range(5)}, "source"))
    text = run.dest.read("severity.csv").decode()
    assert text.count("Research use only, not for diagnosis.") == 5
    older = text.replace(",intended_use", "").replace(',"Research use only, not for diagnosis."', "").splitlines()
    for lines, breaches in ((older, 0), (text.replace("Research use only", "Use", 1).splitlines(), 1)):
        data = "".join(f"{line}\n" for line in lines).encode()
        run.dest.objects["severity.csv"] = data  # type: ignore[attr-defined]
        manifest = json.loads(run.commits.read("manifests/1.json"))
        manifest["outputs"]["severity.csv"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        run.commits.objects["manifests/1.json"] = json.dumps(manifest).encode()  # type: ignore[attr-defined]
        assert len(verify(run.dest).breaches) == breaches


def test_orphans_are_counted_and_are_no_breach(scored: tuple[Run, Objects]) -> None:
    scored[1]["masks/" + "0" * 32 + "-" + "0" * 16 + ".png"] = b"left by a killed worker"
    verdict = verify(scored[0].dest)
    assert (verdict.breaches, verdict.orphans) == ([], 1)


def test_a_run_under_way_behind_a_snapshot_is_no_breach(scored: tuple[Run, Objects]) -> None:
    run, _ = scored
    source = MemoryStore(images(30) | images(9, "more"), "source")
    plan = make_plan(run, source, shard_size=4)
    commit(run, source, next(iter(pending(run, plan))))
    assert verify(run.dest).breaches == []


def test_hidden_keys_hold() -> None:
    from covseg.archive import PublishOptions

    run = make_run()
    score(run, MemoryStore(images(20), "source"), options=PublishOptions(1.0, hide_keys=True))
    assert verify(run.dest).breaches == []


def test_the_checker_shares_no_code_with_the_writer() -> None:
    folder = Path(package.__file__).parent
    imported: set[str] = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
    ours = {name for name in imported if name.startswith("covseg")}
    verifiers = {f"covseg.verify.{path.stem}" for path in folder.glob("*.py")}
    assert ours <= {"covseg.errors", "covseg.storage", *verifiers}


def test_shards_that_are_older_than_a_column_are_published_with_nulls_in_it_and_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, source = make_run(), MemoryStore(images(12), "source")
    plan = make_plan(run, source, shard_size=4)
    first, *others = pending(run, plan)
    older = pa.schema([column for column in table.SCHEMA if column.name not in table.YOUNGER], table.SCHEMA.metadata)
    with monkeypatch.context() as patch:
        patch.setattr(table, "SCHEMA", older)
        commit(run, source, first)
    for shard in others:
        commit(run, source, shard)
    publish(run, plan, LENIENT, source, "first")
    published = pq.read_table(io.BytesIO(run.dest.read("severity.parquet")))
    assert published.schema.names == table.SCHEMA.names
    assert published["doubt"].null_count == 12
    assert verify(run.dest).breaches == []
