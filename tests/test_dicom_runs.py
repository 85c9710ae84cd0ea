"""DICOM objects of whole runs: written, accounted, verified, collected; and nobody's name where it may not be."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from covseg.archive import PublishOptions, Run, commit_shard, gc, key_id, make_plan, open_run, pending, publish
from covseg.archive import write_objects as write
from covseg.archive.records import Manifest
from covseg.dicom.identity import LINKED
from covseg.errors import CovsegError, UsageError
from covseg.outcome import Scored
from covseg.pipeline import Pipeline, score_batch
from covseg.predict import Outputs, predict
from covseg.records import Row
from covseg.settings.dicom import DICOM_KINDS, DicomSettings
from covseg.stages.encode import mask_png
from covseg.storage import MemoryStore, entries
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from covseg.verify import verify
from tests.dicom_images import TRACES, with_canaries

pytest.importorskip("highdicom", reason="the extra dicom is not installed")

KEY = b"a key for tests"
ALL, LINK = DicomSettings(kinds=DICOM_KINDS), DicomSettings(kinds=DICOM_KINDS, link_patient=True)
REFERENCES = {"StudyInstanceUID", "SeriesInstanceUID", "ReferencedSOPInstanceUID"}


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """Two DICOM images full of names, one PNG, and a text."""
    phantoms = [make_phantom(seed, 300, 300) for seed in range(3)]
    planted = {f"{n}.dcm": with_canaries(encode(phantoms[n], "monochrome2")) for n in range(2)}
    return {**planted, "2.png": encode(phantoms[2], "png"), "note.txt": b"no image"}


def with_objects(pipeline: Pipeline, dicom: DicomSettings) -> Pipeline:
    return Pipeline(pipeline.model, pipeline.config, key=KEY, dicom=dicom)


def scored_archive(images, pipeline, backend, dicom, kept: DicomSettings | None = None) -> tuple[Run, Manifest]:
    """Do what a decode worker does, without Ray."""
    source, dest, ours = MemoryStore(images, "source"), MemoryStore(name="dest"), with_objects(pipeline, dicom)
    run = open_run(dest, dest, pipeline.config, key_id(KEY), dicom=dicom if kept is None else kept)
    plan = make_plan(run, source, shard_size=3)
    for shard in pending(run, plan):
        results = score_batch(ours, backend, source, list(shard.entries))
        objects = [result.objects if isinstance(result, Scored) else {} for result in results]
        rows, files = zip(
            *(write(run, result.row, made) for result, made in zip(results, objects, strict=True)), strict=True
        )
        masks = {result.row.input_id: mask_png(result.masks) for result in results if isinstance(result, Scored)}
        commit_shard(run, shard, rows, masks, "first", sidecars=[file for some in files for file in some])
    return run, publish(run, plan, PublishOptions(max_failed=1), source, "first")


@pytest.fixture(scope="module")
def archive(images, pipeline, backend) -> tuple[dict[str, bytes], Manifest]:
    run, manifest = scored_archive(images, pipeline, backend, ALL)
    return dict(run.dest.objects), manifest


@pytest.fixture
def dest(archive) -> MemoryStore:
    return MemoryStore(archive[0], "dest")


def rows_of(objects) -> dict[str, dict[str, str]]:
    return {row["key"]: row for row in pq.read_table(io.BytesIO(objects["severity.parquet"])).to_pylist()}


def test_a_row_leads_to_its_objects_and_they_to_its_numbers(dest, archive):
    for key, row in rows_of(dest.objects).items():
        uris = [row[f"{kind}_uri"] for kind in DICOM_KINDS]
        if not key.endswith(".dcm"):
            assert uris == [None, None, None]
            continue
        for kind, uri in zip(DICOM_KINDS, uris, strict=True):
            assert re.fullmatch(rf"dicom/{kind}/{row['input_id']}-[0-9a-f]{{16}}\.dcm", uri)
            assert dcmread(io.BytesIO(dest.objects[uri])).Modality == {"seg": "SEG", "sr": "SR", "sc": "OT"}[kind]
    assert archive[1].dicom == {"seg": 2, "sr": 2, "sc": 2, "without": 1}
    assert json.loads(dest.objects["run.json"])["dicom"] == {"kinds": ["seg", "sr", "sc"], "link_patient": False}


def test_verify_reads_the_objects_and_gc_keeps_them(dest, images, pipeline, backend):
    verdict = verify(dest)
    assert verdict.breaches == []
    assert verdict.orphans == 0
    run = open_run(dest, dest, pipeline.config, key_id(KEY), dicom=ALL)
    dest.write("dicom/seg/left-behind-0123456789abcdef.dcm", b"of a killed attempt")
    assert verify(dest).orphans == 1
    assert gc(run, older_than_s=-1).orphans == 1
    assert verify(dest).breaches == []
    assert sum(key.startswith("dicom/") for key in dest.objects) == 6


def _lose(objects: dict[str, bytes], name: str) -> None:
    del objects[name]


def _flip(objects: dict[str, bytes], name: str) -> None:
    objects[name] = objects[name][:-1] + bytes([objects[name][-1] ^ 1])


def _count_less(objects: dict[str, bytes], _name: str) -> None:
    manifest = json.loads(objects["manifests/1.json"])
    manifest["dicom"]["sr"] -= 1
    objects["manifests/1.json"] = json.dumps(manifest).encode()


def _ask_for_less(objects: dict[str, bytes], _name: str) -> None:
    record = json.loads(objects["run.json"])
    record["dicom"]["kinds"] = ["sr"]
    objects["run.json"] = json.dumps(record).encode()


@pytest.mark.parametrize("tamper", [_lose, _flip, _count_less, _ask_for_less])
@pytest.mark.parametrize("kind", DICOM_KINDS)
def test_what_happens_to_an_object_is_a_breach(dest, tamper, kind):
    name = next(name for name in dest.objects if name.startswith(f"dicom/{kind}/"))
    tamper(dest.objects, name)
    assert verify(dest).breaches


def test_an_object_of_no_row_and_a_row_of_no_object_are_not_committed(images, pipeline, backend):
    source, dest = MemoryStore(images, "source"), MemoryStore(name="dest")
    run = open_run(dest, dest, pipeline.config, key_id(KEY), dicom=ALL)
    (shard,) = pending(run, make_plan(run, source))
    results = score_batch(with_objects(pipeline, ALL), backend, source, list(shard.entries))
    masks = {result.row.input_id: mask_png(result.masks) for result in results if isinstance(result, Scored)}
    rows: list[Row] = [result.row for result in results]
    row, files = write(run, rows[0], results[0].objects)
    for some_rows, some_files in ((rows, files), ([row, *rows[1:]], [])):
        with pytest.raises(CovsegError, match="DICOM objects"):
            commit_shard(run, shard, some_rows, masks, "first", sidecars=some_files)


def test_a_destination_keeps_one_choice_of_objects(dest, pipeline):
    for other in (DicomSettings(), LINK, DicomSettings(kinds=("sr",))):
        with pytest.raises(UsageError, match="dicom"):
            open_run(dest, dest, pipeline.config, key_id(KEY), dicom=other)


def test_runs_without_objects_write_the_records_they_wrote(images, pipeline, backend):
    run, _ = scored_archive(images, pipeline, backend, DicomSettings())
    assert verify(run.dest).breaches == []
    assert "dicom" not in json.loads(run.dest.objects["run.json"])
    assert "dicom" not in json.loads(run.dest.objects["manifests/1.json"])
    assert not any(name.startswith("dicom/") for name in run.dest.objects)
    assert not {"seg_uri", "sr_uri", "sc_uri"} & set(
        pq.read_schema(io.BytesIO(run.dest.objects["severity.parquet"])).names
    )


def test_a_rerun_gives_the_same_bytes(images, pipeline, backend, archive):
    run, _ = scored_archive(images, pipeline, backend, ALL)
    same = {name for name in archive[0] if not name.startswith("manifests/")}
    assert {name: run.dest.objects[name] for name in same} == {name: archive[0][name] for name in same}


# --- the canary


def readable(name: str, data: bytes) -> bytes:
    """Return what a person could read of a file: a Parquet file's cells, anything else as it is."""
    if not name.endswith(".parquet"):
        return name.encode() + data
    sheet = pq.read_table(io.BytesIO(data))
    return name.encode() + repr([sheet.to_pydict(), sheet.schema.metadata]).encode()


