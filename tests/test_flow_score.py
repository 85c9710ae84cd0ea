"""The flow `score` on a real Prefect server with a process worker, over a real Ray cluster."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from covseg.settings.score import ScoreSettings
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode

pytestmark = [pytest.mark.flow, pytest.mark.ray, pytest.mark.timeout(900)]

PROJECT = Path(__file__).resolve().parents[1]
CANARY = "DOE-JANE-19540321"
IMAGES, SHARD = 16, 4


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for seed in range(IMAGES - 1):
        (folder / f"{CANARY}-{seed:02}.png").write_bytes(encode(make_phantom(seed, 256, 256), "png"))
    (folder / f"{CANARY}.txt").write_text("not an image")
    return folder


INSTALLED = {"PYTHONPATH": str(PROJECT)}  # stands for an installed covseg: no command has the clone as its folder


def prefect(*words: str, folder: Path | None = None) -> str:
    command = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder or tempfile.gettempdir(), env=os.environ | INSTALLED
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def deployment(name: str, folder: Path, prefect_server: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A deployment from a folder that is gone, and its process worker."""
    from flows.deploy_settings import DeploySettings
    from flows.deployment import ensure_pool, prefect_yaml

    (folder / "prefect.yaml").write_text(prefect_yaml(DeploySettings(), [name]))
    ensure_pool("covseg")
    prefect("--no-prompt", "deploy", "--prefect-file", "prefect.yaml", "--all", folder=folder)
    shutil.rmtree(folder)
    words = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "covseg"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    worker = subprocess.Popen(words, **quiet, cwd=prefect_server, env=os.environ | INSTALLED)
    yield worker
    worker.terminate()
    try:
        worker.wait(60)
    except subprocess.TimeoutExpired:  # it waits for runs of its own; the server goes down next
        worker.kill()
        worker.wait()


