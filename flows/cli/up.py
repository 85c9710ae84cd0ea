"""``covseg up``: a Prefect server, a worker and Ray on this machine, with the deployments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from covseg.errors import UsageError
from flows.cli.console import note, show_result
from flows.cli.interrupt import stop_on_sigterm
from flows.cli.options import Json, Options

if TYPE_CHECKING:
    from flows.machine.state import Record

_STATE = "Folder of the server's database, secrets and logs; default: covseg/up in the user's state folder."


class UpConfig(Options):
    """What `covseg up` can be told."""

    port: int = Field(4200, ge=1, le=65535, description="Of the Prefect server, on 127.0.0.1.")
    ray_port: int = Field(6379, ge=1, le=65535, description="Of Ray, on 127.0.0.1.")
    dashboard_port: int = Field(8265, ge=1, le=65535, description="Of Ray's dashboard, on 127.0.0.1.")
    state: Path | None = Field(None, description=_STATE)
    json_: Json = False


def up(config: UpConfig = UpConfig()) -> int:  # noqa: B008
    """Start a Prefect server, a process worker and Ray on loopback, with auth, and register the deployments."""
    from flows.machine.processes import supported
    from flows.machine.state import Ports, default_folder
    from flows.machine.up import up as start

    if not supported():
        raise UsageError(
            "covseg up wants Linux: it knows its processes again by /proc; elsewhere use infra/compose.yaml"
        )
    folder = (config.state or default_folder()).absolute()
    ports = Ports(config.port, config.ray_port, config.dashboard_port)
    if len({ports.server, ports.ray, ports.dashboard}) < 3:
        raise UsageError("--port, --ray-port and --dashboard-port are three different ports")
    begun: list[str] = []

    def say(line: str) -> None:
        begun.append(line)
        note(f"{line} ...")

    with stop_on_sigterm():
        record = start(folder, ports, say)
    show_result(_document(folder, record, begun), _lines(folder, record, begun), as_json=config.json_)
    return 0


def _document(folder: Path, record: Record, begun: list[str]) -> dict[str, object]:
    from flows.machine.state import ENVIRONMENT, urls

    pids = {part: process.pid for part, process in record.started.items()}
    return {"started": bool(begun), "urls": urls(record.ports), "pids": pids, "environment": str(folder / ENVIRONMENT)}


def _lines(folder: Path, record: Record, begun: list[str]) -> list[str]:
    from flows.machine.state import AUTH, ENVIRONMENT, TOKEN, urls

    pids = ", ".join(f"{part} {process.pid}" for part, process in record.started.items())
    places = urls(record.ports)
    return [
        f"{'running' if begun else 'already running'}: {pids}",
        f"Prefect  {places['prefect']}   it asks for what is in {folder / AUTH}",
        f"Ray      {places['ray']}   its token is in {folder / TOKEN}",
        f"logs     {folder / 'logs'}",
        "",
        "In the shell that uses them:",
        f"    . {folder / ENVIRONMENT}",
        "    prefect deployment run 'score/archive' --watch -p source=IMAGES -p dest=SCORED",
        "",
        "covseg down stops them.",
    ]
