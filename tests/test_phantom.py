"""Made images: known truth, the same bytes from the same seed, and lungs that the model sees."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covseg.errors import Reason
from covseg.pipeline import Pipeline
from covseg.records import LEFT, RIGHT, Mask, Masks
from covseg.stages.postprocess import postprocess, restore
from covseg.stages.preprocess import prepare
from covseg.stages.read import read
from covseg.stages.segment import Backend, segment
from covseg.storage import MemoryStore, entries
from covseg.synthetic.bad_inputs import bad_inputs
from covseg.synthetic.phantom import WHITE, Phantom, make_phantom
from covseg.synthetic.phantom.writer import encode, write_bad_inputs, write_dataset, write_images
from flows.cli.app import run

SEEN = range(12)  # seeds that the model is shown
HALF_STEP = 0.51 / 65535  # the reader keeps 16 bits of a windowed image


def digest(phantom: Phantom) -> str:
    parts = (phantom.pixels, phantom.right_lung_mask, phantom.left_lung_mask, phantom.infection_mask)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def dice(found: Mask, truth: Mask) -> float:
    return 2 * int((found & truth).sum()) / max(int(found.sum()) + int(truth.sum()), 1)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), height=st.integers(64, 160), width=st.integers(64, 160))
def test_masks_agree_with_each_other_at_any_seed_and_size(seed: int, height: int, width: int) -> None:
    phantom = make_phantom(seed, height, width)
    assert phantom.pixels.shape == phantom.lung_mask.shape == phantom.infection_mask.shape == (height, width)
    assert phantom.pixels.min() == 0
    assert phantom.pixels.max() == WHITE
    assert not (phantom.right_lung_mask & phantom.left_lung_mask).any()
    assert not (phantom.infection_mask & ~phantom.lung_mask & 1).any()
    for mask in (phantom.right_lung_mask, phantom.left_lung_mask):
        assert set(np.unique(mask)) == {0, 1}
        assert 0.04 < mask.mean() < 0.25


def test_the_same_seed_is_the_same_image_and_another_seed_is_not() -> None:
    assert digest(make_phantom(5, 96, 80)) == digest(make_phantom(5, 96, 80))
    assert digest(make_phantom(5, 96, 80)) != digest(make_phantom(6, 96, 80))


def test_one_seed_is_the_same_patient_at_every_size() -> None:
    small, large = make_phantom(3, 256, 256), make_phantom(3, 512, 512)
    for name in ("lung_mask", "infection_mask"):
        shrunk = cv2.resize(getattr(large, name), (256, 256), interpolation=cv2.INTER_AREA)
        assert dice(getattr(small, name), shrunk) > 0.98
    assert small.infected_fractions["total"] == pytest.approx(large.infected_fractions["total"], abs=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_the_patients_right_is_image_left_and_the_heart_lies_on_image_right(seed: int) -> None:
    phantom = make_phantom(seed, 256, 256, infected=False)
    columns = np.arange(256)
    right, left = (
        np.average(columns, weights=mask.sum(axis=0)) for mask in (phantom.right_lung_mask, phantom.left_lung_mask)
    )
    assert right < 128 < left
    # What the heart hides between the lungs reaches further to the left lung's side, in the lower half.
    rows = np.flatnonzero(phantom.lung_mask.any(axis=1))
    row = int(rows[0] + 0.65 * len(rows))
    inner_right = np.flatnonzero(phantom.right_lung_mask[row]).max()
    inner_left = np.flatnonzero(phantom.left_lung_mask[row]).min()
    middle = (right + left) / 2
    assert inner_left - middle > 1.4 * (middle - inner_right)
    heart = phantom.unit_pixels[row, inner_right + 6 : inner_left - 6]
    assert heart.mean() > phantom.unit_pixels[row][phantom.lung_mask[row] == 1].mean() + 0.15


def test_infection_is_brighter_than_the_clear_lung_and_differs_between_the_sides() -> None:
    phantoms = [make_phantom(seed, 128, 128, infected=True) for seed in range(8)]
    for phantom in phantoms:
        infected = phantom.infection_mask == 1
        clear = (phantom.lung_mask == 1) & ~infected
        assert phantom.unit_pixels[infected].mean() > phantom.unit_pixels[clear].mean()
    differences = [phantom.infected_fractions["right"] - phantom.infected_fractions["left"] for phantom in phantoms]
    assert max(differences) > 0.1
    assert min(differences) < -0.1


def test_infection_can_be_ordered_or_left_out() -> None:
    assert make_phantom(4, 96, 96, infected=True).infection_mask.any()
    assert make_phantom(4, 96, 96, infected=False).infected_fractions == {"total": 0, "right": 0, "left": 0}
    sick = [make_phantom(seed, 64, 64).infection_mask.any() for seed in range(30)]
    assert 12 <= sum(sick) <= 28


def test_fractions_are_counted_from_the_masks() -> None:
    phantom = make_phantom(9, 200, 160, infected=True)
    infected, right = phantom.infection_mask == 1, phantom.right_lung_mask == 1
    assert phantom.infected_fractions["right"] == (infected & right).sum() / right.sum()
    assert phantom.infected_fractions["total"] == infected.sum() / phantom.lung_mask.sum()


def test_a_mirrored_image_swaps_the_sides_of_its_truth() -> None:
    phantom = make_phantom(1, 96, 128, infected=True)
    mirrored = phantom.mirror()
    assert np.array_equal(mirrored.right_lung_mask[:, ::-1], phantom.left_lung_mask)
    assert mirrored.infected_fractions["left"] == phantom.infected_fractions["right"]
    assert digest(mirrored.mirror()) == digest(phantom)


def test_an_image_too_small_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted 64 or more"):
        make_phantom(0, 63, 256)


@pytest.mark.parametrize("file_format", ["png16", "monochrome2", "monochrome1"])
def test_twelve_bit_files_read_back_as_the_very_pixels(file_format: str) -> None:
    phantom = make_phantom(2, 120, 96)
    np.testing.assert_allclose(read(encode(phantom, file_format)).pixels, phantom.unit_pixels, rtol=0, atol=HALF_STEP)


def test_an_eight_bit_png_reads_back_to_half_a_grey_step() -> None:
    phantom = make_phantom(2, 120, 96)
    np.testing.assert_allclose(read(encode(phantom, "png")).pixels, phantom.unit_pixels, rtol=0, atol=0.5 / 255 + 1e-6)


def test_a_monochrome1_file_stores_the_inverse_of_its_twin() -> None:
    phantom = make_phantom(2, 120, 96)
    twin, inverse = (pydicom.dcmread(io.BytesIO(encode(phantom, name))) for name in ("monochrome2", "monochrome1"))
    assert (twin.PhotometricInterpretation, inverse.PhotometricInterpretation) == ("MONOCHROME2", "MONOCHROME1")
    assert np.array_equal(twin.pixel_array, WHITE - inverse.pixel_array)


def test_a_dicom_file_is_a_pa_chest_image_of_nobody() -> None:
    image = pydicom.dcmread(io.BytesIO(encode(make_phantom(2, 120, 96), "monochrome2")))
    assert (image.Modality, image.ViewPosition, image.BodyPartExamined) == ("DX", "PA", "CHEST")
    assert image.PixelSpacing[0] == image.PixelSpacing[1] > 0
    assert not image.PatientName
    assert not image.PatientID
    assert not image.StudyDate
    assert "Synthetic" in image.ImageComments


def stored(store: MemoryStore) -> dict[str, bytes]:
    return {entry.key: store.read(entry.key) for entry in entries(store)}


def test_written_images_lie_apart_from_their_truth_and_are_the_same_bytes_every_time() -> None:
    first, second = MemoryStore(), MemoryStore()
    phantoms = list(write_images(first, range(7, 12), (96, 80), ("png", "monochrome1")))
    list(write_images(second, range(7, 12), (96, 80), ("png", "monochrome1")))
    objects = stored(first)
    assert objects == stored(second)
    images = [key for key in objects if key.startswith("images/")]
    assert images == [f"images/phantom-{k:04d}.{'dcm' if k % 2 else 'png'}" for k in range(5)]
    rows = list(csv.DictReader(io.StringIO(objects["truth.csv"].decode())))
    assert [f"images/{row['key']}" for row in rows] == images
    for k, (row, phantom) in enumerate(zip(rows, phantoms, strict=True)):
        lung = cv2.imdecode(np.frombuffer(objects[f"truth/lung/phantom-{k:04d}.png"], np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(lung, phantom.lung_mask * 255)
        assert float(row["infected_fraction_left"]) == pytest.approx(phantom.infected_fractions["left"], abs=1e-6)


def test_bad_inputs_lie_among_the_images_with_the_reason_that_each_must_get() -> None:
    store = MemoryStore()
    write_bad_inputs(store, {"empty.png": (b"", Reason.EMPTY), "note.txt": (b"hello", Reason.NOT_AN_IMAGE)})
    objects = stored(store)
    assert objects["images/bad/note.txt"] == b"hello"
    assert objects["bad.csv"].decode().splitlines() == [
        "key,reason",
        "bad/empty.png,empty",
        "bad/note.txt,not_an_image",
    ]


def test_a_made_data_set_has_the_layout_and_the_labels_of_the_real_one(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"Train": 8, "Val": 4}, seed=50, size=64)
    counts = {}
    for path in tmp_path.rglob("images/*.png"):
        stratum = path.parent.parent
        counts[stratum.parent.name, stratum.name] = counts.get((stratum.parent.name, stratum.name), 0) + 1
        lung, infection = (
            cv2.imread(str(stratum / kind / path.name), cv2.IMREAD_UNCHANGED)
            for kind in ("lung masks", "infection masks")
        )
        assert set(np.unique(lung)) == {0, 255}
        assert infection.any() == (stratum.name == "COVID-19")
        assert not (infection & ~lung).any()
    assert counts == {
        ("Train", "COVID-19"): 4, ("Train", "Non-COVID"): 2, ("Train", "Normal"): 2,
        ("Val", "COVID-19"): 2, ("Val", "Non-COVID"): 1, ("Val", "Normal"): 1,
    }  # fmt: skip


def test_the_command_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["phantom", "4", str(tmp_path / "made"), "--size", "64", "--format", "both", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4
    names = sorted(path.name for path in (tmp_path / "made" / "images").iterdir())
    assert names == ["phantom-0000.png", "phantom-0001.dcm", "phantom-0002.png", "phantom-0003.dcm"]


def test_the_command_adds_every_bad_input_on_request(tmp_path: Path) -> None:
    assert run(["phantom", "1", str(tmp_path), "--size", "64", "--bad"]) == 0
    expected = bad_inputs()
    written = {path.name: path.read_bytes() for path in (tmp_path / "images" / "bad").iterdir()}
    assert written == {name: data for name, (data, _) in expected.items()}
    rows = list(csv.DictReader((tmp_path / "bad.csv").read_text().splitlines()))
    assert {row["key"]: row["reason"] for row in rows} == {f"bad/{name}": why for name, (_, why) in expected.items()}


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    assert run(["phantom", "4", str(tmp_path / "made"), "--dry-run"]) == 0
    assert not (tmp_path / "made").exists()


def test_a_data_set_of_dicom_images_is_refused(tmp_path: Path) -> None:
    assert run(["phantom", "4", str(tmp_path), "--layout", "covid-qu-ex", "--format", "dicom"]) == 2


@pytest.fixture(scope="module")
def answers(pipeline: Pipeline, backend: Backend) -> list[tuple[Phantom, Masks]]:
    """What the model, trained on real images only, finds on phantoms and, behind them, on their mirror images."""
    images = [make_phantom(seed, 256, 256) for seed in SEEN]
    images += [image.mirror() for image in images]
    found = []
    for image in images:
        pixels = prepare(image.unit_pixels, pipeline.model.size)
        prediction = segment(backend, pixels[None])[0]
        masks = postprocess(prediction, pipeline.model.thresholds)
        found.append((image, restore(masks, *image.unit_pixels.shape)))
    return found


def test_the_model_sees_the_lungs(answers: list[tuple[Phantom, Masks]]) -> None:
    scores = [dice(masks.lung, image.lung_mask) for image, masks in answers[: len(SEEN)]]
    assert np.mean(scores) >= 0.85
    assert min(scores) >= 0.75


def test_the_model_tells_right_from_left_on_images_and_on_mirror_images(answers: list[tuple[Phantom, Masks]]) -> None:
    for image, masks in answers:
        assert dice((masks.side == RIGHT).astype(np.uint8), image.right_lung_mask) > 0.75
        assert dice((masks.side == LEFT).astype(np.uint8), image.left_lung_mask) > 0.75
