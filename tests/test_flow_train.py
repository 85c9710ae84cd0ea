"""The flow `train` on a real Prefect server: from a labelled set to a candidate in a registry."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("albumentations", reason="the train extra is not installed")

from covseg.errors import UsageError
from covseg.settings.train import TrainSettings
from covseg.synthetic.phantom.writer import write_dataset

pytestmark = pytest.mark.flow

TINY = [
    "network.kind=plain-unet", "network.widths=[4, 8, 16]", "input.size=64", "batch=4", "stop.epochs=2",
    "data.targets=['lung', 'infection']",
]  # fmt: skip


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_dataset(root, {"Train": 24, "Val": 24}, size=96)
    return root


def run_flow(**parameters: Any) -> dict[str, Any]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.train import train

    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
        found: dict[str, Any] = train(recipe="unet-small", settings=TINY, **parameters)
    return found


def kept() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the newest flow run's task states by name, and all artifacts by key."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        newest = client.read_flow_runs(limit=1, sort="EXPECTED_START_TIME_DESC")[0]
        tasks = {
            run.name.rsplit("-", 1)[0]: run.state for run in client.read_task_runs() if run.flow_run_id == newest.id
        }
        return {newest.name: newest.state, **tasks}, {one.key: one.data for one in client.read_artifacts()}


def test_the_flow_has_the_parameters_of_the_command_and_its_own_flat() -> None:
    from flows.train import TrainFlow, train

    parameters = inspect.signature(train.fn).parameters
    assert set(parameters) == set(TrainFlow.model_fields)
    assert set(TrainSettings.model_fields) < set(parameters)
    assert train.parameters.properties["limit"]["title"]
    assert set(train.parameters.required) == {"recipe", "data", "out"}


def test_overriding_one_parameter_of_the_deployment_keeps_the_others() -> None:
    from flows.train import train
    from tests.test_deployment import deployments

    given = deployments()["recipe"]["parameters"]
    filled = train.validate_parameters({**given, "data": "data", "out": "out", "workers": 2})
    assert (filled["workers"], filled["recipe"], filled["resume"]) == (2, "fast", True)
    assert filled["specificity"] == 0.98


def test_only_what_may_mend_is_retried() -> None:
    from flows.train import calibrate_model, check_data, evaluate_model, register_model, train_recipe

    assert [one.retries for one in (train_recipe, calibrate_model, evaluate_model)] == [0, 0, 0]
    assert [one.retries for one in (check_data, register_model)] == [2, 2]
    assert check_data.retry_condition_fn is not None


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_set_becomes_a_candidate(labelled: Path, tmp_path: Path, prefect_server: Path) -> None:
    from covseg.registry import open_model
    from covseg.registry.listing import list_models
    from covseg.registry.registry import open_registry

    out, registry = tmp_path / "run", tmp_path / "registry"
    found = run_flow(data=str(labelled), out=str(out), registry=str(registry), name="tiny")
    states, artifacts = kept()
    assert set(states) == {
        "train unet-small " + " ".join(TINY)[: 120 - 17],
        "check",
        "train",
        "calibrate",
        "evaluate",
        "register",
    }
    assert all(state.is_completed() for state in states.values())
    assert found["reference"] == f"{registry}/tiny@v1"
    listed = list_models(open_registry(str(registry)))
    assert [(one.name, one.numbers, one.aliases) for one in listed] == [("tiny", (1,), {"candidate": 1})]
    assert open_model(found["reference"]).config.id == "tiny"
    assert {"train-data", "train-progress", "train-epochs", "train-evaluation", "train-page", "train-curves"} <= set(
        artifacts
    )
    assert f"file://{out}/evaluation/evaluation.html" in artifacts["train-page"]
    assert (out / "evaluation" / "evaluation.html").is_file() and (out / "calibration" / "calibration.html").is_file()
    assert_no_names(prefect_server, labelled)
    again = run_flow(data=str(labelled), out=str(out), registry=str(registry), name="tiny", resume=True)
    assert again["reference"] == found["reference"], "the same content is the same version"


def assert_no_names(home: Path, labelled: Path) -> None:
    """Grep everything that Prefect keeps on disk for the name of an image."""
    names = {path.name.encode() for path in labelled.rglob("*.png")}
    for path in home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [name for name in names if name in content], path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_set_that_is_not_whole_is_refused_without_a_name(
    labelled: Path, tmp_path: Path, prefect_server: Path
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(labelled, broken)
    next((broken / "Train" / "Normal" / "lung masks").iterdir()).unlink()
    with pytest.raises(UsageError, match=r"Train is not whole \(missing_lung_mask 1\)"):
        run_flow(data=str(broken), out=str(tmp_path / "run"))
    states, _ = kept()
    assert states["check"].is_failed() and "train" not in states
    assert_no_names(prefect_server, broken)
