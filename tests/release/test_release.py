"""A run becomes a model folder that the pipeline takes, alone or behind another model's lungs."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("albumentations", reason="the train extra is not installed")

from covseg.errors import ModelRefused, UsageError
from covseg.model_folder.backends import open_backend
from covseg.model_folder.export import graph_of
from covseg.model_folder.folder import amend_config, open_folder
from covseg.records import RESEARCH_ONLY
from covseg.release.release import check_export, release, val_images
from covseg.stages.preprocess import prepare
from covseg.stages.segment import segment
from covseg.synthetic.phantom import make_phantom
from covseg.training.dataset import load_split
from covseg.training.job import TrainingJob
from covseg.training.lungs import fill_lungs
from covseg.training.recipe import load_recipe
from covseg.training.train import train
from flows.cli import app as cli

TINY = ("network.kind=plain-unet", "network.widths=[4, 8, 16]", "batch=4", "stop.epochs=1", "input.size=64")


def released(made_set: Path, tmp_path: Path, *settings: str, lung_model: str = "default") -> Path:
    train(load_recipe("unet-small", [*TINY, *settings]), TrainingJob(made_set, tmp_path / "run"))
    release(tmp_path / "run", tmp_path / "model", "tiny-1", lung_model)
    return tmp_path / "model"


def image() -> np.ndarray:
    return (make_phantom(3, 256, 256).pixels / 4095).astype(np.float32)


def answers(folder: Path | str, backend: str, pixels: np.ndarray):
    model = open_folder(folder)
    images = prepare(pixels, model.config.size, model.config.normalisation)[None]
    return segment(open_backend(model, backend), images)[0]


def test_a_run_that_draws_both_masks_stands_alone(made_set, tmp_path):
    folder = released(made_set, tmp_path, "data.targets=['lung', 'infection']", "stop.metric=val_lung_dice")
    config = open_folder(folder).config
    assert (config.network, config.normalisation, config.size) == ("plain-unet", "unit", 64)
    assert config.training["run"]["films"] == {"Train": 20, "Val": 8}
    assert "weights" not in config.training["recipe"]["network"]
    ours, exported = (answers(folder, name, image()) for name in ("torch", "onnx"))
    assert np.abs(ours.infection - exported.infection).max() < 1e-4


def test_an_export_that_is_not_the_model_is_refused(made_set, tmp_path, monkeypatch):
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path / "cache"))
    folder = open_folder(released(made_set, tmp_path, "data.targets=['lung', 'infection']"))
    assert check_export(folder, val_images(made_set)) < 1e-4
    model = onnx.load(graph_of(folder), load_external_data=False)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Abs"
    data = model.SerializeToString()
    graph_of(folder).write_bytes(data)
    amend_config(folder.path, lambda config: config.update(graph_sha256=hashlib.sha256(data).hexdigest()))
    with pytest.raises(ModelRefused, match="differs from torch"):
        check_export(open_folder(folder.path), val_images(made_set))


def test_the_export_is_checked_on_images_without_a_lung_mask(made_set, tmp_path):
    listed = [["film", "stratum", "split"]]
    for folder, source in (("images", "images"), ("masks", "infection masks")):
        (tmp_path / folder).mkdir()
        for path in sorted((made_set / "Val" / "COVID-19" / source).iterdir()):
            shutil.copy(path, tmp_path / folder)
            listed += [[path.name, "COVID-19", "Val"]] if folder == "images" else []
    (tmp_path / "labels.csv").write_text("\n".join(map(",".join, listed)))
    assert len(val_images(tmp_path)) == len(listed) - 1 > 0


def test_data_that_cannot_be_read_leaves_no_half_made_folder(made_set, tmp_path):
    train(load_recipe("unet-small", TINY), TrainingJob(made_set, tmp_path / "run"))
    release = ["models", "release", str(tmp_path / "run"), "-o", str(tmp_path / "model"), "--data"]
    assert cli.run([*release, str(tmp_path / "nowhere")]) == 2
    assert not (tmp_path / "model").exists()


def test_a_release_that_breaks_off_leaves_no_folder_and_an_earlier_one_as_it_was(made_set, tmp_path, monkeypatch):
    def missing(_):
        raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")

    folder = released(made_set, tmp_path, "data.targets=['lung', 'infection']")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("covseg.release.release.add_graph", missing)
    for name in ("model", "other"):
        assert cli.run(["models", "release", str(tmp_path / "run"), "-o", str(tmp_path / name), "--name", "x"]) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["model", "run"]


def test_a_release_its_card_and_the_check_of_its_data_answer_in_json(made_set, tmp_path, capsys):
    train(
        load_recipe("unet-small", [*TINY, "data.targets=['lung', 'infection']"]),
        TrainingJob(made_set, tmp_path / "run"),
    )
    folder = str(tmp_path / "model")
    capsys.readouterr()
    for words, name, wanted in (
        (["models", "release", str(tmp_path / "run"), "-o", folder, "--data", str(made_set)], "folder", folder),
        (["models", "card", folder], "path", f"{folder}/card.md"),
        (["models", "combine", folder, "-o", f"{folder}-2", "--name", "two"], "id", "two"),
        (["data", "check", str(made_set), "-o", str(tmp_path / "check")], "intended_use", RESEARCH_ONLY),
    ):
        assert cli.run([*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[name] == wanted


def test_an_input_filter_is_fitted_with_the_models_own_lungs_where_the_set_has_none(made_set, tmp_path):
    folder = shutil.copytree(open_folder().path, tmp_path / "model")
    own = without_lungs(made_set, tmp_path / "own")
    filtered = [str(folder), "--data", str(own), "--images", "20", "--members", "4"]
    assert cli.run(["models", "fit-filter", *filtered]) == 0
    assert open_folder(folder).config.input_filter is not None
    images = load_split(own, "Val", targets=())
    assert not images.lungs.any()
    drawn = fill_lungs(images, open_folder()).lungs
    assert drawn.any(axis=(1, 2)).all()


def test_true_lungs_stay_where_they_are(made_set):
    images = load_split(made_set, "Val")
    assert fill_lungs(images, open_folder()) is images


def without_lungs(made_set: Path, root: Path) -> Path:
    """Lay a made set out as a site would hold its own: images, infection masks and a table."""
    lines = ["film,stratum,split"]
    for image_path in sorted(made_set.glob("*/*/images/*.png")):
        split, stratum = image_path.parts[-4:-2]
        name = f"{split}-{stratum}-{image_path.name}"
        for folder, source in (("images", image_path), ("masks", image_path.parents[1] / "infection masks")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(source if source.is_file() else source / image_path.name, root / folder / name)
        lines.append(f"{name},{stratum},{split}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def test_a_run_that_draws_infection_gets_the_other_models_lungs(made_set, tmp_path):
    folder = released(made_set, tmp_path, f"input.size={open_folder().config.size}")
    ours, default = answers(folder, "torch", image()), answers("default", "torch", image())
    assert open_folder(folder).config.network == "cascade"
    assert np.abs(ours.lung - default.lung).max() < 1e-3
    assert ours.infection.shape == default.infection.shape


def test_a_network_that_sees_the_lung_is_released_with_it(made_set, tmp_path):
    settings = (
        "network.kind=unet",
        "network.encoder=resnet18",
        "network.widths=[]",
        "input.channels=4",
        "lung_constraint=true",
    )
    folder = released(made_set, tmp_path, *settings)
    args = open_folder(folder).config.network_args
    assert args["sees_lung"] and args["constrained"]
    ours, exported = (answers(folder, name, image()) for name in ("torch", "onnx"))
    assert np.abs(ours.infection - exported.infection).max() < 1e-3
    assert ours.infection[ours.lung < 0.4].max() < 1e-6
    with pytest.raises(
        UsageError, match=r"learnt from lungs predicted by fast-3.* gives lungs predicted by benchmark-1"
    ):
        release(tmp_path / "run", tmp_path / "other", "tiny-1", "benchmark")


def test_a_lung_run_draws_no_infection(made_set, tmp_path):
    answer = answers(
        released(made_set, tmp_path, "data.targets=['lung']", "stop.metric=val_lung_dice"), "torch", image()
    )
    assert answer.infection.max() < 1e-6
    assert answer.presence < 1e-6


def test_a_model_says_what_is_known_of_its_images_and_no_more(made_set, tmp_path):
    config = open_folder(released(made_set, tmp_path, "data.targets=['lung', 'infection']")).config
    assert (
        config.training["data"]
        == "own set: COVID-19, Non-COVID, Normal; 20 images of Train; epoch chosen on Val (8 images)"
    )
    assert "(not recorded)" in config.licence and config.citation == "not recorded"
    told = release(tmp_path / "run", tmp_path / "model", "tiny-1", licence="CC0", citation="us, 2026")
    assert "(CC0)" in told.licence and told.citation == "us, 2026"


def test_a_run_is_not_overwritten_by_its_own_release(made_set, tmp_path):
    released(made_set, tmp_path)
    before = (tmp_path / "run" / "weights.safetensors").read_bytes()
    with pytest.raises(UsageError, match="is the run itself"):
        release(tmp_path / "run", tmp_path / "run" / ".." / "run", "x")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == before


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one epoch"):
        release(tmp_path, tmp_path / "model", "none")
