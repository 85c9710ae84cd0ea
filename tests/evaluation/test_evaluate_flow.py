"""The flow `evaluate` is the command under Prefect."""

import inspect

import pytest

from flows.commands.evaluate import EvaluateRun


def test_the_flow_takes_the_commands_fields_flat():
    from flows.evaluate import evaluate

    parameters = inspect.signature(evaluate.fn).parameters
    assert set(parameters) == set(EvaluateRun.model_fields)
    assert parameters["split"].default == "Val" and parameters["model"].default is inspect.Parameter.empty
    assert evaluate.parameters.properties["limit"]["title"]


@pytest.mark.flow
@pytest.mark.timeout(600)
def test_the_flow_judges_and_leaves_the_three_files(made_set, tmp_path):
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from flows.evaluate import evaluate
    from flows.server import local

    with (
        temporary_settings({PREFECT_HOME: tmp_path / "prefect"}),
        local() as url,
        temporary_settings({PREFECT_API_URL: url}),
    ):
        result = evaluate(
            model="default", data=str(made_set), output=str(tmp_path / "out"), limit=8, backend="torch", draws=100
        )
        with get_client(sync_client=True) as client:
            [run] = client.read_flow_runs()
            artifacts = {one.key: one for one in client.read_artifacts()}
    assert run.name == "evaluate default on Val" and run.state.is_completed()
    assert set(artifacts) == {"evaluate-table", "evaluate-page"}
    assert "covid_" not in artifacts["evaluate-table"].data.replace("covid_dice", "")
    assert result["headline"]["covid_dice"]["n"] == 4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.json", "cases.parquet", "evaluation.html"}
