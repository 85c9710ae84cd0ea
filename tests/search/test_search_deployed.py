"""The deployment search/on-demand on a real Prefect server with a process worker, over a real Ray; slow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("albumentations", reason="the train extra is not installed")
pytest.importorskip("optuna", reason="the search extra is not installed")

from covseg.synthetic.phantom.writer import write_dataset
from tests.test_flow_score import await_state, client, deployment, newest_run, prefect
from tests.test_scoring_ray import pids
from workers.search.records import read_trials

pytestmark = [
    pytest.mark.flow, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800),
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.data"),
]  # fmt: skip
SPACE = """title = "a test"
recipe = "unet-small"
settings = ["network.widths=[4, 8]", "input.size=64", "stop.epochs={epochs}", "batch=4"]
order = "grid"
[[parameter]]
kind = "choice"
field = "optimiser.lr"
choices = [1e-3, 1e-2, 3e-3]
"""
WITHIN_S = 10


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_dataset(root, {"Train": 12, "Val": 12}, size=64)
    return root


@pytest.fixture(scope="module")
def deployed(ray_cluster: str, prefect_server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The deployment, from a folder that is gone, and a worker."""
    with deployment("on-demand", tmp_path_factory.mktemp("deployed"), prefect_server):
        yield


def words(space: Path, labelled: Path, out: Path) -> list[str]:
    given = {"space": space, "data": labelled, "out": out}
    return [word for name, value in given.items() for word in ("-p", f"{name}={value}")]


def of_ray() -> list[int]:
    return pids("run_trial") + pids("TrialBoard")


def test_a_clean_shell_runs_the_deployment_and_sees_its_end(deployed: None, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(SPACE.format(epochs=1))
    clean = {name: os.environ[name] for name in ("PATH", "PREFECT_API_URL")} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-m", "prefect", "deployment", "run", "search/on-demand", "--watch"]
    command += words(tmp_path / "space.toml", labelled, tmp_path / "out")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Completed" in done.stdout
    assert {one.state for one in read_trials(tmp_path / "out")} == {"complete"}
    assert (tmp_path / "out" / "search.html").is_file() and (tmp_path / "out" / "best.toml").is_file()
    assert newest_run().parameters == {"space": str(tmp_path / "space.toml"), "trials": 24, "data": str(labelled),
                                       "out": str(tmp_path / "out")}  # fmt: skip


def test_cancelling_ends_the_trials_within_ten_seconds_and_the_same_run_goes_on(
    deployed: None, labelled: Path, tmp_path: Path
) -> None:
    from prefect.states import Cancelling

    (tmp_path / "space.toml").write_text(SPACE.format(epochs=40))
    given = words(tmp_path / "space.toml", labelled, tmp_path / "out")
    prefect("deployment", "run", "search/on-demand", *given)
    run = newest_run().id
    while not list((tmp_path / "out").glob("trials/*/metrics.csv")):
        time.sleep(0.1)
    assert of_ray()
    with client() as server:
        server.set_flow_run_state(run, Cancelling())
    asked = time.monotonic()
    while of_ray() and time.monotonic() - asked < WITHIN_S:
        time.sleep(0.1)
    left, took = of_ray(), time.monotonic() - asked
    print(f"no actor or task of the search after {took:.1f} s" if not left else f"{len(left)} left after {took:.1f} s")
    assert not left
    assert await_state(run, "Cancelled", "Crashed", "Completed").state.name == "Cancelled"
    [cut] = [one for one in read_trials(tmp_path / "out") if one.state == "running"]
    assert cut.epochs == 40
    prefect("deployment", "run", "search/on-demand", "-p", "trials=1", *given)
    assert await_state(newest_run().id, "Completed", "Failed", "Crashed").state.name == "Completed"
    assert read_trials(tmp_path / "out")[0].state == "complete"
