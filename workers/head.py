"""The head of a Ray cluster that outlives the process which starts it: on loopback, with a token, for one machine.

In: ports, cores and a folder. Out: the command and its environment; who runs it also stops it.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from workers.cluster import OBJECT_STORE_BYTES, connect, nodes

STARTED = "Ray runtime started"  # in the command's output, once a driver may join


def head_command(port: int, dashboard_port: int, folder: Path) -> list[str]:
    """Return the command that runs a head in the foreground and takes Ray's other processes down with it.

    Parameters
    ----------
    folder : Path
        Ray's sessions and sockets; short, for a socket's path has at most 107 characters.
    """
    return [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={port}",
        f"--ray-client-server-port={_free_port()}",  # it has no off; its own default may be taken
        f"--dashboard-agent-listen-port={_free_port()}",
        "--min-worker-port=0", "--max-worker-port=0",  # any free one; 10002 to 19999 may hold the ports above
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}",
        f"--num-cpus={len(os.sched_getaffinity(0))}", f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={folder}", "--disable-usage-stats",
    ]  # fmt: skip


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def head_environment() -> dict[str, str]:
    """Return what a head needs beside its token: 127.0.0.1 is loopback to it, and its workers run as others do.

    The ``python`` that a submitted job is run by is the one that runs here.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_worker_niceness": "0",
        "PATH": path,
    }


def cores_of(address: str) -> int:
    """Join the cluster at `address` and return its cores; `EnvironmentFailed` when it does not answer."""
    with connect(address):
        return sum(node.cpus for node in nodes())
