"""The pipeline in one process, on real and made images."""

import csv
import io
import json
import re

import cv2
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image

import covseg
import covseg.predict as predict_module
from covseg import pipeline as pipeline_module
from covseg.errors import RadiographRefused, Stage, UsageError
from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import open_folder
from covseg.pipeline import Pipeline, resolve
from covseg.predict import Outputs, predict
from covseg.records import RESEARCH_ONLY, Entry, Masks
from covseg.report import Gallery
from covseg.report.quota import Group
from covseg.stages.encode import overlay_jpeg
from covseg.storage import LocalStore, MemoryStore, entries
from covseg.synthetic.bad_inputs import bad_inputs
from covseg.synthetic.phantom import make_phantom
from tests.dicom_images import dataset, written

WORST = Group(
    "worst", 2, lambda row: row.infected_fraction is not None, "", lambda row: row.infected_fraction or 0.0, ""
)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    return {f"film-{seed}.png": png((make_phantom(seed, 300, 340).pixels // 16).astype(np.uint8)) for seed in range(6)}


@pytest.fixture(scope="module")
def scored(images, pipeline, backend):
    destination = MemoryStore()
    source = MemoryStore({**images, "again/film-2.png": images["film-2.png"], "note.txt": b"not a film"})
    rows = predict(pipeline, backend, source, entries(source), destination, Outputs(probability=True), streams=2)
    return rows, destination.objects


def scored_with(images, pipeline, backend, overlay: str, gallery: Gallery) -> dict[str, bytes]:
    source, destination = MemoryStore(images), MemoryStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_module, "Gallery", lambda: gallery)
        predict(pipeline, backend, source, entries(source), destination, Outputs(overlay), streams=2)
    return destination.objects


def test_a_real_image_goes_from_file_to_mask_row_and_report(val_root, pipeline, backend, tmp_path):
    source = LocalStore(val_root / "COVID-19" / "images")
    image = next(iter(entries(source)))
    (row,) = predict(pipeline, backend, source, [image], LocalStore(tmp_path))
    truth = cv2.imread(str(val_root / "COVID-19" / "lung masks" / image.key), cv2.IMREAD_GRAYSCALE) > 127
    label_map = cv2.imread(str(tmp_path / row.mask_uri), cv2.IMREAD_UNCHANGED)
    assert label_map.shape == truth.shape
    lung = label_map > 0
    assert 2 * (lung & truth).sum() / (lung.sum() + truth.sum()) > 0.9
    assert row.infected_fraction == pytest.approx((label_map == 2).sum() / lung.sum())
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_inputs_are_rows_plus_refusals_in_key_order(scored):
    rows, _ = scored
    assert [row.key for row in rows] == sorted(["again/film-2.png", "note.txt", *(f"film-{n}.png" for n in range(6))])
    assert [row.key for row in rows if row.status != "scored"] == ["note.txt"]


def test_the_label_map_recomputes_the_row(scored):
    rows, objects = scored
    for row in rows:
        if row.mask_uri:
            label_map = cv2.imdecode(np.frombuffer(objects[row.mask_uri], np.uint8), cv2.IMREAD_UNCHANGED)
            assert label_map.shape == (row.height, row.width) == (300, 340)
            assert int((label_map == 2).sum()) == row.infected_area_px
            assert int((label_map > 0).sum()) == row.lung_area_px


def test_equal_content_under_two_keys_is_reported_twice_and_marked_once(scored):
    by_key = {row.key: row for row in scored[0]}
    assert by_key["film-2.png"].duplicate_of == by_key["again/film-2.png"].input_id
    assert "duplicate_content" in by_key["film-2.png"].qc_flags
    assert by_key["again/film-2.png"].duplicate_of is None
    assert by_key["film-2.png"].infected_fraction == by_key["again/film-2.png"].infected_fraction


def test_every_picture_says_what_it_may_be_used_for_and_is_a_whole_png(scored):
    _, objects = scored
    pictures = [data for key, data in objects.items() if key.endswith(".png")]
    assert {key.partition("/")[0] for key in objects if key.endswith(".png")} >= {"masks", "probability"}
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.text == {"Disclaimer": RESEARCH_ONLY}


def test_overlays_are_drawn_of_what_the_report_shows_and_say_what_they_may_be_used_for(images, pipeline, backend):
    objects = scored_with(images, pipeline, backend, "report", Gallery((WORST,)))
    shown = [key for key in objects if key.startswith("overlays/")]
    rows = pq.read_table(io.BytesIO(objects["severity.parquet"])).sort_by([("infected_fraction", "descending")])
    assert sorted(shown) == sorted(f"overlays/{name}.jpg" for name in rows["input_id"].to_pylist()[:2])
    assert linked(objects) == set(shown)
    for key in shown:
        with Image.open(io.BytesIO(objects[key])) as image:
            image.load()
            assert (image.format, image.size, image.info["comment"].decode()) == ("JPEG", (340, 300), RESEARCH_ONLY)


@pytest.mark.parametrize(("overlay", "suffix", "count"), [("none", "", 0), ("all", ".jpg", 6), ("full", ".png", 6)])
def test_overlays_of_none_or_all_images_can_be_asked_for(images, pipeline, backend, overlay, suffix, count):
    objects = scored_with(images, pipeline, backend, overlay, Gallery((WORST,)))
    shown = [key for key in objects if key.startswith("overlays/")]
    assert len(shown) == count
    assert all(key.endswith(suffix) for key in shown)
    assert linked(objects) == set(shown)


def linked(objects: dict[str, bytes]) -> set[str]:
    """Overlay files that the report leads to."""
    return {path.decode() for path in re.findall(rb'"(overlays/[^"]+)"', objects["report.html"])}


def test_a_bounded_overlay_shows_the_contours_of_a_large_image_where_they_are():
    lung = np.zeros((2048, 1024), np.uint8)
    lung[800:1200, 200:600] = 1
    masks = Masks(lung, np.zeros_like(lung), lung, False, 0.0, 0, None)
    image = cv2.imdecode(np.frombuffer(overlay_jpeg(np.full(lung.shape, 0.25, np.float32), masks), np.uint8), 1)
    assert image.shape == (1024, 512, 3)
    coloured = np.ptp(image.astype(int), axis=2) > 100
    assert cv2.boundingRect(coloured.astype(np.uint8)) == pytest.approx((100, 400, 200, 200), abs=4)


def test_parquet_csv_and_row_json_say_the_same(scored):
    rows, objects = scored
    parquet = pq.read_table(io.BytesIO(objects["severity.parquet"])).to_pylist()
    text = list(csv.DictReader(io.StringIO(objects["severity.csv"].decode())))
    for record, line, row in zip(parquet, text, rows, strict=True):
        assert record["input_id"] == line["input_id"] == row.input_id
        assert line["infected_fraction"] == (
            "" if record["infected_fraction"] is None else str(record["infected_fraction"])
        )
        assert line["qc_flags"] == ";".join(record["qc_flags"])
        assert line["intended_use"] == RESEARCH_ONLY
    one = json.loads(objects[f"rows/{rows[0].input_id}.json"])
    assert one["infected_fraction"] == parquet[0]["infected_fraction"]


def test_the_same_run_gives_the_same_bytes_on_any_number_of_streams(images, pipeline, backend):
    results = []
    for streams in (1, 3):
        source, destination = MemoryStore(images), MemoryStore()
        predict(pipeline, backend, source, entries(source), destination, streams=streams)
        results.append(destination.objects)
    assert results[0] == results[1]


def test_every_bad_input_gets_one_reasoned_row_and_nothing_is_lost(pipeline, backend, images):
    bad = bad_inputs()
    source = MemoryStore({name: data for name, (data, _) in bad.items()} | {"good.png": images["film-0.png"]})
    rows = {row.key: row for row in predict(pipeline, backend, source, entries(source), MemoryStore())}
    assert len(rows) == len(bad) + 1
    for name, (_, reason) in bad.items():
        assert (rows[name].reason, rows[name].status) == (reason, reason.status), name
        assert rows[name].infected_fraction is None
        assert rows[name].stage
    assert rows["good.png"].status == "scored"


def test_an_image_that_vanishes_is_missing_and_the_others_are_scored(images, pipeline, backend):
    source = MemoryStore(images)
    chosen = list(entries(source))
    del source.objects["film-1.png"]
    rows = {row.key: row for row in predict(pipeline, backend, source, chosen, MemoryStore())}
    assert rows["film-1.png"].status == "missing"
    assert sum(row.status == "scored" for row in rows.values()) == 5


def test_nan_from_the_model_refuses_the_image(pipeline, images):
    class Broken:
        name = "broken"

        def run(self, pixels):
            shape = (len(pixels), 2, *pixels.shape[1:])
            return np.full(shape, np.nan, np.float32), np.zeros(len(pixels)), np.zeros((len(pixels), 3))

    source = MemoryStore(images)
    rows = predict(pipeline, Broken(), source, entries(source), MemoryStore())
    assert {row.reason for row in rows} == {"nonfinite_logits"}


@pytest.mark.parametrize(
    ("step", "stage", "error", "reason"),
    [
        ("prepare", "preprocess", MemoryError(), "too_large"),
        ("input_filter", "input_filter", ValueError("a patient's name"), "corrupt"),
        ("postprocess", "postprocess", cv2.error("a patient's name"), "corrupt"),
        ("restore", "postprocess", MemoryError(), "too_large"),
        ("measure", "severity", ZeroDivisionError(), "corrupt"),
    ],
)
def test_a_step_that_fails_as_nobody_foresaw_refuses_its_image_alone(
    images, pipeline, backend, monkeypatch, step, stage, error, reason
):
    sound, calls = getattr(pipeline_module, step), []

    def fails_once(*given):
        calls.append(step)
        if len(calls) == 2:
            raise error
        return sound(*given)

    monkeypatch.setattr(pipeline_module, step, fails_once)
    source = MemoryStore(images)
    rows = predict(pipeline, backend, source, entries(source), MemoryStore())
    (row,) = (row for row in rows if row.status != "scored")
    assert (row.reason, row.stage, row.exception_class) == (reason, stage, type(error).__name__)
    assert row.detail == f"{stage} failed: {type(error).__name__}"
    assert row.sha256


@pytest.mark.parametrize("error", [UsageError("of the run"), OSError("of the machine")])
def test_what_is_wrong_with_the_run_or_the_machine_refuses_no_image(images, pipeline, backend, monkeypatch, error):
    monkeypatch.setattr(pipeline_module, "restore", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(type(error), match="of the"):
        predict(pipeline, backend, MemoryStore(images), entries(MemoryStore(images)), MemoryStore())


def test_a_mask_that_cannot_be_encoded_refuses_its_image_alone(images, pipeline, backend, monkeypatch):
    from tests.archives import make_run
    from workers import pool as pool

    source = MemoryStore(images)
    job = pool.Job(make_run(), source, pipeline, probability=False)
    (scored,) = pipeline_module.score_batch(pipeline, backend, source, list(entries(source))[:1])
    monkeypatch.setattr(pool, "mask_png", lambda masks: (_ for _ in ()).throw(MemoryError()))
    row, mask, _ = pool.DecodeWorker(job)._encode(scored)
    assert (row.reason, row.stage, row.sha256, mask) == ("too_large", "encode", scored.row.sha256, None)


def test_a_formula_in_a_key_is_disarmed_in_the_csv(images, pipeline, backend):
    source, destination = MemoryStore({"=HYPERLINK(x).png": images["film-0.png"]}), MemoryStore()
    predict(pipeline, backend, source, entries(source), destination)
    assert next(csv.DictReader(io.StringIO(destination.objects["severity.csv"].decode())))["key"].startswith("'=")
    assert b"HYPERLINK" not in destination.objects["report.html"]


def test_the_exported_graph_draws_the_masks_of_the_reference(model_folder, images):
    masks = {}
    for name in ("torch", "onnx"):
        backend = open_backend(model_folder, name)
        pipeline = Pipeline(model_folder.config, resolve(model_folder, backend, 2), key=b"k")
        source = MemoryStore(images)
        destination = MemoryStore()
        rows = predict(pipeline, backend, source, entries(source), destination)
        masks[name] = np.stack(
            [
                cv2.imdecode(np.frombuffer(destination.objects[row.mask_uri], np.uint8), 0)
                for row in rows
                if row.mask_uri
            ]
        )
    for label in (1, 2):
        one, other = masks["torch"] >= label, masks["onnx"] >= label
        union = (one | other).sum()
        assert union == 0 or (one & other).sum() / union >= 0.9999


def test_one_image_in_memory_scores_like_a_file(images):
    pixels = cv2.imdecode(np.frombuffer(images["film-3.png"], np.uint8), cv2.IMREAD_GRAYSCALE)
    scored = covseg.load_model().predict(pixels)
    assert scored.row.infected_fraction == covseg.load_model().predict(pixels / 255).row.infected_fraction
    assert scored.masks.label_map.shape == pixels.shape


def test_whatever_holds_the_same_pixels_scores_alike(images, tmp_path):
    data, path = images["film-3.png"], tmp_path / "image.png"
    path.write_bytes(data)
    model, array = covseg.load_model(), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    wanted = model.predict(array)
    for image in (data, path, str(path), Image.open(path)):
        assert np.array_equal(model.predict(image).masks.label_map, wanted.masks.label_map)
    dicom = pydicom.dcmread(io.BytesIO(written(dataset(array, 8))))
    assert model.predict(dicom).row.infected_fraction == pytest.approx(wanted.row.infected_fraction, abs=0.01)
    assert model.predict(array, pixel_spacing_mm=0.5).row.infected_area_mm2 is not None
    with pytest.raises(TypeError, match="found dict; wanted an array"):
        model.predict({})
    with pytest.raises(FileNotFoundError):
        model.predict(tmp_path / "gone.png")


def test_what_was_scored_in_memory_is_shown_and_told(images):
    scored = covseg.load_model().predict(images["film-3.png"])
    told = json.loads(json.dumps(scored.to_dict()))
    assert told["intended_use"] == RESEARCH_ONLY and told["infected_fraction"] == round(scored.row.infected_fraction, 6)
    shown = np.asarray(scored.show())
    assert shown.shape == (*scored.masks.label_map.shape, 3)
    assert (shown == (0, 255, 255)).all(axis=2).any()  # a contour of the lung


@pytest.mark.parametrize("pixels", [np.zeros((3, 4, 5)), np.full((64, 64), 7.0), np.zeros((64, 64), np.int32)])
def test_an_array_that_is_no_grey_image_is_a_clear_error(pixels):
    with pytest.raises(ValueError, match="wanted"):
        covseg.load_model().predict(pixels)


def test_noise_in_memory_is_refused_with_its_reason():
    noise = np.random.default_rng(0).random((256, 256))
    with pytest.raises(RadiographRefused) as refused:
        covseg.load_model().predict(noise)
    assert refused.value.reason.status == "out_of_scope"


def test_an_input_id_does_not_give_the_key_away():
    folder = open_folder()
    backend = open_backend(folder)
    config = resolve(folder, backend, 1)
    ids = {
        Pipeline(folder.config, config, bucket, key).refuse(
            Entry("name.png", 1, etag), RadiographRefused(pipeline_module.Reason.EMPTY, Stage.READ, "0 bytes")
        ).row.input_id
        for bucket, key, etag in (("a", b"k", "1"), ("b", b"k", "1"), ("a", b"l", "1"), ("a", b"k", "2"))
    }  # fmt: skip
    assert len(ids) == 4
    assert all(len(one) == 32 for one in ids)
