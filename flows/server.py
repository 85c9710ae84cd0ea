"""A Prefect server of our own for one run on one machine: on loopback, up before and down after.

The ephemeral server that Prefect would start by itself loses task runs and often misses its own start
timeout, so a real one is started; its history stays in ``PREFECT_HOME``.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from covseg.errors import EnvironmentFailed

START_S = 300  # a loaded machine takes minutes
STOP_S = 10


@contextlib.contextmanager
def configured_or_local() -> Iterator[str]:
    """Use the server of ``PREFECT_API_URL`` or the profile; without one, start one and stop it at the end.

    `EnvironmentFailed` when the local server does not answer in time.
    """
    if url := get_current_settings().api.url:
        yield url
        return
    with local() as url, temporary_settings({PREFECT_API_URL: url}):
        yield url


@contextlib.contextmanager
def local() -> Iterator[str]:
    """Run a server on a free port of 127.0.0.1 and yield its API's URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]  # a free one
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        url = f"http://127.0.0.1:{port}/api"
        _await(server, url)
        yield url
    finally:
        APILogHandler().flush()  # the last lines, while somebody still listens
        server.terminate()
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _await(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{url}/health", timeout=5).close()  # noqa: S310 - our own loopback address
            return
        time.sleep(0.3)
    raise EnvironmentFailed(
        f"the local Prefect server did not answer at {url} within {START_S} s: run `prefect server start` to see why, "
        "or set PREFECT_API_URL"
    )
