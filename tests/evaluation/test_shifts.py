"""Shifts, twins and the control: what each does to an image, and the table of a whole walk."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from covseg.data import open_set
from covseg.errors import UsageError
from covseg.evaluation import control
from covseg.evaluation.evaluate import evaluate
from covseg.evaluation.twins import of_twins, read_twins
from covseg.settings.evaluate import EvaluateSettings
from covseg.synthetic.shifts import SHIFTS, chosen, shifted


def grey(side: int = 96) -> np.ndarray:
    noise = np.random.default_rng(3).random((side, side)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5), np.float32)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_gives_grey_values_and_gives_them_again(name):
    first, second = (shifted(name, SHIFTS[name], grey(), "images/a.png") for _ in range(2))
    assert first.dtype == np.float32 and 0 <= first.min() <= first.max() <= 1
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", [name for name, shift in SHIFTS.items() if shift.mask])
def test_a_mask_follows_the_frame(name):
    mask = np.zeros((96, 96), np.uint8)
    mask[30:70, 35:60] = 1
    move = SHIFTS[name].mask
    assert move is not None
    moved, image = move(mask), shifted(name, SHIFTS[name], mask.astype(np.float32) * 0.5, "a")
    assert moved.shape == image.shape and set(np.unique(moved)) == {0, 1}
    seen = np.abs(image - 0.5) < 0.25
    assert (seen & (moved > 0)).sum() / (seen | (moved > 0)).sum() > 0.9


def test_an_unknown_shift_is_said_with_what_was_meant():
    with pytest.raises(UsageError, match=r"no shift 'jpeg57', did you mean 'jpeg(75|50)'\?: wanted all"):
        chosen(("jpeg57",))
    assert list(chosen(("blur1", "jpeg75"))) == ["jpeg75", "blur1"]
    assert chosen(("all",)) == SHIFTS


def test_the_control_paints_what_it_says_and_nothing_of_what_it_hides():
    lung = np.zeros((96, 96), np.uint8)
    lung[20:80, 10:40] = 1
    pixels = grey()
    brighter = np.where(lung > 0, pixels + 0.2, pixels).astype(np.float32)
    assert np.array_equal(control.flat_lungs(pixels, lung), control.flat_lungs(brighter, lung))
    assert len(np.unique(control.flat_lungs(pixels, lung)[lung > 0])) == 1
    assert len(np.unique(control.lungs_only(pixels, lung)[lung == 0])) == 1
    assert np.array_equal(control.lungs_only(pixels, lung)[lung > 0], pixels[lung > 0])


@pytest.fixture
def twins(made_set: Path, tmp_path: Path) -> Path:
    """Twins of four images of Val: the same pixels, three times as large."""
    (tmp_path / "twins" / "images").mkdir(parents=True)
    rows = []
    for image in open_set(made_set, "Val").select(limit=4).images:
        pixels = cv2.imread(str(made_set / image.key), cv2.IMREAD_GRAYSCALE)
        name = f"big-{Path(image.key).name}"
        large = cv2.resize(pixels, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / "twins" / "images" / name), large)
        rows.append({"image": name, "of": Path(image.key).name, "split": "Val", "stratum": image.stratum})
    return write_twins(tmp_path / "twins" / "twins.csv", rows)


def write_twins(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_twins_that_do_not_match_are_said_before_the_first_image(made_set, twins):
    dataset, rows = open_set(made_set, "Val"), list(csv.DictReader(twins.read_text().splitlines()))
    assert len(read_twins(twins, dataset)) == 4
    two = read_twins(write_twins(twins.with_name("two.csv"), [rows[0], rows[0] | {"image": rows[1]["image"]}]), dataset)
    assert [len(files) for files in two.values()] == [2]
    broken = {
        "no image 'nobody.png' in split Val": [rows[0] | {"of": "nobody.png"}],
        "no file .*gone.png": [rows[0] | {"image": "gone.png"}],
        "stands there twice": [rows[0], rows[0]],
        "none of split Val": [rows[0] | {"split": "Train"}],
        "no column 'of'": [{"image": "a.png", "source": "b"}],
    }
    for said, lines in broken.items():
        with pytest.raises(UsageError, match=said):
            read_twins(write_twins(twins.with_name("broken.csv"), lines), dataset)
    with pytest.raises(UsageError, match="no such file"):
        read_twins(twins.with_name("absent.csv"), dataset)


def test_an_evaluation_under_shifts_names_the_worst_first_and_runs_from_its_cache(
    made_set, model_copy, twins, tmp_path, monkeypatch
):
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path / "cache"))
    settings = EvaluateSettings(
        model=str(model_copy), data=made_set, output=tmp_path / "out", draws=100, twins=twins, backend="torch",
        shifts=("blur2", "rotate+7", "jpeg90"),
    )  # fmt: skip
    found = evaluate(settings).robustness
    assert [line.name for line in found.shifts] == ["jpeg90", "blur2", "rotate+7"]
    assert {line.images for line in found.shifts} == {16} and found.twins[0].images == 4
    assert {line.auroc.n for line in found.control if line.against == "all others"} == {16}
    losses = [max(line.covid_dice_lost.value, line.specificity_lost.value) for line in found.worst_first]
    assert losses == sorted(losses, reverse=True)
    assert {line.name for line in found.control} == {"as it is", "flat_lungs", "flat_box", "lungs_only"}
    for line in found.shifts:
        assert line.covid_dice_lost.value == pytest.approx(line.covid_dice_as_it_is - line.covid_dice.value, abs=1e-5)
    kept = Counter(pq.read_table(tmp_path / "out" / "conditions.parquet").column("condition").to_pylist())
    assert {name: kept.pop(name) for name in ("jpeg90", "blur2", "rotate+7")} == dict.fromkeys(settings.shifts, 16)
    assert kept.total() == 4 and all(name.startswith("real size") for name in kept)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "The same image, the same answer?" in page and "blur, sigma 2 of 256" in page

    of_truth = evaluate(settings.model_copy(update={"lung": "truth", "shifts": (), "twins": None})).robustness
    assert not (tmp_path / "out" / "conditions.parquet").exists(), "what was not asked for does not stay"
    assert of_truth.control == found.control  # asked of the model's own lung, whichever one clips the infection

    # another file under the same name is another twin: the cache must not answer for it
    again, dataset = read_twins(twins, open_set(made_set, "Val")), open_set(made_set, "Val")
    before = [one.source for one in of_twins(again)]
    file = next(iter(again.values()))[0]
    file.write_bytes(file.read_bytes() + b"more")
    assert [one.source for one in of_twins(read_twins(twins, dataset))] != before
    file.write_bytes(file.read_bytes().removesuffix(b"more"))
    evaluate(settings)

    walked = sorted((tmp_path / "cache" / "conditions").iterdir())
    times = [path.stat().st_mtime_ns for path in walked]
    shutil.rmtree(tmp_path / "out")
    assert evaluate(settings).robustness.model_dump_json() == found.model_dump_json()
    assert [path.stat().st_mtime_ns for path in walked] == times


def test_a_set_without_lung_masks_says_that_the_control_was_left_out(
    set_without_lungs, model_copy, tmp_path, monkeypatch
):
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path / "cache"))
    settings = EvaluateSettings(
        model=str(model_copy),
        data=set_without_lungs,
        output=tmp_path / "out",
        draws=100,
        backend="torch",
        lung="predicted",
    )
    found = evaluate(settings)
    assert found.robustness.control == ()
    assert any("16 of 16 images have none and are left out" in warning for warning in found.warnings)
