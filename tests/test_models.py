"""Model folders are trusted only when every part agrees."""

import json
import shutil

import pytest

from covseg.errors import ModelRefused
from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import CONFIG, SHIPPED, WEIGHTS, open_folder
from covseg.model_folder.load import load


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(SHIPPED["default"], tmp_path / "model")


def rewrite(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def test_the_default_model_is_small_and_says_where_it_comes_from():
    config = open_folder().config
    assert (SHIPPED["default"] / WEIGHTS).stat().st_size < 20_000_000
    assert "10.1016/j.compbiomed.2021.105002" in config.citation
    assert "not for diagnosis" in config.intended_use
    assert config.licence != "mit"


def test_weights_that_were_cut_short_are_refused(copy):
    path = copy / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelRefused, match="sha256"):
        open_folder(copy)


def test_an_unknown_field_in_the_card_is_named(copy):
    rewrite(copy, treshold=0.4)
    with pytest.raises(ModelRefused, match="treshold"):
        open_folder(copy)


def test_weights_of_another_architecture_are_refused(copy):
    rewrite(copy, network="plain-unet", network_args={"widths": [4, 8]})
    with pytest.raises(ModelRefused, match="does not fit"):
        load(open_folder(copy))


def test_an_unknown_network_and_an_unknown_backend_are_named(copy):
    rewrite(copy, network="resnet-9000")
    with pytest.raises(ModelRefused, match="resnet-9000"):
        load(open_folder(copy))
    with pytest.raises(ModelRefused, match="onnx, torch"):
        open_backend(open_folder(), "tensorrt")


def test_an_empty_folder_says_what_was_wanted(tmp_path):
    with pytest.raises(ModelRefused, match=r"covseg\.json"):
        open_folder(tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_is_small_gated_calibrated_and_has_its_card(name):
    folder = open_folder(name)
    assert folder.weights.stat().st_size < 20_000_000
    assert folder.config.input_filter is not None
    headline = folder.config.metrics["headline"]
    assert headline.get("normal_specificity", headline["negative_specificity"])["value"] >= 0.98
    page = (folder.path / "card.md").read_text()
    assert "never a diagnosis" in page
    assert folder.config.weights_sha256 in page
