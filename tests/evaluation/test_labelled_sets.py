"""Listing a labelled set: layouts, pairing, and truth that cannot be believed."""

import shutil

import cv2
import numpy as np
import pytest

from covseg.data import BadMask, open_set, read_truth
from covseg.errors import UsageError


@pytest.fixture
def own_set(made_set, tmp_path):
    return shutil.copytree(made_set, tmp_path / "own")


def mask_of(root, images, number=0):
    return root / images.images[number].infection


def test_the_kaggle_layout_is_listed_with_both_masks(made_set):
    images = open_set(made_set, "val")
    assert images.split == "Val" and images.counts == {"COVID-19": 8, "Non-COVID": 4, "Normal": 4}
    assert all(image.lung and image.infection and (made_set / image.key).is_file() for image in images.images)
    assert images.excluded == ()


def test_the_real_val_split_has_the_official_counts(val_root):
    images = open_set(val_root.parent, "Val")
    assert images.counts == {"COVID-19": 466, "Non-COVID": 233, "Normal": 233} and not images.excluded


def test_folder_names_are_read_in_any_case(own_set):
    (own_set / "Val" / "COVID-19").rename(own_set / "Val" / "moved")
    (own_set / "Val" / "moved").rename(own_set / "Val" / "covid-19")
    (own_set / "Val" / "covid-19" / "images").rename(own_set / "Val" / "covid-19" / "Images")
    assert open_set(own_set, "VAL").counts["COVID-19"] == 8


def test_a_folder_that_is_there_twice_is_named(own_set):
    shutil.copytree(own_set / "Val" / "Normal", own_set / "Val" / "normal")
    with pytest.raises(UsageError, match="Normal and normal: one folder twice"):
        open_set(own_set, "Val")


def test_a_split_that_does_not_exist_is_answered_with_those_that_do(made_set):
    with pytest.raises(UsageError, match=r"no split 'Test' .* it has Train, Val"):
        open_set(made_set, "Test")


def test_an_archive_unpacked_one_level_deeper_is_found_and_named(made_set, tmp_path):
    shutil.copytree(made_set, tmp_path / "outer" / "Infection Segmentation Data")
    with pytest.raises(UsageError, match=r"pass --data .*Infection Segmentation Data"):
        open_set(tmp_path / "outer", "Val")


def test_a_missing_mask_folder_is_named(own_set):
    shutil.rmtree(own_set / "Val" / "Normal" / "lung masks")
    with pytest.raises(UsageError, match="Normal has no folder lung masks"):
        open_set(own_set, "Val")


def test_an_absent_stratum_is_a_count_of_zero_and_asking_for_it_is_an_error(own_set):
    shutil.rmtree(own_set / "Val" / "Normal")
    images = open_set(own_set, "Val")
    assert images.counts["Normal"] == 0 and len(images.images) == 12
    with pytest.raises(UsageError, match="stratum normal has no image"):
        images.select(("Normal",))


def test_an_image_without_its_mask_and_a_mask_without_its_image_are_counted(own_set):
    images = open_set(own_set, "Val")
    mask_of(own_set, images).unlink()
    (own_set / images.images[1].key).unlink()
    excluded = open_set(own_set, "Val").excluded
    assert sorted({one.reason for one in excluded}) == ["mask_without_film", "missing_infection_mask"]
    assert images.images[0].key in {one.key for one in excluded}


def test_a_lung_only_set_can_be_listed_when_that_is_asked(own_set):
    for stratum in ("COVID-19", "Non-COVID", "Normal"):
        shutil.rmtree(own_set / "Val" / stratum / "infection masks")
    images = open_set(own_set, "Val", want_infection=False)
    assert len(images.images) == 16 and images.images[0].infection is None
    with pytest.raises(UsageError, match="no folder infection masks"):
        open_set(own_set, "Val")


