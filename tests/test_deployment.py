"""The deployments that an installation writes and registers, and what doctor says where they cannot work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import deployment
from flows.cli import app as cli
from flows.deploy_settings import DeploySettings
from flows.deployment import NEEDS, prefect_yaml

KNOWN = {"name", "description", "entrypoint", "tags", "parameters", "schedules", "concurrency_limit", "work_pool"}
NIGHTLY = ["--source", "s3://in/a b", "--dest", "s3://out", "--cron", "0 2 * * *", "--timezone", "Europe/Rome"]


def deployments(**settings: Any) -> dict[str, Any]:
    content = yaml.safe_load(prefect_yaml(DeploySettings(**settings), list(NEEDS)))
    return {one["name"]: one for one in content["deployments"]}


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        monkeypatch.delenv("PREFECT_API_URL", raising=False)
        yield


def test_every_deployment_names_a_flow_and_parameters_that_it_takes() -> None:
    from prefect.flows import load_flow_from_entrypoint

    for one in deployments().values():
        assert set(one) == KNOWN
        flow = load_flow_from_entrypoint(one["entrypoint"])
        assert set(one["parameters"]) <= set(flow.parameters.properties)
        assert one["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert one["work_pool"] == {"name": "covseg", "work_queue_name": "default", "job_variables": {}}
        missing = {name: "x" for name in flow.parameters.required if name not in one["parameters"]}
        flow.validate_parameters({**one["parameters"], **missing})


def test_a_night_has_its_source_its_clock_and_its_image() -> None:
    night = {"cron": "0 2 * * *", "timezone": "Europe/Rome"}
    found = deployments(source="s3://in/a b", dest="s3://o: #", image="me/c:1", **night)
    archive = found["archive"]
    assert archive["parameters"]["source"] == "s3://in/a b" and archive["parameters"]["dest"] == "s3://o: #"
    assert archive["schedules"] == [{**night, "active": True}]
    assert {one["work_pool"]["job_variables"]["image"] for one in found.values()} == {"me/c:1"}
    assert all(one["schedules"] == [] for name, one in found.items() if name != "archive")


def test_no_folder_is_pinned(tmp_path: Path) -> None:
    text = prefect_yaml(DeploySettings(), list(NEEDS))
    assert yaml.safe_load(text)["pull"] == []
    assert str(Path(deployment.__file__).parents[1]) not in text


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--cron", "0 2 * * *"], "wants both --source and --dest"),
        ([*NIGHTLY[:4], "--cron", "at night"], "--cron at night"),
        ([*NIGHTLY[:6], "--timezone", "Rome"], "'Rome' is not known"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(
    words: list[str], wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prefect.yaml"
    assert cli.run(["deploy", "--dry-run", "-o", str(path), *words]) == 2
    assert wanted in capsys.readouterr().err
    assert not path.exists()


def test_what_this_installation_cannot_run_is_left_out_and_the_extra_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = deployment.importlib.util.find_spec
    lacks = lambda name, *_: None if name == "torch" else there(name)  # noqa: E731
    monkeypatch.setattr(deployment.importlib.util, "find_spec", lacks)
    assert cli.run(["deploy", "--dry-run", "-o", str(tmp_path / "p.yaml"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["deployments"] == ["archive", "split"]
    assert "recipe is left out: no torch here, pip install 'covseg[train]'" in said.err
    assert [one["name"] for one in yaml.safe_load((tmp_path / "p.yaml").read_text())["deployments"]] == [
        "archive",
        "split",
    ]


def test_without_a_server_nothing_is_written(
    no_server: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["deploy", "-o", str(tmp_path / "p.yaml")]) == 2
    assert "set PREFECT_API_URL" in capsys.readouterr().err
    assert not (tmp_path / "p.yaml").exists()


def test_doctor_says_of_each_part_what_to_do(
    no_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.run(["doctor", f"{blocked}/dest", "--model", str(tmp_path / "none"), "--json"]) == 1
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert {name for name, one in found.items() if one["state"] == "fail"} >= {"model", "server", "storage"}
    assert {found[name]["do"] for name in ("pool", "worker", "deployment")} == {"mend the server first"}
    assert "PREFECT_API_URL" in found["server"]["do"]
    assert found["versions"]["state"] == found["ray"]["state"] == "ok"
    assert all(one["do"] for one in found.values() if one["state"] != "ok")


def test_doctor_refuses_a_store_that_overwrites(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from covseg.storage import LocalStore
    from flows import doctor

    monkeypatch.setattr(LocalStore, "create", lambda *_: True)
    check = next(one for one in doctor.checks("default", str(tmp_path), "covseg") if one.name == "storage")
    assert check.state == "fail" and "--commits URL" in check.found + check.do
    assert list(tmp_path.rglob("*.txt")) == []


def test_doctor_leaves_nothing_in_the_destination(tmp_path: Path) -> None:
    from flows import doctor

    check = doctor._storage(str(tmp_path / "dest"))
    assert check.state == "ok"
    assert [path for path in (tmp_path / "dest").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("skew", "state"), [(0.4, "ok"), (-60.0, "warn"), (3600.0, "fail")])
def test_doctor_measures_the_clock(skew: float, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import doctor

    monkeypatch.setattr(doctor, "_server_skew", lambda: (skew, "the Prefect server"))
    assert doctor._clock(None).state == state


@pytest.mark.flow
@pytest.mark.timeout(300)
def test_deploy_registers_with_a_server_and_makes_its_pool(
    prefect_server: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    monkeypatch.setattr(deployment, "NEEDS", {"archive": ()})  # the others are loaded by another test
    monkeypatch.setenv("PYTHONPATH", str(Path(deployment.__file__).parents[1]))
    words = ["deploy", "-o", str(tmp_path / "p.yaml"), "--pool", "nightly", *NIGHTLY, "--json"]
    assert cli.run(words) == 0
    assert json.loads(capsys.readouterr().out)["pool_made"] is True
    assert cli.run(words) == 0  # the same again is the same
    assert json.loads(capsys.readouterr().out)["pool_made"] is False
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("score/archive")
        assert client.read_work_pool("nightly").type == "process"
    assert (found.work_pool_name, found.parameters["source"]) == ("nightly", "s3://in/a b")
    assert (found.pull_steps or []) == [] and [one.active for one in found.schedules] == [True]
    assert sys.executable not in (tmp_path / "p.yaml").read_text()
