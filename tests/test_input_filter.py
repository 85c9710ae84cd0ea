"""The input filter of the committed model: what passes, what is caught, what is refused."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from covseg.errors import ModelRefused, RadiographRefused, Reason, UsageError
from covseg.model_folder.folder import CONFIG, FILTER_ARRAYS, ModelFolder, open_folder
from covseg.pipeline import Pipeline
from covseg.records import Prediction
from covseg.stages.input_filter import describe, filter_scores, input_filter
from covseg.stages.preprocess import prepare
from covseg.stages.read import read
from covseg.stages.segment import Backend, segment
from covseg.synthetic.negatives import FAMILIES
from covseg.synthetic.phantom import make_phantom

Pixels = NDArray[np.float32]
Verdict = tuple[Reason | None, tuple[str, ...]]
Look = Callable[[list[Pixels]], list[Verdict]]
CHEST = ("nih_test1_DX_PA.dcm", "rsna_CR_PA_MONO2_jpegbaseline.dcm", "wg04_RG1_CR_PA_MONO1_15bit_j2k.dcm")
LEG = "wg04_RG3_CR_EXTREMITY_MONO1_j2k.dcm"
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
    "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
NO_IMAGE = (Reason.NOT_RADIOGRAPH, Reason.NOT_FRONTAL_CHEST)


@pytest.fixture(scope="module")
def look(model_folder: ModelFolder, backend: Backend) -> Look:
    """Walk source pixels to the input filter of the default model: (reason or None, flags) of each."""

    def one(pixels: Pixels, answer: Prediction) -> Verdict:
        try:
            return None, input_filter(pixels, answer, model_folder.config.input_filter)[1]
        except RadiographRefused as refusal:
            return refusal.reason, ()

    def run(images: list[Pixels]) -> list[Verdict]:
        verdicts = []
        for start in range(0, len(images), 4):
            batch = np.stack([prepare(image, model_folder.config.size) for image in images[start : start + 4]])
            verdicts += [one(*pair) for pair in zip(batch, segment(backend, batch), strict=True)]
        return verdicts

    return run


def grey(path: Path) -> Pixels:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None, path
    return image.astype(np.float32) / 255


@pytest.fixture(scope="module")
def val_images(val_root: Path) -> list[Pixels]:
    return [grey(path) for path in sorted(val_root.glob("*/images/*.png"))]


@pytest.fixture(scope="module")
def val_lungs(val_root: Path) -> list[Pixels]:
    return [grey(path) for path in sorted(val_root.glob("*/lung masks/*.png"))[::31]]


def caught(verdicts: list[Verdict], flag: str | None = None) -> float:
    """Share refused or, where a flag is named, refused or so flagged."""
    return float(np.mean([reason is not None or flag in flags for reason, flags in verdicts]))


def strip_header(data: bytes) -> bytes:
    """Return the image's pixels as a 16-bit PNG: nothing of the header is left."""
    buffer = io.BytesIO()
    Image.fromarray((read(data).pixels * 65535).astype(np.uint16)).save(buffer, "png")
    return buffer.getvalue()


def test_the_default_model_has_a_gate(model_folder: ModelFolder) -> None:
    assert model_folder.config.input_filter is not None
    assert (model_folder.path / FILTER_ARRAYS).stat().st_size < 1_000_000


def test_at_most_one_val_image_in_a_hundred_is_refused_or_called_turned(look: Look, val_images: list[Pixels]) -> None:
    assert len(val_images) == 932
    verdicts = look(val_images)
    assert caught(verdicts) <= 0.01
    assert np.mean([bool({"inverted", "rotated"} & set(flags)) for _, flags in verdicts]) <= 0.01
    assert np.mean(["out_of_distribution" in flags for _, flags in verdicts]) <= 0.016


@pytest.mark.parametrize(
    ("flag", "turn"),
    [
        ("inverted", lambda image: 1 - image),
        ("rotated", lambda image: image[::-1]),
        ("rotated", lambda image: np.rot90(image)),
        ("rotated", lambda image: np.rot90(image, 2)),
        ("rotated", lambda image: np.rot90(image, 3)),
    ],
    ids=["inverted", "upside down", "90", "180", "270"],
)
def test_a_turned_or_inverted_val_image_is_caught(
    look: Look, val_images: list[Pixels], flag: str, turn: Callable[[Pixels], Pixels]
) -> None:
    assert caught(look([np.ascontiguousarray(turn(image)) for image in val_images[::10]]), flag) >= 0.95


def test_an_image_mirrored_left_to_right_usually_passes(look: Look, val_images: list[Pixels]) -> None:
    assert caught(look([np.ascontiguousarray(image[:, ::-1]) for image in val_images[::24]])) <= 0.2


def test_lateral_images_and_ct_slices_are_refused(look: Look, data_root: Path) -> None:
    paths = sorted((data_root / "gate-negatives").glob("*/*.jpg"))
    assert len(paths) == 8
    verdicts = look([read(path.read_bytes()).pixels for path in paths])
    assert [path.name for path, (reason, _) in zip(paths, verdicts, strict=True) if reason not in NO_IMAGE] == []


