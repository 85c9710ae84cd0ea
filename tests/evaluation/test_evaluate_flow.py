"""The flow `evaluate` is the command under Prefect."""

import inspect
import os

import pytest

from covseg.settings.evaluate import EvaluateSettings


def test_the_flow_takes_the_commands_fields_flat():
    from flows.evaluate import evaluate

    parameters = inspect.signature(evaluate.fn).parameters
    assert set(parameters) == set(EvaluateSettings.model_fields)
    assert parameters["split"].default == "Val" and parameters["model"].default == "default"
    assert evaluate.parameters.properties["limit"]["title"]


@pytest.mark.flow
@pytest.mark.timeout(600)
def test_the_flow_judges_and_leaves_the_three_files(made_set, tmp_path, prefect_server):
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.evaluate import evaluate

    given = {"model": "default", "data": str(made_set), "output": str(tmp_path / "out")}
    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
        result = evaluate(**given, limit=8, backend="torch", draws=100)
        with get_client(sync_client=True) as client:
            names = {run.name: run.state for run in client.read_flow_runs()}
            artifacts = {one.key: one.data for one in client.read_artifacts()}
    assert names["evaluate default on Val"].is_completed()
    assert "negative specificity" in artifacts["evaluate-table"] and "evaluation.html" in artifacts["evaluate-page"]
    assert "covid_" not in artifacts["evaluate-table"]  # no names of images in the Prefect database
    assert result["headline"]["covid_dice"]["n"] == 4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.json", "cases.parquet", "evaluation.html"}
