"""A model's graph: the numbers of torch's own export, none of the weights, and nothing that it must not open."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from covseg.errors import ModelRefused
from covseg.model_folder.backends import OnnxBackend
from covseg.model_folder.export import add_graph, build_graph, graph_of
from covseg.model_folder.folder import CONFIG, GRAPH, SHIPPED, WEIGHTS, ModelFolder, amend_config, open_folder
from covseg.registry.versions import files_of
from covseg.stages.preprocess import prepare
from covseg.synthetic.phantom import make_phantom

HIDDEN = "torch", "torchvision", "timm", "onnx", "onnxscript", "onnx_ir", "scipy", "matplotlib", "albumentations"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(SHIPPED["default"], tmp_path / "model")


def without_graph(folder: Path) -> Path:
    (folder / GRAPH).unlink()
    amend_config(folder, lambda config: config.pop("graph_sha256"))
    return folder


def rewritten(folder: Path, change: Callable[..., object]) -> Path:
    """Change a graph, and name the changed one in the card, as whoever can write both would."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(folder / GRAPH, load_external_data=False)
    change(model)
    (folder / GRAPH).write_bytes(model.SerializeToString())
    digest = hashlib.sha256((folder / GRAPH).read_bytes()).hexdigest()
    amend_config(folder, lambda config: config.update(graph_sha256=digest))
    return folder


def exported_by_torch(folder: ModelFolder, path: Path) -> onnxruntime.InferenceSession:
    """Export as torch does by itself: weights of its own, optimised by its own passes."""
    torch = pytest.importorskip("torch")
    from covseg.model_folder.load import Answer, load

    size = folder.config.size
    torch.onnx.export(
        Answer(load(folder)).eval(),
        (torch.zeros(2, 1, size, size),),
        dynamo=True,
        input_names=["images"],
        dynamic_shapes=({0: torch.export.Dim("images", min=1, max=1024)},),
        verbose=False,
    ).save(str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ["default", pytest.param("benchmark", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_the_graph_gives_the_very_bits_of_torchs_own_export(name, tmp_path):
    folder = open_folder(name)
    wanted, backend = exported_by_torch(folder, tmp_path / "own.onnx"), OnnxBackend(folder)
    made = [(make_phantom(seed, 256, 256).pixels / 4095).astype(np.float32) for seed in range(4)]
    images = np.stack([prepare(one, folder.config.size, folder.config.normalisation) for one in made])
    for batch in (images[:1], images):
        theirs = wanted.run(None, {"images": batch[:, None]})
        assert [one.tobytes() for one in backend.run(batch)] == [one.tobytes() for one in theirs]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_graph_is_the_one_that_its_folder_gives(name):
    pytest.importorskip("onnxscript")
    folder = open_folder(name)
    assert build_graph(folder) == (folder.path / GRAPH).read_bytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("halves", [False, True])
def test_a_folder_gives_one_graph_whose_bits_are_torchs(tmp_path, halves):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from covseg.model_folder.write import write_model
    from covseg.networks.table import build

    arguments = {"masks": 2, "widths": (4, 8, 16)}
    torch.manual_seed(1)
    state = build("attention-unet", arguments).state_dict()
    if halves:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    config = {"network": "attention-unet", "network_args": arguments, "size": 64}
    write_model(tmp_path / "model", state, id="tiny", licence="", citation="", **config)
    add_graph(tmp_path / "model")
    folder = open_folder(tmp_path / "model")
    assert build_graph(folder) == (folder.path / GRAPH).read_bytes()
    images = np.random.default_rng(1).normal(size=(4, 64, 64)).astype(np.float32)
    wanted = exported_by_torch(folder, tmp_path / "own.onnx").run(None, {"images": images[:, None]})
    assert [one.tobytes() for one in OnnxBackend(folder).run(images)] == [one.tobytes() for one in wanted]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_graph_holds_no_weights_and_nothing_of_the_machine(name):
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(SHIPPED[name] / GRAPH)
    data = (SHIPPED[name] / GRAPH).read_bytes()
    model = onnx.load_from_string(data)
    assert [one.domain for one in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}
    places = {one.value for tensor in model.graph.initializer for one in tensor.external_data if one.key == "location"}
    assert places == {WEIGHTS}
    assert sum(len(tensor.raw_data) for tensor in model.graph.initializer) < 5_000  # places on the grid, of a lung view
    assert len(data) < 300_000
    assert not [word for word in (b".py", b"torch", b"/work", b"/tmp", b"pkg.") if word in data]


def test_a_graph_is_found_in_a_read_only_folder_behind_a_link(copy, tmp_path):
    (tmp_path / "store").mkdir()
    shutil.move(copy / WEIGHTS, tmp_path / "store" / "blob")
    (copy / WEIGHTS).symlink_to(tmp_path / "store" / "blob")
    for path in (copy, *copy.iterdir()):
        path.chmod(path.stat().st_mode & ~0o222)
    folder = open_folder(copy)
    images = np.zeros((1, folder.config.size, folder.config.size), np.float32)
    assert OnnxBackend(folder).run(images)[0].shape == (1, 2, *images.shape[1:])


def test_a_folder_without_a_graph_gets_the_same_one_in_the_cache(copy, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path / "cache"))
    before = (copy / GRAPH).read_bytes()
    folder = open_folder(without_graph(copy))
    path = graph_of(folder)
    assert path.parent == tmp_path / "cache"
    assert path.read_bytes() == before
    OnnxBackend(folder)


def test_a_folder_without_a_graph_says_what_to_install_where_torch_is_missing(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path / "cache"))
    for name in HIDDEN:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelRefused, match=r"pip install 'covseg\[train\]'"):
        OnnxBackend(open_folder(without_graph(copy)))
    assert not (tmp_path / "cache").exists()


