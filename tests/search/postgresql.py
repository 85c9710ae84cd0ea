"""A real PostgreSQL server in a folder of its own, on a port of loopback, that a test may kill and start again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.conftest import await_port, free_port

PASSWORD = "not-to-be-printed"


def binary(name: str) -> str:
    """Return the path of one of the server's programs; skip where it is not installed."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    if found := shutil.which(name):
        return found
    pytest.skip(f"no PostgreSQL server: wanted {name} of the Debian package postgresql")


class Server:
    """The server; `start` and `kill` may follow each other."""

    def __init__(self) -> None:
        self.initdb, self.postgres, self.ready = binary("initdb"), binary("postgres"), binary("pg_isready")
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="pg-")), free_port()
        (self.folder / "password").write_text(PASSWORD)
        self.user: dict[str, str] = {}
        if os.getuid() == 0:  # it does not run as root
            self.user = {"user": "postgres", "group": "postgres"}
            for path in (self.folder, self.folder / "password"):
                shutil.chown(path, **self.user)
        command = [self.initdb, "-D", str(self.folder / "data"), "-U", "searcher", "--auth=scram-sha-256", "--no-sync"]
        command += ["--pwfile", str(self.folder / "password"), "--locale=C", "--encoding=UTF8"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **self.user)  # type: ignore[call-overload]
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://searcher:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        command = [self.postgres, "-D", str(self.folder / "data"), "-p", str(self.port), "-h", "127.0.0.1"]
        command += ["-k", str(self.folder), "-c", "shared_buffers=16MB"]
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder, start_new_session=True,
            **self.user,
        )  # fmt: skip
        await_port(self.port, self.process)
        ready = [self.ready, "-h", "127.0.0.1", "-p", str(self.port)]
        until = time.monotonic() + 60
        while subprocess.run(ready, stdout=subprocess.DEVNULL).returncode and time.monotonic() < until:
            time.sleep(0.1)  # it listens before it lets anyone in

    def kill(self) -> None:
        """End it and what it started with SIGKILL."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)