def traces(objects: dict[str, bytes]) -> dict[str, list[bytes]]:
    found = {name: [trace for trace in TRACES if trace in readable(name, data)] for name, data in objects.items()}
    return {name: some for name, some in found.items() if some}


def elements(image: Dataset) -> Iterator[tuple[str, str]]:
    for element in image.iterall():
        if element.VR != "SQ":
            yield element.keyword, str(element.value)


def test_the_canaries_are_there(images):
    data = images["0.dcm"]
    assert all(trace in data for trace in TRACES)
    assert sum(value.startswith("CANARY") for _, value in elements(dcmread(io.BytesIO(data)))) > 1000


@pytest.mark.parametrize("settings", [ALL, LINK], ids=["pseudonym", "linked"])
@pytest.mark.parametrize("kind", ["predict", "score"])
def test_nothing_of_the_header_is_in_any_output_but_the_linked_objects(
    images, pipeline, backend, settings, kind, caplog, capfd
):
    if kind == "predict":
        source, dest = MemoryStore(images, "source"), MemoryStore(name="dest")
        outputs = Outputs(overlay=True, probability=True)
        rows = predict(with_objects(pipeline, settings), backend, source, entries(source), dest, outputs)
        assert sum(row.status == "scored" for row in rows) == 3
        objects = dest.objects
    else:
        run, manifest = scored_archive(images, pipeline, backend, settings)
        assert manifest.dicom["sr"] == 2
        objects = run.dest.objects
    logged = "".join(capfd.readouterr()) + caplog.text
    assert traces({"log": logged.encode()}) == {}
    made = {name: data for name, data in objects.items() if name.startswith("dicom/")}
    assert len(made) == 6
    hits = traces(objects)
    assert set(hits) == (set(made) if settings is LINK else set())
    for name in hits:
        found = {
            keyword for keyword, value in elements(dcmread(io.BytesIO(made[name]))) if traces({"": value.encode()})
        }
        assert (
            {"PatientName", "PatientID", "StudyInstanceUID"}
            <= found
            <= {*LINKED, *REFERENCES, "ContentDate", "ContentTime"}
        )