def spoil(path, image):
    assert cv2.imwrite(str(path), image)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((50, 96), np.uint8), "mask_size"),
        (np.full((96, 96), 127, np.uint8), "mask_not_binary"),
        (np.full((96, 96), 1, np.uint8), "mask_not_binary"),
        (np.dstack([np.zeros((96, 96), np.uint8)] * 2 + [np.full((96, 96), 255, np.uint8)]), "mask_not_binary"),
        (None, "mask_unreadable"),
    ],
)
def test_a_mask_that_cannot_be_believed_is_refused_with_its_name(own_set, image, reason):
    images = open_set(own_set, "Val")
    path = mask_of(own_set, images)
    path.write_bytes(b"no image") if image is None else spoil(path, image)
    with pytest.raises(BadMask, match=path.name) as refused:
        read_truth(images, images.images[0], (96, 96))
    assert refused.value.reason == reason


def test_three_equal_channels_are_one_mask(own_set):
    images = open_set(own_set, "Val")
    before = read_truth(images, images.images[0]).infection
    spoil(mask_of(own_set, images), np.dstack([before * 255] * 3))
    assert (read_truth(images, images.images[0]).infection == before).all()


@pytest.fixture
def generic_set(made_set, tmp_path):
    source, root = open_set(made_set, "Val"), tmp_path / "generic"
    rows = ["film,stratum,split"]
    for folder in ("images", "masks", "lung masks"):
        (root / folder).mkdir(parents=True)
    for number, image in enumerate(source.images):
        name = f"{number:02d}.png"
        for folder, key in (("images", image.key), ("masks", image.infection), ("lung masks", image.lung)):
            shutil.copy(made_set / key, root / folder / name)
        rows.append(f"{name},{image.stratum.lower()},{'val' if number % 2 else 'train'}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def test_a_generic_set_is_listed_by_its_labels(generic_set):
    images = open_set(generic_set, "Val")
    assert images.name == "generic" and images.counts == {"COVID-19": 4, "Non-COVID": 2, "Normal": 2}
    assert read_truth(images, images.images[0]).lung is not None


def test_a_generic_set_without_splits_wants_all(generic_set):
    labels = generic_set / "labels.csv"
    labels.write_text("\n".join(line.rsplit(",", 1)[0] for line in labels.read_text().splitlines()) + "\n")
    assert len(open_set(generic_set, "all").images) == 16
    with pytest.raises(UsageError, match="pass --split all"):
        open_set(generic_set, "Val")


def test_a_generic_mask_of_0_and_1_is_binary_and_not_taken_for_empty(generic_set):
    images = open_set(generic_set, "Val")
    before = read_truth(images, images.images[0]).infection
    spoil(mask_of(generic_set, images), before)
    after = read_truth(images, images.images[0]).infection
    assert before.any() and (before == after).all()


def test_an_image_that_labels_do_not_find_is_counted(generic_set):
    with (generic_set / "labels.csv").open("a") as file:
        file.write("ghost.png,normal,val\n")
    assert [one.reason for one in open_set(generic_set, "Val").excluded] == ["missing_film"]


def test_an_image_listed_twice_or_a_short_line_is_named(generic_set):
    labels = generic_set / "labels.csv"
    lines = labels.read_text().splitlines()
    name = lines[1].split(",")[0]
    labels.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(UsageError, match=f"lists {name} twice"):
        open_set(generic_set, "Train")
    labels.write_text("\n".join([*lines, "other.png"]) + "\n")
    with pytest.raises(UsageError, match=f"line {len(lines) + 1}: wanted"):
        open_set(generic_set, "Train")


def test_labels_without_the_columns_are_answered_with_what_is_wanted(generic_set):
    (generic_set / "labels.csv").write_text("name,label\na.png,x\n")
    with pytest.raises(UsageError, match="wanted film, stratum"):
        open_set(generic_set, "Val")


def test_a_limit_keeps_every_stratum(made_set):
    assert open_set(made_set, "Val").select((), 8).counts == {"COVID-19": 4, "Non-COVID": 2, "Normal": 2}
