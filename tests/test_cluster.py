"""A local Ray that does not come up."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PROGRAM = """
from covseg.errors import EnvironmentFailed
from workers import cluster
cluster.STARTS = 1
try:
    with cluster.connect("local", cpus=1):
        print("started")
except EnvironmentFailed as error:
    print(error)
print(len(cluster.ray_children()))
"""


def test_a_start_that_fails_leaves_no_process_that_the_next_try_would_compete_with() -> None:
    late = {"RAY_testing_asio_delay_us": "NodeInfoGcsService.grpc_server.RegisterNode=90000000:90000000"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | late, capture_output=True, text=True)
    said, left = done.stdout.strip().splitlines()
    assert said.startswith("no Ray cluster at 'local'")
    assert left == "0"
