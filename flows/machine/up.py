"""Start on one machine what a scheduled archive needs, as far as it does not run: server, Ray, worker, deployments."""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from prefect.client.schemas.objects import WorkerStatus
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from covseg.errors import EnvironmentFailed, UsageError
from flows.deploy_settings import DeploySettings
from flows.deployment import deployable, ensure_pool, prefect_yaml, register, server
from flows.machine import processes, state
from flows.machine.down import stop_parts
from flows.machine.state import PARTS, POOL, Ports, Record
from workers.head import STARTED, head_command, head_environment

START_S = 180.0
RAY_STARTS = 3  # Ray gives its node 30 s to answer, which is little where a machine is busy
TOO_SLOW = "timed out during startup"  # its words then
Say = Callable[[str], None]


def up(folder: Path, ports: Ports, say: Say) -> Record:
    """Start what does not run yet; on any failure, and on Ctrl-C, stop what this call began.

    Raises
    ------
    UsageError
        When a port is taken, or other ports are asked for than those of what runs.
    EnvironmentFailed
        When a part does not start; with the end of its log.
    """
    with state.locked(folder):
        record = _record(folder, ports)
        lacking = [part for part in PARTS if part not in record.running()]
        _refuse_taken(ports, lacking)
        (folder / "logs").mkdir(exist_ok=True)
        state.keep_secrets(folder)
        state.write_environment(folder, ports)
        try:
            if lacking:
                _start(folder, record, lacking, say)
        except BaseException:
            stop_parts(folder, record, lacking, say)
            raise
    return record


def _record(folder: Path, ports: Ports) -> Record:
    """Return the record of what runs; a new one when nothing does."""
    if (record := state.read(folder)) and record.running():
        if record.ports != ports:
            raise UsageError(f"it already runs on {_named(record.ports)}: covseg down first, to have other ports")
        return record
    if record:
        shutil.rmtree(record.ray_folder, ignore_errors=True)
    return Record(secrets.token_hex(16), ports, ray_folder="")


def _refuse_taken(ports: Ports, lacking: list[str]) -> None:
    wanted = {
        "server": [("--port", ports.server)],
        "ray": [("--ray-port", ports.ray), ("--dashboard-port", ports.dashboard)],
    }
    for flag, port in [one for part in lacking for one in wanted.get(part, [])]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise UsageError(
                    f"port {port} of 127.0.0.1 cannot be had ({error.strerror}): stop what listens there, or give "
                    f"another with {flag}"
                ) from None


def _start(folder: Path, record: Record, lacking: list[str], say: Say) -> None:
    environment = state.part_environment(folder, record)

    def begin(part: str, command: list[str], more: dict[str, str] | None = None) -> None:
        say(f"starting {part}")
        log = folder / "logs" / f"{part}.log"
        record.started[part] = processes.start(command, environment | (more or {}), log, folder)
        state.write(folder, record)

    def begin_ray() -> None:
        begin("ray", head_command(ports.ray, ports.dashboard, Path(record.ray_folder)), head_environment())

    ports = record.ports
    if "server" in lacking:
        begin("server", _prefect("server", "start", "--host", "127.0.0.1", "--port", str(ports.server)))
    if "ray" in lacking:
        # short: a socket's path has at most 107 characters
        record.ray_folder = record.ray_folder or tempfile.mkdtemp(prefix="covseg-ray-")
        begin_ray()
    url = environment["PREFECT_API_URL"]
    _await(folder, record, "server", lambda: _healthy(url))
    _await_ray(folder, record, begin_ray, say)
    settings = {PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: environment["PREFECT_API_AUTH_STRING"]}
    with temporary_settings(settings):
        ensure_pool(POOL)
        if "worker" in lacking:
            begin("worker", _prefect("worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"))
        say("registering the deployments")
        path = folder / "prefect.yaml"
        path.write_text(prefect_yaml(DeploySettings(pool=POOL), deployable()[0]))
        register(path, environment)
        _await(folder, record, "worker", _worker_is_online)


def _prefect(*words: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *words]


def _await(folder: Path, record: Record, part: str, ready: Callable[[], bool]) -> None:
    log = folder / "logs" / f"{part}.log"
    until = time.monotonic() + START_S
    while not ready():
        if not processes.alive(record.started[part]):
            end = " ".join(log.read_text(errors="replace").split())[-500:]
            raise EnvironmentFailed(f"{part} ended at its start; {log} ends with: {end}")
        if time.monotonic() > until:
            raise EnvironmentFailed(
                f"{part} did not answer within {START_S:.0f} s: look at {log}, and run covseg up again"
            )
        time.sleep(0.3)


def _await_ray(folder: Path, record: Record, begin: Callable[[], None], say: Say) -> None:
    """Wait for Ray's head; begin it again where the machine was too busy for Ray's own patience."""
    log = folder / "logs" / "ray.log"
    for remaining in reversed(range(RAY_STARTS)):
        try:
            _await(folder, record, "ray", lambda: STARTED in log.read_text(errors="replace"))
            break
        except EnvironmentFailed:
            if not remaining or TOO_SLOW not in log.read_text(errors="replace"):
                raise
            stop_parts(folder, record, ["ray"], say)
            begin()


def _healthy(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()  # noqa: S310 - our own loopback address
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


def _worker_is_online() -> bool:
    with server() as client:
        return any(one.status == WorkerStatus.ONLINE for one in client.read_workers_for_work_pool(POOL))


def _named(ports: Ports) -> str:
    return f"ports {ports.server} (Prefect), {ports.ray} (Ray) and {ports.dashboard} (Ray's dashboard)"
