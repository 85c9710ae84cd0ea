"""A local Ray: who can reach it, and what is left when it does not come up."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from covseg.errors import UsageError

pytestmark = pytest.mark.ray

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


def listening() -> dict[str, str]:
    """Return the listening TCP sockets of this machine: inode to address, in hexadecimal as the kernel has it."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for lines in tables for line in lines]
    return {row[9]: row[1].split(":")[0] for row in rows if row[3] == "0A"}


def sockets_below(root: int) -> set[str]:
    """Return the inodes of the sockets of a process and of all that live below it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    family = {root}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    found = set()
    for file in (file for pid in family for file in Path(f"/proc/{pid}/fd").glob("*")):
        with contextlib.suppress(OSError):
            found.add(str(file.readlink()))
    return {name[8:-1] for name in found if name.startswith("socket:[")}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc/net on this system")
def test_a_local_cluster_listens_on_loopback_only(ray_cluster: str) -> None:
    assert ray_cluster.startswith("127.0.0.1:")
    known = listening()
    ours = {known[inode] for inode in sockets_below(os.getpid()) & known.keys()}
    assert ours
    assert ours <= {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


SECURED = """
import sys
from ray.cluster_utils import Cluster
arguments = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args=arguments)
print("at", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
JOIN = """
from covseg.errors import EnvironmentFailed
from workers import cluster
try:
    with cluster.connect():
        print(len(cluster.nodes()))
except EnvironmentFailed as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "token"), [("disabled", ""), ("disabled", "a" * 64), ("token", "a" * 64)])
def test_a_cluster_is_joined_with_the_token_that_is_there_and_without_one(
    tmp_path: Path, mode: str, token: str
) -> None:
    """``RAY_AUTH_MODE`` is set where the cluster starts, and nowhere else."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(tmp_path)}
    secured = {"RAY_AUTH_MODE": mode, **({"RAY_AUTH_TOKEN": token} if token else {})}
    (tmp_path / "token").write_text(token)
    path = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")} if token else {}
    with subprocess.Popen(
        [sys.executable, "-c", SECURED], env=bare | secured, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        address = next(line for line in process.stdout if line.startswith("at ")).split()[1]
        join = [sys.executable, "-c", JOIN]
        env = bare | path | {"RAY_ADDRESS": address}
        done = subprocess.run(join, env=env, capture_output=True, text=True)
        assert done.stdout.strip() == "1", done.stderr
        if mode == "token":
            refused = subprocess.run(join, env=bare | {"RAY_ADDRESS": address}, capture_output=True, text=True)
            assert refused.stdout.startswith(f"no Ray cluster at '{address}'")
            assert token not in refused.stdout + refused.stderr
        process.communicate("")


@pytest.mark.slow
def test_a_start_that_fails_leaves_no_process_that_the_next_try_would_compete_with() -> None:
    late = {"RAY_testing_asio_delay_us": "NodeInfoGcsService.grpc_server.RegisterNode=90000000:90000000"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | late, capture_output=True, text=True)
    said, left = done.stdout.strip().splitlines()
    assert said.startswith("no Ray cluster at 'local'")
    assert left == "0"


def test_a_job_understands_what_the_command_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own flags, such as --json, are none of the job's settings."""
    from covseg.settings.score import ScoreSettings
    from flows.cli import app as cli

    told = []

    def refuse(settings: ScoreSettings, *_: object) -> None:
        told.append(ScoreSettings.model_validate_json(settings.model_dump_json()))
        raise UsageError("enough")

    monkeypatch.setattr("workers.scoring.score_by_job", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    assert cli.run(["score", str(tmp_path), str(tmp_path / "dest"), "--json", "--log", "json", "--batch", "3"]) == 2
    assert [settings.batch for settings in told] == [3]


def test_a_job_of_another_covseg_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from workers import scoring_job

    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert scoring_job.run(['{"source": "a", "dest": "b", "novelty": 1}', "lease", "600"]) == 4
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "EnvironmentFailed"
    assert "does not take the settings novelty: another covseg" in said["message"]
