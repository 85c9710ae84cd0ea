"""Shared fixtures.

Index
-----
data_root      ../shared/data beside the project; skips with a message where it is absent
val_root       the three Val image folders' root; skips with a message where it is absent
model_folder   the committed default model, checked
backend        the reference backend on the default model, opened once
pipeline       the stages around the default model, with a fixed project key
s3_server      endpoint of a moto S3 server process, with the AWS settings that lead to it
s3_bucket      name of a fresh bucket on it
ceph_server    settings that lead to a Ceph gateway with authentication; skips where Ceph is not installed
ceph_bucket    name of a fresh bucket on it, with those settings in force
gs_bucket      name of a fresh bucket on a double of Google's XML API, with the settings that lead to it in force
azure_server   port of an Azurite, Microsoft's emulator; skips where it is not installed
az_bucket      name of a fresh container on it, with the settings that lead to it in force
ray_cluster    address of a local Ray of two cores; RAY_ADDRESS leads child processes to it
ray_machines   two Ray machines with a token, which is in force, and the address of their job server
prefect_server folder of a local Prefect server (prefect.db); PREFECT_API_URL leads child processes to it
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("COVSEG_PROJECT_KEY", "a key for all tests")

import pytest

from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import ModelFolder, open_folder
from covseg.pipeline import Pipeline, resolve
from covseg.stages.segment import Backend
from tests.clouds import AZURITE, GoogleDouble, azure_request, azure_settings, google_double
from tests.nodes import Machines, machines

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
QU_EX = DATA / "covid-qu-ex" / "Infection Segmentation Data"


@pytest.fixture(scope="session")
def data_root() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def val_root() -> Path:
    if not (QU_EX / "Val").is_dir():
        pytest.skip(f"no COVID-QU-Ex Val split at {QU_EX}")
    return QU_EX / "Val"


@pytest.fixture(scope="session")
def model_folder() -> ModelFolder:
    return open_folder()


@pytest.fixture(scope="session")
def backend(model_folder: ModelFolder) -> Backend:
    return open_backend(model_folder)


@pytest.fixture(scope="session")
def pipeline(model_folder: ModelFolder, backend: Backend) -> Pipeline:
    return Pipeline(model_folder.config, resolve(model_folder, backend, 4), key=b"a key for tests")


def free_port() -> int:
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))
        return int(connection.getsockname()[1])


def await_port(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait until a server of ours answers; fail when it died."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"no server on port {port} after {seconds} s")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        settings = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "AKTESTS",
            "AWS_SECRET_ACCESS_KEY": "a-secret-for-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            await_port(port, process)
            yield settings["AWS_ENDPOINT_URL"]
        process.terminate()


def make_bucket() -> str:
    from covseg.storage.s3 import S3Store

    store = S3Store(f"tests-{uuid.uuid4().hex[:12]}")
    store._run(lambda s3: s3.create_bucket(Bucket=store.bucket))
    return store.bucket


@pytest.fixture
def s3_bucket(s3_server: str) -> str:
    return make_bucket()


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[dict[str, str]]:
    tools = DATA.parent / "tools"
    if shutil.which("radosgw") is None or not (tools / "ceph_start.sh").is_file():
        pytest.skip("no Ceph: wanted the Debian package radosgw and ../shared/tools/ceph_start.sh")
    folder = Path(tempfile.mkdtemp(prefix="ceph-")) / "c"  # its sockets want a short path
    port, monitor = free_port(), free_port()
    command = ["bash", str(tools / "ceph_start.sh"), str(folder), str(port), str(monitor)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    yield {
        "CEPH_CONF": str(folder / "ceph.conf"),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "AKCOVSEG",
        "AWS_SECRET_ACCESS_KEY": "sk-covseg-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    subprocess.run(["bash", str(tools / "ceph_stop.sh"), str(folder)], check=True, timeout=60)
    shutil.rmtree(folder.parent)


@pytest.fixture
def ceph_bucket(ceph_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in ceph_server.items():
        monkeypatch.setenv(name, value)
    return make_bucket()


@pytest.fixture
def gs_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    bucket = f"tests-{uuid.uuid4().hex[:12]}"
    with google_double() as settings:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        GoogleDouble.buckets.add(bucket)
        yield bucket


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no Azurite: wanted the npm package azurite (npm install --global azurite)")
    port = free_port()
    command = [program, "--inMemoryPersistence", "--disableTelemetry", "--silent", "--blobPort", str(port)]
    where = tmp_path_factory.mktemp("azurite")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=AZURITE, cwd=where) as process:
        await_port(port, process)
        yield port
        process.terminate()


@pytest.fixture
def az_bucket(azure_server: int, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in azure_settings(azure_server).items():
        monkeypatch.setenv(name, value)
    bucket = f"tests-{uuid.uuid4().hex[:12]}"
    azure_request(azure_server, bucket, "restype=container")
    return bucket


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    from workers.cluster import connect

    with connect("local", cpus=2), pytest.MonkeyPatch.context() as patch:
        import ray

        address = ray.get_runtime_context().gcs_address
        patch.setenv("RAY_ADDRESS", address)
        yield address


@pytest.fixture(scope="session")
def ray_machines() -> Iterator[tuple[Machines, str]]:
    port, secured = free_port(), {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port}
    with machines(secured, num_cpus=1, **dashboard) as cluster, pytest.MonkeyPatch.context() as patch:
        cluster.add(num_cpus=1)
        for name, value in secured.items():
            patch.setenv(name, value)
        yield cluster, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("prefect")
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

        from flows.server import local

        with local() as url, temporary_settings({PREFECT_API_URL: url, PREFECT_HOME: home}):
            patch.setenv("PREFECT_API_URL", url)
            yield home