@pytest.mark.parametrize("strip", [False, True], ids=["dicom", "bare pixels"])
def test_three_chest_images_pass_and_the_leg_is_refused_with_and_without_header(
    look: Look, data_root: Path, strip: bool
) -> None:
    files = [(data_root / "dicom" / name).read_bytes() for name in (*CHEST, LEG)]
    reasons = [reason for reason, _ in look([read(strip_header(data) if strip else data).pixels for data in files])]
    assert reasons[:3] == [None, None, None]
    assert reasons[3] in NO_IMAGE


def test_mask_pictures_are_refused(look: Look, val_lungs: list[Pixels], val_root: Path) -> None:
    infections = [grey(path) for path in sorted((val_root / "COVID-19" / "infection masks").glob("*.png"))[::31]]
    assert caught(look(val_lungs + infections)) == 1


def test_photographs_and_pages_are_refused(look: Look) -> None:
    folder = Path(skimage.data.__file__).parent
    verdicts = look([grey(folder / name) for name in PHOTOGRAPHS])
    assert [name for name, (reason, _) in zip(PHOTOGRAPHS, verdicts, strict=True) if reason is None] == []


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"overlaid"}))
def test_a_family_of_synthetic_negatives_is_refused(
    look: Look, val_images: list[Pixels], val_root: Path, family: str
) -> None:
    random = np.random.default_rng([7, *family.encode()])
    lungs = sorted(val_root.glob("*/lung masks/*.png"))
    draw = FAMILIES[family][1]
    images = [
        draw((val_images[i] * 255).astype(np.uint8), (grey(lungs[i]) * 255).astype(np.uint8), random) / 255
        for i in random.choice(len(val_images), 10, replace=False)
    ]
    assert caught(look([np.ascontiguousarray(image, np.float32) for image in images]), "rotated") >= 0.7


def test_phantoms_pass(look: Look) -> None:
    images = [make_phantom(seed, 256, 256).pixels.astype(np.float32) / 4095 for seed in range(24)]
    assert caught(look(images)) <= 0.1


def test_exposure_does_not_change_the_verdict(look: Look, val_images: list[Pixels]) -> None:
    images = val_images[::150]
    assert look(images) == look([0.3 + 0.5 * image for image in images])


def test_the_gate_travels_with_a_pickled_pipeline(pipeline: Pipeline, look: Look) -> None:
    moved = pickle.loads(pickle.dumps(pipeline))
    here, there = pipeline.model.input_filter, moved.model.input_filter
    assert here is not None
    assert there == here
    assert all(np.array_equal(there.numbers[name], value) for name, value in here.numbers.items())


@given(st.integers(0, 2**32 - 1), st.floats(0, 50), st.booleans())
@settings(deadline=None, max_examples=30)
def test_any_pixels_and_any_answer_get_a_finite_score(seed: int, spread: float, flat: bool) -> None:
    limits = open_folder().config.input_filter
    assert limits is not None
    random = np.random.default_rng(seed)
    pixels = np.zeros((96, 96), np.float32) if flat else random.normal(0, spread, (96, 96)).astype(np.float32)
    lung = np.clip(random.normal(0.5, spread, (96, 96)), 0, 1).astype(np.float32)
    features = random.normal(0, spread, limits.numbers["features.mean"].shape).astype(np.float32)
    answer = Prediction(lung=lung, infection=lung, presence=0.5, features=features)
    blocks = {name: block[None] for name, block in describe(pixels, answer).items()}
    scores, kinds = filter_scores(blocks, limits.numbers)
    assert np.isfinite(scores).all()
    assert 1 <= kinds[0] <= 4


@pytest.fixture
def copied(model_folder: ModelFolder, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(model_folder.path, tmp_path / "model"))


def test_features_that_are_no_numbers_are_refused(model_folder: ModelFolder) -> None:
    answer = Prediction(np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32), 0.5, np.full(256, np.nan, "f4"))
    with pytest.raises(RadiographRefused, match="nonfinite_logits"):
        input_filter(np.zeros((64, 64), np.float32), answer, model_folder.config.input_filter)


def test_a_changed_gate_file_is_refused(copied: Path) -> None:
    data = bytearray((copied / FILTER_ARRAYS).read_bytes())
    data[-1] ^= 1
    (copied / FILTER_ARRAYS).write_bytes(data)
    with pytest.raises(ModelRefused, match=FILTER_ARRAYS):
        open_folder(copied)


def test_a_missing_gate_file_is_refused(copied: Path) -> None:
    (copied / FILTER_ARRAYS).unlink()
    with pytest.raises(ModelRefused, match=FILTER_ARRAYS):
        open_folder(copied)


def test_a_gate_that_cannot_be_fitted_leaves_the_one_that_is_there(copied: Path, tmp_path: Path) -> None:
    from covseg.release.fit_input_filter import fit_input_filter

    before = (copied / CONFIG).read_bytes()
    with pytest.raises(UsageError):
        fit_input_filter(copied, tmp_path / "nowhere")
    assert (copied / CONFIG).read_bytes() == before


def test_a_gate_of_other_weights_is_refused_with_the_way_out(copied: Path) -> None:
    config = json.loads((copied / CONFIG).read_text())
    config["gate"]["weights_sha256"] = "0" * 64
    (copied / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelRefused, match="covseg models fit-filter"):
        open_folder(copied)
