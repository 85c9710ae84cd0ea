"""What ``covseg up`` keeps between its calls: the record of its processes, two secrets, and the lines for a shell."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from covseg.errors import UsageError
from covseg.settings.environment import QUIET
from flows.machine import processes
from flows.machine.processes import MARK, Process

RECORD, AUTH, TOKEN, ENVIRONMENT = "processes.json", "prefect-auth", "ray-token", "environment"
POOL = "covseg"
PARTS = ("server", "ray", "worker")  # in the order of their start


def default_folder() -> Path:
    """Return where the state lies unless told otherwise, in the user's folder for such things."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "covseg" / "up"


@dataclass(frozen=True)
class Ports:
    """Where on 127.0.0.1 the parts listen."""

    server: int
    ray: int
    dashboard: int


@dataclass
class Record:
    """What runs, and how to know it again; written after every start and stop."""

    mark: str
    ports: Ports
    ray_folder: str
    boot: str = field(default_factory=processes.boot)
    started: dict[str, Process] = field(default_factory=dict)

    def running(self) -> list[str]:
        """Return the parts that still run, in the order of their start."""
        if self.boot != processes.boot():
            return []
        return [part for part in PARTS if part in self.started and processes.alive(self.started[part])]


def read(folder: Path) -> Record | None:
    """Return the record of the last `covseg up`, None where there is none.

    Raises
    ------
    UsageError
        When the file is none of ours.
    """
    try:
        content = json.loads((folder / RECORD).read_text())
        started = {part: Process(*known) for part, known in content.pop("started").items()}
        return Record(**{**content, "ports": Ports(**content["ports"]), "started": started})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{folder / RECORD} is no record of covseg up ({error}): give another --state") from None


def write(folder: Path, record: Record) -> None:
    """Replace the record as a whole."""
    content = {
        "mark": record.mark, "ports": vars(record.ports), "ray_folder": record.ray_folder, "boot": record.boot,
        "started": record.started,
    }  # fmt: skip
    _secret_file(folder / RECORD, json.dumps(content, indent=1) + "\n")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one `up` or `down` at a time.

    Raises
    ------
    UsageError
        When another holds it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another covseg up or down is at work in {folder}: wait for its end") from None
        yield


def keep_secrets(folder: Path) -> None:
    """Make Prefect's auth string and Ray's token once, readable by their owner alone."""
    for name, value in ((AUTH, f"covseg:{secrets.token_urlsafe(24)}"), (TOKEN, secrets.token_hex(32))):
        if not (folder / name).exists():
            _secret_file(folder / name, value)


def urls(ports: Ports) -> dict[str, str]:
    """Return what a browser opens."""
    return {"prefect": f"http://127.0.0.1:{ports.server}", "ray": f"http://127.0.0.1:{ports.dashboard}"}


def client_environment(folder: Path, ports: Ports) -> dict[str, str]:
    """Return the variables, secrets among them, with which commands find what runs here."""
    return {
        "PREFECT_API_URL": f"http://127.0.0.1:{ports.server}/api",
        "PREFECT_API_AUTH_STRING": (folder / AUTH).read_text(),
        "RAY_ADDRESS": f"127.0.0.1:{ports.ray}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / TOKEN),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports.dashboard}",
    }


def write_environment(folder: Path, ports: Ports) -> Path:
    """Write `client_environment` as lines for a shell, readable by the owner alone."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in client_environment(folder, ports).items()]
    _secret_file(folder / ENVIRONMENT, "".join(lines))
    return folder / ENVIRONMENT


def part_environment(folder: Path, record: Record) -> dict[str, str]:
    """Return the environment of what is started: this one, less other servers, clusters and profiles, plus ours."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RAY_"))}
    return {
        **outside,
        **client_environment(folder, record.ports),
        MARK: record.mark,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_API_AUTH_STRING": (folder / AUTH).read_text(),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        **QUIET,
    }


def _secret_file(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    staged.replace(path)
