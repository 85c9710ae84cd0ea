"""What of a header goes into the table when a run asks for it, and what a question to the table may see."""

from __future__ import annotations

import io
import json
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from pydicom import dcmread

from covseg.archive import (
    PublishOptions,
    breakdown,
    commit_shard,
    key_id,
    make_plan,
    open_run,
    pending,
    publish,
    query,
)
from covseg.dicom import read_metadata, read_source
from covseg.errors import NotPublished, UsageError
from covseg.outcome import Scored
from covseg.pipeline import Pipeline, score_batch
from covseg.settings.dicom import COLUMNS, DicomSettings
from covseg.settings.score import ScoreSettings
from covseg.stages.encode import mask_png
from covseg.storage import MemoryStore
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.dicom import encode_dicom
from covseg.verify import verify
from tests.dicom_images import TWELVE_BIT, dataset, written

KEY = b"a key for tests"
EVERY = DicomSettings.parse("", link_patient=False, columns=",".join(COLUMNS))
FIRST = date(2024, 2, 28)


def image(seed: int, **changes: object) -> bytes:
    one = dcmread(io.BytesIO(encode_dicom(make_phantom(seed, 200, 200))))
    for name, value in changes.items():
        setattr(one, name, value)
    file = io.BytesIO()
    one.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def published(pipeline: Pipeline, backend):
    """Eight images of two patients: six women, two men; of the second patient one has no date."""
    images = {}
    for seed in range(8):
        day = (FIRST + timedelta(days=10 * seed)).strftime("%Y%m%d")
        who = {"PatientID": f"CANARY-{seed // 4}", "PatientSex": "M" if seed > 5 else "F", "PatientAge": "061Y"}
        images[f"{seed}.dcm"] = image(
            seed, **who, StudyDate="" if seed == 7 else day, StudyInstanceUID=f"1.2.77.{seed}"
        )
    source, dest = MemoryStore(images, "source"), MemoryStore(name="dest")
    ours = Pipeline(pipeline.model, pipeline.config, key=KEY, dicom=EVERY)
    run = open_run(dest, dest, pipeline.config, key_id(KEY), dicom=EVERY)
    plan = make_plan(run, source, shard_size=5)
    for shard in pending(run, plan):
        results = score_batch(ours, backend, source, list(shard.entries))
        masks = {result.row.input_id: mask_png(result.masks) for result in results if isinstance(result, Scored)}
        commit_shard(run, shard, [result.row for result in results], masks, "first")
    publish(run, plan, PublishOptions(max_failed=1), source, "first")
    return run


def test_the_table_has_the_columns_that_were_asked_for_and_pseudonyms(published):
    rows = {row["key"]: row for row in pq.read_table(io.BytesIO(published.dest.read("severity.parquet"))).to_pylist()}
    assert all(row["status"] == "scored" for row in rows.values())
    assert [rows[f"{n}.dcm"]["days_since_first"] for n in range(8)] == [0, 10, 20, 30, 0, 10, 20, None]
    assert rows["0.dcm"]["study_date"] == "2024-02-28"
    assert {row["patient_age_years"] for row in rows.values()} == {61.0}
    assert {row["manufacturer"] for row in rows.values()} == {"covseg phantom"}
    assert {row["modality"] for row in rows.values()} == {"DX"}
    assert len({row["patient_pseudonym"] for row in rows.values()}) == 2
    assert len({row["study_pseudonym"] for row in rows.values()}) == 8
    objects = published.dest.objects
    assert not any(b"CANARY" in data or b"1.2.77." in data for name, data in objects.items() if "parquet" not in name)
    assert verify(published.dest).breaches == []
    assert json.loads(objects["run.json"])["dicom"]["columns"] == list(COLUMNS)


