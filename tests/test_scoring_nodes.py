"""Bulk scoring on two Ray machines, one of which is lost with its workers in the middle; slow, seeds are printed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from covseg.archive import load_run, newest_plan
from covseg.storage import LocalStore
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from covseg.verify import verify

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

IMAGES, SHARD = 48, 4
NODES = """
import sys
from ray.cluster_utils import Cluster
MEMORY = {"object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **MEMORY})
second = cluster.add_node(num_cpus=1, **MEMORY)
print(cluster.address, second.all_processes["raylet"][0].process.pid, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
QUICK = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}


class Machines(NamedTuple):
    """Two machines: where they are joined, and the raylet of the second."""

    address: str
    raylet: int


@pytest.fixture
def machines() -> Iterator[Machines]:
    words = [sys.executable, "-c", NODES]
    with subprocess.Popen(
        words,
        env=os.environ | QUICK,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        lines = (line.split() for line in process.stdout)
        address, raylet = next(words for words in lines if len(words) == 2 and words[1].isdigit())
        yield Machines(address, int(raylet))
        process.stdin.close()
        process.wait(120)


def score(archive: Path, dest: Path, address: str) -> subprocess.Popen[str]:
    words = ["score", str(archive), str(dest), "--shard-size", str(SHARD), "--workers", "2", "--json"]
    env = os.environ | QUICK | {"RAY_ADDRESS": address}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("killed_by", [signal.SIGKILL, signal.SIGTERM])
def test_a_machine_that_is_lost_with_its_workers_costs_time_and_blames_no_image(
    machines: Machines, tmp_path: Path, seed: int, killed_by: signal.Signals
) -> None:
    archive, dest = tmp_path / "archive", tmp_path / "dest"
    archive.mkdir()
    for number in range(IMAGES):
        (archive / f"{number:03}.png").write_bytes(encode(make_phantom(number, 256, 256), "png"))
    process = score(archive, dest, machines.address)
    moment = random.Random(seed)
    shards = moment.randrange(1, 8)
    while len(list((dest / "commits").glob("*.json"))) < shards and process.poll() is None:
        time.sleep(0.02)
    time.sleep(moment.random() / 2)
    os.kill(machines.raylet, killed_by)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    summary = json.loads(said)
    print(f"seed {seed}, {killed_by.name} after {shards} shards: {summary['retried']} retried")
    assert summary["statuses"] == {"scored": IMAGES}
    assert verify(LocalStore(dest)).breaches == []
    plan = newest_plan(load_run(LocalStore(dest), LocalStore(dest)))
    assert plan
    assert plan.shards == len(list((dest / "commits").glob("*.json")))  # not what a kill left half done
