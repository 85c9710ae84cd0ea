"""The flow `search`: parameters, deployment, and a search on a real Prefect server."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

pytest.importorskip("albumentations", reason="the train extra is not installed")
pytest.importorskip("optuna", reason="the search extra is not installed")

from covseg.settings.search import SearchSettings
from covseg.synthetic.phantom.writer import write_dataset
from tests.test_flow_train import kept

OF_RAY = r"ignore::DeprecationWarning:ray\.data"
pytestmark = [pytest.mark.flow, pytest.mark.filterwarnings(OF_RAY)]
SPACE = """title = "a test"
recipe = "unet-small"
settings = ["network.widths=[4, 8]", "input.size=64", "stop.epochs=1", "batch=4"]
order = "grid"
[[parameter]]
kind = "choice"
field = "optimiser.lr"
choices = [1e-3, 1e-2]
"""


def test_the_flow_and_the_command_have_the_same_parameters() -> None:
    from flows.cli.search import SearchConfig
    from flows.search import search

    parameters = set(inspect.signature(search.fn).parameters)
    assert parameters == set(SearchSettings.model_fields)
    assert set(SearchConfig.model_fields) == parameters | {"explain", "json_"}
    assert set(search.parameters.required) == {"space", "data", "out"}


def test_overriding_one_parameter_of_the_deployment_keeps_the_others() -> None:
    from flows.search import search
    from tests.test_deployment import deployments

    given = deployments()["on-demand"]["parameters"]
    filled = search.validate_parameters({**given, "data": "data", "out": "out", "trials": 2})
    assert (filled["trials"], filled["space"], filled["pruning"]) == (2, "fast-space", True)


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_leaves_counts_the_best_value_and_a_link(
    prefect_server: Path, ray_cluster: str, tmp_path: Path
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.search import search

    write_dataset(tmp_path / "data", {"Train": 12, "Val": 12}, size=64)
    (tmp_path / "space.toml").write_text(SPACE)
    out = tmp_path / "out"
    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
        found = search(space=str(tmp_path / "space.toml"), data=str(tmp_path / "data"), out=str(out))
    states, artifacts = kept()
    assert found["states"] == {"complete": 2}
    assert states["search"].is_completed()
    assert "complete 2" in artifacts["search-result"] and "Test was not used" in artifacts["search-result"]
    assert f"file://{out}/search.html" in artifacts["search-page"]
    assert (out / "search.html").is_file()