def test_pseudonyms_are_those_of_the_objects_and_of_the_key(published):
    data = image(0, PatientID="CANARY-0", StudyInstanceUID="1.2.77.0", StudyDate="20240228")
    cells = read_metadata(data, KEY, EVERY)
    source = read_source(data, KEY, DicomSettings(kinds=("sr",)))
    assert (cells["patient_pseudonym"], cells["study_pseudonym"]) == (source.patient_id, source.study_uid)
    other = read_metadata(data, b"another key for tests", EVERY)
    hashed = ("patient_pseudonym", "study_pseudonym", "days_since_first")
    assert all(cells[name] != other[name] for name in hashed)
    assert cells["days_since_first"] != FIRST.toordinal()


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"StudyDate": "20240230"}, "study_date"),
        ({"StudyDate": None}, "days_since_first"),
        ({"PatientID": None}, "patient_pseudonym"),
        ({"PatientID": None}, "days_since_first"),
        ({"StudyInstanceUID": None}, "study_pseudonym"),
        ({"PatientSex": "DOE"}, "patient_sex"),
        ({"Manufacturer": "DOE\x07"}, "manufacturer"),
    ],
)
def test_a_value_that_is_none_of_its_element_s_gives_an_empty_cell(changes, column):
    assert read_metadata(written(dataset(TWELVE_BIT, 12, **changes)), KEY, EVERY)[column] is None


def test_only_what_is_asked_for_is_read_and_other_formats_have_no_cells():
    few = DicomSettings.parse("", link_patient=False, columns="PatientSex")
    assert set(read_metadata(written(dataset(TWELVE_BIT, 12)), KEY, few)) == {"patient_sex"}
    assert read_metadata(b"\x89PNG", KEY, EVERY) == {}
    assert read_metadata(b"", KEY, EVERY) == {}
    assert DicomSettings.parse("", link_patient=False, columns="days_since_first").columns[0] == "patient_pseudonym"


@pytest.mark.parametrize("columns", ["PatientName", "PatientID", "StudyDate,AccessionNumber", "institution"])
def test_other_columns_are_refused_before_any_work(columns):
    with pytest.raises(UsageError, match="--columns"):
        ScoreSettings(source="a", dest="b", columns=columns).dicom_settings()


# --- questions


def test_a_breakdown_withholds_cells_below_five(published):
    answer = query(published, breakdown(["patient_sex"]))
    assert [row[:2] for row in answer.rows] == [("F", 6)]
    assert answer.withheld == 1
    assert answer.columns[:3] == ("patient_sex", "n", "measured")
    whole = query(published, "SELECT count(*) AS n, avg(infected_fraction) AS mean FROM severity")
    assert whole.rows[0][0] == 8


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT patient_sex, avg(infected_fraction) FROM severity GROUP BY patient_sex", "AS n"),
        ("SELECT DISTINCT patient_sex FROM severity", "AS n"),
        ("DELETE FROM severity", "one SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("COPY severity TO '/tmp/covseg-query.csv'", "one SELECT"),
        ("SELECT * FROM read_text('/etc/passwd')", "cannot run"),
        ("SELECT * FROM '/etc/passwd'", "cannot run"),
        ("SET enable_external_access = true", "one SELECT"),
        ("ATTACH '/tmp/covseg-query.db'", "one SELECT"),
        ("SELECT nothing FROM severity", "cannot run"),
        ("SELEC", "cannot run"),
    ],
)
def test_only_a_select_over_the_table_is_run(published, sql, words):
    with pytest.raises(UsageError, match=words):
        query(published, sql)
    assert not Path("/tmp/covseg-query.csv").exists()


def test_a_csv_joins_by_key(published, tmp_path):
    (tmp_path / "wards.csv").write_text("key,ward\n" + "".join(f"{n}.dcm,{'A' if n < 7 else 'B'}\n" for n in range(8)))
    answer = query(published, breakdown(["ward"]), tmp_path / "wards.csv")
    assert [row[:2] for row in answer.rows] == [("A", 7)]
    assert answer.withheld == 1
    for text, words in (
        ("name,ward\n0.dcm,A\n", "no column key"),
        ("key,patient_sex\n0.dcm,A\n", "rename"),
        ("key,ward\n0.dcm,A\n0.dcm,B\n", "one row a key"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(UsageError, match=words):
            query(published, breakdown(["ward"]), tmp_path / "bad.csv")
    with pytest.raises(UsageError, match="--metadata"):
        query(published, "SELECT 1", tmp_path / "absent.csv")


def test_a_table_that_is_not_the_published_one_is_not_asked(published):
    kept = published.dest.objects["severity.parquet"]
    published.dest.objects["severity.parquet"] = kept + b"1"
    with pytest.raises(NotPublished, match="covseg publish"):
        query(published, "SELECT 1")
    published.dest.objects["severity.parquet"] = kept
    assert duckdb.sql("SELECT 1").fetchall() == [(1,)]
