"""One machine's server, worker and Ray: started, known again, and stopped with nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from covseg.errors import EnvironmentFailed
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from flows.cli import app as cli
from flows.machine import processes, state
from flows.machine.processes import MARK, Process
from tests.conftest import free_port
from workers.head import STARTED

PROJECT = Path(__file__).resolve().parents[1]
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
SLEEP = "import time; time.sleep(600)"
# A leader with a child in a session of its own, as Prefect starts a run, and one that outlives SIGTERM.
TREE = f"""
import signal, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True)
stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + {SLEEP!r}
subprocess.Popen([sys.executable, "-c", stubborn])
time.sleep(600)
"""


@pytest.fixture
def bystander() -> Iterator[Process]:
    """A process that looks the same and is not ours."""
    with subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True) as process:
        seen = processes._look(process.pid)
        assert seen is not None
        yield seen.process
        process.kill()


def begin(tmp_path: Path, code: str, mark: str) -> Process:
    environment = os.environ | {MARK: mark}
    return processes.start([sys.executable, "-c", code], environment, tmp_path / "log", tmp_path)


def await_family(leader: Process, count: int, mark: str = "none") -> set[Process]:
    until = time.monotonic() + 20
    while len(found := processes.family([leader], mark)) < count and time.monotonic() < until:
        time.sleep(0.05)
    return found


def test_a_leader_goes_with_all_that_it_started_and_nothing_else(
    tmp_path: Path, bystander: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 5.0)
    leader = begin(tmp_path, TREE, "a1")
    found = await_family(leader, 3)
    assert len(found) == 3 and bystander not in found
    assert processes.stop(leader, found) == 3
    assert not any(map(processes.alive, found))
    assert processes.alive(bystander)
    assert processes.stop(leader, found) == 0


def test_what_outlives_a_killed_leader_is_known_by_its_mark(tmp_path: Path, bystander: Process) -> None:
    leader = begin(tmp_path, TREE, "a2")
    assert len(await_family(leader, 3)) == 3
    os.kill(leader.pid, signal.SIGKILL)
    while processes.alive(leader):
        time.sleep(0.02)
    left = processes.family([], "a2")
    assert len(left) == 2 and bystander not in left
    for process in left:
        os.kill(process.pid, signal.SIGKILL)


def test_a_pid_that_another_process_has_now_is_left_alone(bystander: Process) -> None:
    recorded = Process(bystander.pid, bystander.began - 1)
    assert not processes.alive(recorded)
    assert bystander not in processes.family([recorded], "none")
    assert processes.stop(recorded, []) == 0
    assert processes.alive(bystander)


@pytest.mark.parametrize("flag", ["--port", "--ray-port", "--dashboard-port"])
def test_a_port_that_is_taken_is_named_with_its_flag_and_nothing_starts(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        words = free_ports()
        words[words.index(flag) + 1] = str(port)
        assert cli.run(["up", "--state", str(tmp_path / "state"), *words]) == 2
    said = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 cannot be had" in said and f"another with {flag}" in said
    assert not (tmp_path / "state" / "processes.json").exists()
    assert list(tmp_path.glob("covseg-ray-*")) == []


def test_down_where_nothing_was_started_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["down", "--state", str(tmp_path / "none"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"stopped": {}}
    assert not (tmp_path / "none").exists()


def test_a_record_that_is_none_of_ours_stops_up_and_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "processes.json").write_text("[]")
    for command in ("up", "down"):
        assert cli.run([command, "--state", str(tmp_path)]) == 2
        assert "is no record of covseg up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("slow", "words"), [(1, "timed out during startup"), (9, "timed out during startup"), (1, "x")]
)
def test_ray_begins_again_only_where_it_ran_out_of_its_own_patience(
    tmp_path: Path, bystander: Process, slow: int, words: str
) -> None:
    pytest.importorskip("prefect", reason="the flow extra is not installed")
    from flows.machine.up import _await_ray

    log, begun = tmp_path / "logs" / "ray.log", []
    log.parent.mkdir()
    record = state.Record("a3", state.Ports(1, 2, 3), ray_folder="", started={"server": bystander})

    def begin() -> None:
        begun.append("ray")
        ended = len(begun) <= slow
        log.write_text(words if ended else STARTED)
        record.started["ray"] = Process(2**22 + 1, 0) if ended else bystander

    begin()
    if slow == 1 and words != "x":
        _await_ray(tmp_path, record, begin, lambda _: None)
    else:
        with pytest.raises(EnvironmentFailed, match="ray ended at its start"):
            _await_ray(tmp_path, record, begin, lambda _: None)
    assert len(begun) == {"x": 1}.get(words, min(slow + 1, 3))
    assert processes.alive(bystander)


def test_one_up_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.machine.state import locked

    with locked(tmp_path):
        assert cli.run(["up", "--state", str(tmp_path)]) == 2
    assert "another covseg up or down is at work" in capsys.readouterr().err


def free_ports() -> list[str]:
    flags = ("--port", "--ray-port", "--dashboard-port")
    return [word for flag in flags for word in (flag, str(free_port()))]


def covseg(*words: str, home: Path, check: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, env=clean(home))
    assert done.returncode == check, done.stdout + done.stderr
    return done.stdout


def clean(home: Path) -> dict[str, str]:
    """The environment of a fresh shell, in which covseg is installed."""
    return {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}


@pytest.mark.slow
@pytest.mark.flow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_an_archive_is_scored_between_up_and_down_and_nothing_is_left(tmp_path: Path) -> None:
    from tests.test_cluster import listening, sockets_below

    images, dest, home = tmp_path / "images", tmp_path / "scored", tmp_path / "home"
    images.mkdir()
    home.mkdir()
    for seed in range(8):
        (images / f"{seed}.png").write_bytes(encode(make_phantom(seed, 256, 256), "png"))
    ports = free_ports()
    try:
        up = json.loads(covseg("up", *ports, "--json", home=home))
        assert up["started"] and set(up["pids"]) == {"server", "ray", "worker"}

        again = json.loads(covseg("up", *ports, "--json", home=home))
        assert not again["started"] and again["pids"] == up["pids"]
        covseg("up", *free_ports(), home=home, check=2)  # it runs on other ports

        state = Path(up["environment"]).parent
        assert state == home / ".local" / "state" / "covseg" / "up" and stat.S_IMODE(state.stat().st_mode) == 0o700
        for name in ("environment", "prefect-auth", "ray-token", "processes.json"):
            assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
        secrets = [(state / name).read_text() for name in ("prefect-auth", "ray-token")]
        assert not any(secret in log.read_text() for log in (state / "logs").iterdir() for secret in secrets)
        known = listening()
        sockets = {socket for pid in up["pids"].values() for socket in sockets_below(pid)} & known.keys()
        assert {known[one] for one in sockets} <= LOOPBACK and len(sockets) > 5

        lines = f". {up['environment']}; prefect deployment run score/archive --watch -p source={images} -p dest={dest}"
        script = lines.replace("prefect ", f"{sys.executable} -m prefect ")
        run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=clean(home))
        assert "Completed" in run.stdout, run.stdout + run.stderr
        assert (dest / "report.html").exists()

        doctor = f". {up['environment']}; {sys.executable} -m flows.cli doctor {dest} --json"
        asked = subprocess.run(["sh", "-c", doctor], capture_output=True, text=True, env=clean(home))
        found = {one["name"]: one["state"] for one in json.loads(asked.stdout)["checks"]}
        assert asked.returncode == 0 and set(found.values()) <= {"ok", "warn"}, asked.stdout
        assert found["server"] == found["worker"] == found["ray"] == found["storage"] == found["clock"] == "ok"

        os.kill(up["pids"]["worker"], signal.SIGKILL)  # the next up starts what died, and only that
        mended = json.loads(covseg("up", *ports, "--json", home=home))
        assert mended["started"] and mended["pids"]["server"] == up["pids"]["server"]
        assert mended["pids"]["worker"] != up["pids"]["worker"]
        mark = json.loads((state / "processes.json").read_text())["mark"]
    finally:
        stopped = json.loads(covseg("down", "--json", home=home))["stopped"]
    assert stopped["server"] and stopped["worker"] and stopped["ray"] > 5
    assert processes.family([], mark) == set()
    assert json.loads(covseg("down", "--json", home=home)) == {"stopped": {}}


@pytest.mark.slow
@pytest.mark.flow
@pytest.mark.timeout(300)
def test_ctrl_c_during_up_stops_what_it_began(tmp_path: Path) -> None:
    home = tmp_path
    command = [sys.executable, "-m", "flows.cli", "up", *free_ports()]
    record = home / ".local" / "state" / "covseg" / "up" / "processes.json"
    with subprocess.Popen(command, env=clean(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        while not record.exists() or len(json.loads(record.read_text())["started"]) < 2:
            assert up.poll() is None
            time.sleep(0.1)
        content = json.loads(record.read_text())
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=120)
    assert up.returncode == 130
    assert not record.exists()
    assert not any(processes.alive(Process(*known)) for known in content["started"].values())
    assert processes.family([], content["mark"]) == set()