def test_the_core_scores_without_torch(tmp_path):
    code = f"""
import sys
sys.modules.update(dict.fromkeys({HIDDEN}))
from flows.cli.app import run
assert run(["phantom", "2", {str(tmp_path / "made")!r}, "--size", "256"]) == 0
assert run(["predict", {str(tmp_path / "made" / "images")!r}, "-o", {str(tmp_path / "out")!r}]) == 0
import covseg.verify.check
"""
    environment = os.environ | {"COVSEG_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def test_a_graph_that_the_card_does_not_name_is_refused(copy):
    data = bytearray((copy / GRAPH).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / GRAPH).write_bytes(data)
    with pytest.raises(ModelRefused, match=r"graph\.onnx has sha256"):
        open_folder(copy)
    (copy / GRAPH).unlink()
    with pytest.raises(ModelRefused, match=r"no graph\.onnx"):
        open_folder(copy)


@pytest.mark.parametrize("place", ["../other.bin", "other.bin", "gate.safetensors", "{folder}/../other.bin"])
def test_a_graph_opens_no_file_but_the_weights(copy, place, monkeypatch):
    (copy.parent / "other.bin").write_bytes((copy / WEIGHTS).read_bytes())
    monkeypatch.chdir(copy.parent)

    def elsewhere(model):
        tensor = next(one for one in model.graph.initializer if one.external_data)
        tensor.external_data[0].value = place.format(folder=copy)

    folder = open_folder(rewritten(copy, elsewhere))
    with pytest.raises(ModelRefused, match="cannot be run"):
        OnnxBackend(folder)


def test_a_graph_inside_a_graph_opens_no_file_of_the_working_folder(copy, monkeypatch):
    helper = pytest.importorskip("onnx").helper
    (copy.parent / "other.bin").write_bytes(bytes(4096))
    monkeypatch.chdir(copy.parent)

    def nest(model):
        hidden = next(one for one in model.graph.initializer if one.external_data)
        inner = type(hidden)(name="hidden", data_type=1, dims=[1], data_location=1)
        for key, value in (("location", "other.bin"), ("offset", "0"), ("length", "4")):
            inner.external_data.add(key=key, value=value)
        output = helper.make_tensor_value_info("given", 1, [1])
        branch = helper.make_graph([helper.make_node("Identity", ["hidden"], ["given"])], "b", [], [output], [inner])
        model.graph.initializer.append(helper.make_tensor("always", 9, [], [True]))
        model.graph.node.append(helper.make_node("If", ["always"], ["seen"], then_branch=branch, else_branch=branch))

    folder = open_folder(rewritten(copy, nest))
    with pytest.raises(ModelRefused, match="cannot be run"):
        OnnxBackend(folder)


def test_a_graph_of_another_shape_or_of_unknown_operators_is_refused(copy):
    def rename(model):
        model.graph.input[0].name = model.graph.node[-1].input[0]

    def foreign(model):
        model.graph.node[-1].domain = "elsewhere"
        model.opset_import.add(domain="elsewhere", version=1)

    for change in (rename, foreign):
        shutil.copy(SHIPPED["default"] / GRAPH, copy / GRAPH)
        folder = open_folder(rewritten(copy, change))
        with pytest.raises(ModelRefused, match=r"cannot be run|takes and gives"):
            OnnxBackend(folder)


def test_a_version_holds_the_graph_only_where_the_card_names_it(copy):
    assert files_of(open_folder(copy))[GRAPH] == (copy / GRAPH).read_bytes()
    amend_config(copy, lambda config: config.pop("graph_sha256"))
    digest = hashlib.sha256((copy / CONFIG).read_bytes()).hexdigest()
    page = (copy / "card.md").read_text()
    old = hashlib.sha256((SHIPPED["default"] / CONFIG).read_bytes()).hexdigest()
    (copy / "card.md").write_text(page.replace(old, digest))
    with pytest.raises(ModelRefused, match="may be of other weights"):
        files_of(open_folder(copy))
