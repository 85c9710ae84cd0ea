"""Backend openvino: right answers, and no precision without a passed proof."""

import hashlib
import json
import shutil
import sys

import numpy as np
import pytest

from covseg.errors import EnvironmentFailed, ModelRefused, UsageError
from covseg.model_folder import precision
from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import open_folder
from covseg.model_folder.precision import Agreement, Loss, Proof, read_proofs, write_proofs
from covseg.registry import open_model
from covseg.stages.preprocess import prepare
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import write_dataset


@pytest.fixture
def folder(tmp_path, model_folder):
    path = tmp_path / "model"
    shutil.copytree(model_folder.path, path, ignore=shutil.ignore_patterns(precision.PROOFS, precision.INT8))
    return open_folder(path)


@pytest.fixture(scope="module")
def images(model_folder):
    config = model_folder.config
    grid = (config.size, config.normalisation, config.source_side)
    return np.stack(
        [prepare(make_phantom(seed, 300, 300).pixels.astype(np.float32) / 4095, *grid) for seed in range(5)]
    )


def proof(folder, name="bfloat16", dice=0.0, specificity=0.0, **changes):
    def loss(difference):
        return Loss(reference=0.7, value=0.7 + difference, difference=difference, low=difference, high=difference)

    config = folder.config
    agreement = Agreement(
        condition="as it is", n=9, n_infected=4, n_clear=5, mask_dice=1, mask_dice_least=1, refused_otherwise=0,
        dice=loss(dice), specificity=loss(specificity),
    )  # fmt: skip
    facts = {
        "precision": name, "runtime": "openvino 0", "edits": 2, "weights_sha256": config.weights_sha256,
        "graph_sha256": config.graph_sha256, "thresholds": config.thresholds, "data": "a made set",
        "agreements": (agreement,),
    }  # fmt: skip
    return Proof(**facts | changes)


def unproved(folder, name="float32"):
    pytest.importorskip("openvino")
    from covseg.model_folder.openvino_backend import OpenVinoBackend, runs_here

    if not runs_here(name):
        pytest.skip(f"this processor has no {name}")
    return OpenVinoBackend(folder, name, proved=False)


def test_openvino_in_float32_answers_as_onnx_runtime_does_in_any_batch(folder, images):
    backend, reference = unproved(folder), open_backend(folder)
    for first in range(4):
        for found, wanted in zip(backend.run(images[first:]), reference.run(images[first:]), strict=True):
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_in_bfloat16_the_lungs_that_decide_where_the_network_looks_stay_float32(folder, images):
    if folder.config.network_args.get("infection", {}).get("network") != "lung-view":
        pytest.skip("the default model does not look at the lungs alone")
    (found, presence, _), (wanted, wanted_presence, _) = (
        backend.run(images) for backend in (unproved(folder, "bfloat16"), open_backend(folder))
    )
    np.testing.assert_allclose(found[:, 0], wanted[:, 0], atol=1e-4)
    assert 0 < np.abs(found[:, 1] - wanted[:, 1]).mean() < 0.02
    np.testing.assert_allclose(presence, wanted_presence, atol=0.25)


def test_int8_takes_convolutions_and_none_that_reads_the_image(folder):
    pytest.importorskip("openvino")
    from covseg.model_folder.openvino_graph import CONVOLUTIONS, but_for_int8, read_graph

    model = read_graph(folder)
    left = but_for_int8(model)
    convolutions = [node for node in model.get_ops() if node.get_type_name() in CONVOLUTIONS]
    read_images = [node for node in convolutions if node.get_friendly_name() in left]
    assert 1 <= len(read_images) <= 2 < len(convolutions)
    assert all(node.input(0).get_partial_shape()[1].get_length() == 1 for node in read_images)
    assert not {"Interpolate", "VariadicSplit"} & {node.get_type_name() for node in model.get_ops()}


def test_the_name_of_int8_says_which_calibration_it_is():
    pytest.importorskip("openvino")
    from covseg.model_folder import openvino_backend as backends

    folder = open_model("default")
    data = (folder.path / precision.INT8).read_bytes()
    if not backends.runs_here("int8"):
        pytest.skip("this processor has no VNNI")
    name = backends.OpenVinoBackend(folder, "int8").name
    assert name == f"openvino-{backends.version()}-cpu-int8-{hashlib.sha256(data).hexdigest()[:8]}"


