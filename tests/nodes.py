"""Ray machines for tests, as processes of this one: any of them may be killed, and another be added."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PROGRAM = """
import json, shutil, socket, sys, tempfile, time
from ray._private import services, utils
from ray.cluster_utils import Cluster

get_node, wait_for_node = services.get_node, services.wait_for_node

def patient(*given):  # a loaded machine misses Ray's fixed 30 s
    until = time.monotonic() + 240
    while True:
        try:
            return get_node(*given)
        except RuntimeError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)

start, chosen = services.start_ray_process, {}

def start_with_ports(command, kind, *given, **more):  # a raylet that is told none waits 15 s for them, no longer
    if kind == "raylet":
        command = [*command, f"--dashboard_agent_listen_port={chosen['dashboard_agent_listen_port']}"]
    return start(command, kind, *given, **more)

services.get_node, services.start_ray_process = patient, start_with_ports
services.wait_for_node = lambda at, name, timeout: wait_for_node(at, name, 240)

def tell(node):
    raylet = node.all_processes["raylet"][0].process.pid
    metrics = node._ray_params.metrics_export_port
    print("told", json.dumps({"at": cluster.address, "raylet": raylet, "metrics": metrics}), flush=True)

def ports():
    names = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    held = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    chosen.update({name: one.getsockname()[1] for name, one in zip(names, held)})
    for one in held:
        one.close()
    return dict(chosen)

settings = json.loads(sys.argv[1])
memory = {"object_store_memory": 100 * 2**20}
folder = {"temp_dir": tempfile.mkdtemp(prefix="ray-")}  # Ray gives a job the newest cluster of the folder
cluster = Cluster(initialize_head=True, head_node_args=ports() | folder | memory | settings["head"])
utils.write_ray_address(cluster.head_node.gcs_address, folder["temp_dir"])
tell(cluster.head_node)
for line in sys.stdin:
    tell(cluster.add_node(**ports() | folder | memory | json.loads(line)))
cluster.shutdown()
shutil.rmtree(folder["temp_dir"], ignore_errors=True)
"""
QUICK = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "20000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_agent_register_timeout_ms": "240000",
    "RAY_gcs_server_port_wait_time_s": "240",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Machines:
    """A cluster's address, and its machines' raylets (pids) and metrics (ports), the head's first."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        first = self._read()
        self.address = str(first["at"])
        self.raylets, self.metrics = [int(first["raylet"])], [int(first["metrics"])]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        said = next(line for line in self._process.stdout if line.startswith("told "))
        told: dict[str, Any] = json.loads(said[5:])
        return told

    def add(self, **arguments: object) -> int:
        """Add a machine; return the pid of its raylet."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        told = self._read()
        self.raylets.append(int(told["raylet"]))
        self.metrics.append(int(told["metrics"]))
        return self.raylets[-1]


@contextlib.contextmanager
def machines(environment: Mapping[str, str], **head: object) -> Iterator[Machines]:
    """Start a cluster of a head alone; it goes with the context."""
    words = [sys.executable, "-c", PROGRAM, json.dumps({"head": {"include_dashboard": False, **head}})]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    bare["PATH"] = f"{Path(sys.executable).parent}:{bare['PATH']}"  # a job's `python` is found there
    with subprocess.Popen(words, env=bare | QUICK | dict(environment), text=True, **pipes) as process:
        yield Machines(process)
        assert process.stdin
        process.stdin.close()
        process.wait(120)