@pytest.fixture(scope="module")
def deployed(ray_cluster: str, prefect_server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The deployment of an archive, and a worker; yields Prefect's folder."""
    with deployment("archive", tmp_path_factory.mktemp("deployed"), prefect_server):
        yield prefect_server


def parameters(archive: Path, dest: Path) -> dict[str, Any]:
    return {"source": str(archive), "dest": str(dest), "shard_size": SHARD, "workers": 2}


def client() -> Any:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def newest_run() -> Any:
    with client() as server:
        return server.read_flow_runs(limit=1, sort="EXPECTED_START_TIME_DESC")[0]


def await_state(run: UUID, *names: str) -> Any:
    with client() as server:
        while (found := server.read_flow_run(run)).state.name not in names:
            time.sleep(0.3)
        return found


def commits(dest: Path) -> list[str]:
    return sorted(path.name for path in (dest / "commits").glob("*.json"))


def start_run(given: dict[str, Any]) -> UUID:
    words = [word for name, value in given.items() for word in ("-p", f"{name}={json.dumps(value)}")]
    prefect("deployment", "run", "score/archive", *words)
    return newest_run().id


def scoring_workers() -> list[int]:
    from tests.test_scoring_ray import pids

    return pids("DecodeWorker") + pids("ModelWorker")


def test_the_flow_has_the_parameters_of_the_command() -> None:
    from flows.score import score

    told = score.parameters.model_dump()
    wanted = ScoreSettings.model_json_schema()
    shown = {
        name: {key: value for key, value in field.items() if key not in ("position", "title")}
        for name, field in told["properties"].items()
    }
    assert shown == {
        name: {key: value for key, value in field.items() if key != "title"}
        for name, field in wanted["properties"].items()
    }
    assert told["required"] == wanted["required"]


def test_a_parameter_out_of_bounds_is_refused_before_the_run() -> None:
    from prefect.exceptions import ParameterTypeError

    from flows.score import score

    with pytest.raises(ParameterTypeError, match="limit"):
        score.validate_parameters({"source": "a", "dest": "b", "limit": 0})


def test_a_progress_update_that_fails_ends_neither_scoring_nor_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows import artifacts, score, train
    from workers.summary import Progress

    said: list[str] = []
    logger = SimpleNamespace(warning=lambda text, *given: said.append(text % given))

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(artifacts, "update_progress_artifact", fail)
    monkeypatch.setattr(artifacts, "UPDATE_S", 0.0)
    for module in (artifacts, train):
        monkeypatch.setattr(module, "get_run_logger", lambda: logger)
    score._reporter(UUID(int=0))(Progress(images=4))
    train._hooks(UUID(int=0)).step_done(1, 2, {"train_loss": 0.5})
    assert said == ["progress is not shown (RuntimeError); the work goes on"] * 2


def test_the_folders_of_lost_images_stay_out_of_prefect() -> None:
    from covseg.errors import ImagesLost, NotAccepted
    from flows.redaction import redact

    def lose() -> None:
        raise ImagesLost(f"9 under {CANARY}", {CANARY: 9})

    with pytest.raises(NotAccepted, match="9 planned images") as raised:
        redact(lose)()
    assert CANARY not in f"{raised.value} {vars(raised.value)}"
    assert raised.value.__cause__ is None


def test_hooks_have_the_names_that_prefect_asks_for() -> None:
    import inspect

    from flows.score import score

    for hook in (*score.on_cancellation_hooks, *score.on_crashed_hooks):
        assert list(inspect.signature(hook).parameters) == ["flow", "flow_run", "state"]


@pytest.mark.slow
def test_a_deployed_run_keeps_the_parameters_it_is_not_given_and_leaves_artifacts_without_names(
    deployed: Path, archive: Path, tmp_path: Path
) -> None:
    given = parameters(archive, tmp_path / "dest")
    run = await_state(start_run(given), "Completed", "Failed", "Crashed")
    assert run.state.name == "Completed"
    assert run.name == f"score {archive.name} into dest"
    assert run.parameters == {"masks": "png", "max_failed": 0.05, "max_missing": 0.01, **given}
    assert (tmp_path / "dest" / "manifests" / "1.json").exists()
    with client() as server:
        kept = {artifact.key: artifact for artifact in server.read_artifacts()}
    assert {"score-progress", "score-summary", "score-refusals", "score-report"} <= set(kept)
    assert json.loads(kept["score-refusals"].data) == [{"reason": "not_an_image", "images": 1}]
    assert f"{IMAGES - 1}" in kept["score-summary"].data
    assert_no_names(deployed, tmp_path / "dest")


def assert_no_names(home: Path, dest: Path) -> None:
    """Grep everything that Prefect keeps on disk for a source key, an input id and the secret."""
    ids = [path.name.split("-")[0] for path in (dest / "masks").iterdir()]
    secrets = [CANARY, *ids, os.environ["COVSEG_PROJECT_KEY"]]
    for path in home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path


@pytest.mark.slow
def test_a_schedule_is_paused_with_the_commands_of_the_runbook(deployed: Path) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    runbook = (PROJECT / "infra" / "README.md").read_text()
    list_them, pause = (
        line.split()[1:] for line in runbook.splitlines() if line.startswith("    prefect deployment sch")
    )
    with client() as server:
        deployment = server.read_deployment_by_name("score/archive").id
        server.create_deployment_schedules(deployment, [(CronSchedule(cron="0 2 * * *"), True)])
    (shown,) = json.loads(prefect(*list_them, "--output", "json"))
    assert shown["active"]
    prefect(*pause[:-1], shown["id"])
    with client() as server:
        (schedule,) = server.read_deployment(deployment).schedules
        assert not schedule.active
        server.delete_deployment_schedule(deployment, schedule.id)


@pytest.mark.slow
def test_cancelling_ends_the_ray_work_within_ten_seconds(deployed: Path, archive: Path, tmp_path: Path) -> None:
    from prefect.states import Cancelling

    run = start_run({**parameters(archive, tmp_path), "shard_size": 1})
    while not commits(tmp_path):
        time.sleep(0.1)
    assert scoring_workers()
    with client() as server:
        server.set_flow_run_state(run, Cancelling())
    asked = time.monotonic()
    while scoring_workers() and time.monotonic() - asked < 10:
        time.sleep(0.1)
    assert not scoring_workers()
    assert await_state(run, "Cancelled", "Crashed", "Completed").state.name == "Cancelled"
    assert not (tmp_path / "manifests").exists()


@pytest.mark.slow
def test_a_schedule_that_fires_again_takes_what_is_new_and_a_night_that_fails_sets_an_automation_off(
    deployed: Path, archive: Path, tmp_path: Path
) -> None:
    """Three nights: what was there and what came meanwhile, nothing new, and a source that is gone."""
    from prefect.client.schemas.schedules import IntervalSchedule

    source, dest = tmp_path / "source", tmp_path / "dest"
    shutil.copytree(archive, source)
    given = parameters(source, dest)
    often = [(IntervalSchedule(interval=timedelta(seconds=20)), True)]
    with client() as server:
        deployment = server.read_deployment_by_name("score/archive").id
        server.create_automation(pause_on_failure(deployment))
        server.create_deployment_schedules(deployment, often, parameters=given)
    await_that(lambda: commits(dest))  # the first plan is made: what comes now is for the second night
    for seed in range(100, 104):
        (source / f"{seed}.png").write_bytes(encode(make_phantom(seed, 256, 256), "png"))
    await_that(lambda: len(nights(deployment, "Completed")) >= 3)
    source.rename(tmp_path / "away")
    await_that(lambda: nights(deployment, "Failed"))
    with client() as server:
        await_that(lambda: server.read_deployment(deployment).paused)  # by the automation
        for schedule in server.read_deployment(deployment).schedules:
            server.delete_deployment_schedule(deployment, schedule.id)
        server.resume_deployment(deployment)
    done = nights(deployment, "Completed")
    assert done[0].parameters == {"masks": "png", "max_failed": 0.05, "max_missing": 0.01, **given}
    assert [finished(run.id) for run in done[:3]] == [IMAGES, 4, 0]
    assert sorted(path.name for path in (dest / "manifests").iterdir()) == ["1.json", "2.json"]


def await_that(true: Callable[[], object]) -> None:
    while not true():
        time.sleep(0.5)


def nights(deployment: UUID, state: str) -> list[Any]:
    """Return the scheduled runs of a deployment that ended so, in order."""
    with client() as server:
        runs = server.read_flow_runs(sort="START_TIME_ASC")
    return [run for run in runs if run.auto_scheduled and run.deployment_id == deployment and run.state.name == state]


def finished(run: UUID) -> int:
    """Return how many images a flow run went through, as its artifact says."""
    with client() as server:
        (summary,) = [one for one in server.read_artifacts() if (one.key, one.flow_run_id) == ("score-summary", run)]
    return int(re.search(r"^\| finished \| (\d+) \|", summary.data, re.M)[1])


def pause_on_failure(deployment: UUID) -> Any:
    """Return an automation that pauses a deployment as soon as one of its runs fails."""
    from prefect.events.actions import PauseDeployment
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name="a night failed",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed"},
            match_related={"prefect.resource.id": f"prefect.deployment.{deployment}"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[PauseDeployment(source="selected", deployment_id=deployment)],
    )


@pytest.mark.slow
def test_a_killed_flow_process_loses_and_doubles_nothing(deployed: Path, archive: Path, tmp_path: Path) -> None:
    """SIGKILL after the first commit, then the same flow again: the bytes of a run that nobody disturbed."""
    words = [sys.executable, "-m", "flows.score", str(archive), "--shard-size", str(SHARD), "--workers", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*words, "--dest", str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*words, "--dest", str(broken)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not commits(broken):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*words, "--dest", str(broken)], check=True, capture_output=True)
    for name in ("severity.parquet", "severity.csv", "report.html"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    assert commits(whole) == commits(broken)


@pytest.mark.slow
def test_a_run_with_its_own_server_that_is_not_accepted_is_published_and_failed_and_leaves_nothing_up(
    ray_cluster: str, tmp_path: Path
) -> None:
    source, dest, home = tmp_path / "images", tmp_path / "dest", tmp_path / "prefect"
    source.mkdir()
    for seed in range(3):
        (source / f"{seed}.png").write_bytes(encode(make_phantom(seed, 256, 256), "png"))
    (source / "half.png").write_bytes((source / "0.png").read_bytes()[:2000])
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {"PREFECT_HOME": str(home)}
    words = [sys.executable, "-m", "flows.score", str(source), str(dest), "--workers", "1"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "published, not accepted" in done.stderr
    assert json.loads((dest / "manifests" / "1.json").read_text())["accepted"] is False
    with sqlite3.connect(home / "prefect.db") as kept:
        assert kept.execute("select state_name from flow_run").fetchall() == [("Failed",)]
        tasks = kept.execute("select name, state_name from task_run order by expected_start_time").fetchall()
    assert [(name.split("-")[0], state) for name, state in tasks] == [
        (name, "Completed") for name in ("plan", "score", "publish")
    ]
    assert not processes_of(home)


def processes_of(home: Path) -> list[int]:
    """Return the processes that were started with this PREFECT_HOME."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and f"PREFECT_HOME={home}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_a_stranded_run_holds_the_slot_until_it_is_deleted_as_the_runbook_says(
    deployed: Path, archive: Path, tmp_path: Path
) -> None:
    from prefect.states import Pending, Scheduled

    given = parameters(archive, tmp_path / "dest")
    later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=5))
    with client() as server:
        deployment = server.read_deployment_by_name("score/archive")
        stranded = server.create_flow_run_from_deployment(deployment.id, parameters=given, state=later)
        server.set_flow_run_state(stranded.id, Pending())  # as a worker that took it, and died
        waiting = server.create_flow_run_from_deployment(deployment.id, parameters=given)
    await_state(waiting.id, "AwaitingConcurrencySlot")
    prefect("flow-run", "cancel", str(stranded.id))
    time.sleep(20)
    with client() as server:
        assert server.read_flow_run(stranded.id).state.name == "Cancelling"
        assert server.read_flow_run(waiting.id).state.name == "AwaitingConcurrencySlot"
    prefect("--no-prompt", "flow-run", "delete", str(stranded.id))
    await_state(waiting.id, "Completed")