def test_int8_wants_a_processor_that_adds_products_of_bytes_exactly(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    from covseg.model_folder import openvino_backend

    for flags, wanted in (("avx2 avx512f", False), ("avx2 avx512_vnni", True)):
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
        monkeypatch.setattr(openvino_backend, "CPU", tmp_path / "cpuinfo")
        assert openvino_backend.runs_here("int8") is wanted


def test_auto_takes_the_cheapest_precision_that_passed(folder, monkeypatch):
    pytest.importorskip("openvino")
    from covseg.model_folder import openvino_backend

    monkeypatch.setattr(openvino_backend, "runs_here", lambda _: True)
    write_proofs(folder.path, (proof(folder), proof(folder, "int8", dice=-0.01)))
    assert open_backend(folder, "auto").name.endswith("-cpu-bfloat16")
    (folder.path / precision.INT8).write_bytes(b"an int8 model")
    digest = hashlib.sha256(b"an int8 model").hexdigest()
    write_proofs(folder.path, (proof(folder, "int8", file_sha256=digest),))
    assert open_backend(folder, "auto").name.endswith(f"-cpu-int8-{digest[:8]}")


def test_a_precision_without_a_proof_is_refused_and_told_how_to_get_one(folder):
    pytest.importorskip("openvino")
    with pytest.raises(ModelRefused, match="covseg models prove"):
        open_backend(folder, "openvino", "bfloat16")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dice": -0.0021}, "loses too much"),
        ({"specificity": -0.011}, "loses too much"),
        ({"weights_sha256": "0" * 64}, "of another model"),
        ({"thresholds": {"infection": 0.9}}, "of another model"),
        ({"edits": 0}, "of another model"),
    ],
)
def test_a_proof_that_lost_too_much_or_is_of_another_model_is_refused(folder, changes, words):
    pytest.importorskip("openvino")
    write_proofs(folder.path, (proof(folder, **changes),))
    with pytest.raises(ModelRefused, match=words):
        open_backend(folder, "openvino", "bfloat16")


def test_an_int8_model_that_is_not_the_proved_one_is_refused(folder):
    pytest.importorskip("openvino")
    (folder.path / precision.INT8).write_bytes(b"another")
    write_proofs(folder.path, (proof(folder, "int8", file_sha256="0" * 64),))
    with pytest.raises(ModelRefused, match="not the one that was proved"):
        open_backend(folder, "openvino", "int8")


def test_a_proof_that_cannot_be_believed_is_named(folder):
    (folder.path / precision.PROOFS).write_text('{"proofs": [{}]}')
    with pytest.raises(ModelRefused, match=precision.PROOFS):
        read_proofs(folder.path)


def test_auto_is_onnx_until_bfloat16_is_proved_and_can_run_here(folder, monkeypatch):
    pytest.importorskip("openvino")
    from covseg.model_folder import openvino_backend

    assert open_backend(folder, "auto").name.startswith("onnxruntime-")
    write_proofs(folder.path, (proof(folder),))
    monkeypatch.setattr(openvino_backend, "runs_here", lambda _: False)
    assert open_backend(folder, "auto").name.startswith("onnxruntime-")
    with pytest.raises(EnvironmentFailed, match="no instructions for bfloat16"):
        open_backend(folder, "openvino", "bfloat16")
    monkeypatch.setattr(openvino_backend, "runs_here", lambda _: True)
    assert open_backend(folder, "auto").name.endswith("-cpu-bfloat16")


def test_without_openvino_its_extra_is_named_and_auto_is_onnx(folder, monkeypatch):
    write_proofs(folder.path, (proof(folder),))
    for name in [name for name in sys.modules if name.startswith("covseg.model_folder.openvino")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert open_backend(folder, "auto").name.startswith("onnxruntime-")
    with pytest.raises(UsageError, match=r"covseg\[openvino\]"):
        open_backend(folder, "openvino")


@pytest.mark.parametrize(("name", "wanted"), [("onnx", "float32"), ("auto", "chooses by itself"), ("none", "unknown")])
def test_a_backend_that_has_no_such_precision_says_so(folder, name, wanted):
    with pytest.raises(ModelRefused, match=wanted):
        open_backend(folder, name, "bfloat16")


def test_prove_measures_on_val_and_what_passes_can_be_used(folder, tmp_path):
    unproved(folder)
    from covseg.release.prove import prove

    write_dataset(tmp_path / "made", {"Train": 2, "Val": 4}, size=96)
    config = json.loads((folder.path / "covseg.json").read_text()) | {"gate": None}
    (folder.path / "covseg.json").write_text(json.dumps(config))
    (made,) = prove(folder.path, tmp_path / "made", ("float32",))
    assert made.passed and made.precision == "float32"
    assert [one.condition for one in made.agreements] == ["as it is", "jpeg75", "gamma0.7", "noise0.03"]
    assert made.agreements[0].mask_dice == pytest.approx(1, abs=1e-3)
    assert read_proofs(folder.path) == (made,)
    assert open_backend(open_folder(folder.path), "openvino").name.endswith("-cpu-float32")
