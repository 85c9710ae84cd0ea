"""A part of Prefect is killed under a running flow `score`: nothing is lost or doubled, and no run stays Running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from covseg.storage import LocalStore
from covseg.verify import verify
from tests.conftest import await_port, free_port
from tests.search.postgresql import Server
from tests.test_flow_score import (
    IMAGES,
    archive,
    await_state,
    commits,
    deployment,
    finished,
    parameters,
    scoring_workers,
    start_run,
)

__all__ = ["archive"]  # a fixture
pytestmark = [pytest.mark.flow, pytest.mark.ray, pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(900)]

AWAY_S = 60.0
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@pytest.fixture
def database() -> Iterator[Server]:
    server = Server()
    yield server
    server.remove()


def serve(port: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(words, **QUIET, env=environment)
    await_port(port, process, 120)
    return process


@pytest.mark.parametrize("killed", ["server", "database"])
def test_a_flow_outlives_a_minute_without_its_server_or_its_servers_database(
    killed: str, database: Server, ray_cluster: str, archive: Path, tmp_path: Path
) -> None:
    port, dest = free_port(), tmp_path / "dest"
    environment = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",  # a server without its database answers so
        "PREFECT_API_DATABASE_CONNECTION_URL": database.url.replace("postgresql:", "postgresql+asyncpg:"),
    }
    server = serve(port, environment)
    words = [sys.executable, "-m", "flows.score", str(archive), str(dest), "--shard-size", "1", "--workers", "2"]
    flow = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not commits(dest):
        assert flow.poll() is None
        time.sleep(0.05)
    if killed == "server":
        server.kill()
        server.wait()
    else:
        database.kill()
    time.sleep(AWAY_S)
    if killed == "server":
        server = serve(port, environment)
    else:
        database.start()
    said, _ = flow.communicate()
    server.terminate()
    server.wait()
    assert flow.returncode == 0, said[-3000:]
    assert (dest / "manifests" / "1.json").exists()
    assert verify(LocalStore(dest)).breaches == []


def test_a_run_whose_worker_is_killed_is_crashed_and_the_next_one_resumes(
    ray_cluster: str, prefect_server: Path, archive: Path, tmp_path: Path
) -> None:
    folder, dest = tmp_path / "deployed", tmp_path / "dest"
    given = {**parameters(archive, dest), "shard_size": 1}
    folder.mkdir()
    with deployment("archive", folder, prefect_server) as worker:
        run = start_run(given)
        while not commits(dest):
            time.sleep(0.05)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert await_state(run, "Completed", "Failed", "Crashed", "Cancelled").state.name == "Crashed"
        while scoring_workers():
            time.sleep(0.1)
        assert not (dest / "manifests").exists()
    before = commits(dest)
    folder.mkdir()
    with deployment("archive", folder, prefect_server):
        run = start_run(given)
        await_state(run, "Completed")
    assert finished(run) == IMAGES - len(before)
    assert verify(LocalStore(dest)).breaches == []
