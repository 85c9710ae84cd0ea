"""Backend torch: a GPU that is not there, memory that runs out, a compiler that errs, bfloat16 with a proof."""

import logging

import numpy as np
import pytest

from covseg.errors import EnvironmentFailed, ModelRefused
from covseg.model_folder.backends import open_backend
from flows.cli import app as cli

torch = pytest.importorskip("torch")

from covseg.model_folder.torch_backend import TorchBackend

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture(scope="module")
def backend(model_folder):
    return TorchBackend(model_folder, "cpu")


@pytest.fixture(scope="module")
def images(model_folder):
    side = model_folder.config.size
    return np.random.default_rng(0).standard_normal((5, side, side)).astype(np.float32)


@NO_GPU
def test_a_gpu_that_is_asked_for_and_absent_is_an_error_before_the_first_image(model_folder, tmp_path, capsys):
    with pytest.raises(EnvironmentFailed, match="sees none"):
        open_backend(model_folder, "cuda")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"never read")
    assert cli.run(["predict", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--backend", "cuda"]) == 4
    assert "a GPU was asked for" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_batch_that_memory_does_not_hold_is_run_in_halves_and_so_are_those_after_it(
    model_folder, images, monkeypatch, caplog
):
    backend = TorchBackend(model_folder, "cpu")
    run, sizes = backend._run, []

    def small(part):
        sizes.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("made")
        return run(part)

    wanted = [run(image[None]) for image in images]
    monkeypatch.setattr(backend, "_run", small)
    with caplog.at_level(logging.WARNING):
        found = backend.run(images)
        backend.run(images)
    assert sizes == [5, 3, 2, 1, 2, 2, 2, 1]
    assert [record.getMessage().split(": ")[-1] for record in caplog.records] == ["3 from now on", "2 from now on"]
    for place, expected in enumerate(wanted):
        for answer, one in zip(found, expected, strict=True):
            np.testing.assert_allclose(answer[place], one[0], atol=1e-5)


def test_one_image_that_memory_does_not_hold_ends_the_run(model_folder, images, monkeypatch):
    backend = TorchBackend(model_folder, "cpu")

    def none(_):
        raise torch.OutOfMemoryError("made")

    monkeypatch.setattr(backend, "_run", none)
    with pytest.raises(EnvironmentFailed, match="for one image"):
        backend.run(images[:2])


def off(network):
    return lambda batch: [answer + 0.01 for answer in network(batch)]


def broken(_):
    def forward(_):
        raise RuntimeError("no compiler here")

    return forward


@pytest.mark.parametrize(
    ("compiler", "kind"), [(lambda network: lambda x: network(x), "fp32-compiled"), (off, "fp32"), (broken, "fp32")]
)
def test_a_compiled_network_is_used_only_where_it_answers_as_the_network_does(model_folder, images, compiler, kind):
    compiled = TorchBackend(model_folder, "cpu", compiler=compiler)
    assert compiled.name.endswith(f"-cpu-{kind}")
    assert np.isfinite(compiled.run(images[:1])[0]).all()


def test_bfloat16_wants_a_proof_and_keeps_where_the_network_looks(model_folder, backend, images):
    with pytest.raises(ModelRefused, match="loses too much"):
        TorchBackend(model_folder, "cpu", "bfloat16")
    rounded = TorchBackend(model_folder, "cpu", "bfloat16", proved=False)
    assert rounded.name.endswith("-cpu-bf16")
    (masks, presence, features), (exact, sure, known) = rounded.run(images), backend.run(images)
    assert masks.dtype == presence.dtype == features.dtype == np.float32
    np.testing.assert_allclose(masks[:, 0], exact[:, 0], atol=1e-5)  # lungs decide where the default model looks
    np.testing.assert_allclose(features, known, atol=1e-4)
    np.testing.assert_allclose(presence, sure, atol=0.25)
    assert not np.array_equal(masks[:, 1], exact[:, 1])
