"""A search under kill -9 of its trials, driver, machines and PostgreSQL, in an order that a seed draws; slow."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna", reason="the search extra is not installed")
pytest.importorskip("psycopg", reason="the search-postgresql extra is not installed")

from covseg.settings.search import SearchSettings
from tests.search.postgresql import Server
from tests.search.test_storage import OPENED, SPACE, closed, kept, server
from tests.test_scoring_nodes import QUICK
from workers.cluster import STARTS
from workers.search.index import Index, Shared
from workers.search.plan import METRIC
from workers.search.records import TrialRecord, read_trials, trial_folder
from workers.search.run import plan_of, search_of

__all__ = ["closed", "server"]
OF_RAY = r"ignore::DeprecationWarning:ray\.data"
pytestmark = [
    pytest.mark.ray, pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(3600),
    pytest.mark.filterwarnings(OF_RAY),
]  # fmt: skip
TRIALS, PAUSE_S, PATIENCE_S = 40, 0.4, 900
KILLS = ["trial"] * 5 + ["driver"] * 3 + ["node"] * 3 + ["server"] * 3
NODES = """
import sys
from ray.cluster_utils import Cluster
MEMORY = {"object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **MEMORY})
print("at", cluster.address, flush=True)
for _ in sys.stdin:
    for left in (2, 1, 0):  # a loaded machine misses Ray's fixed 30 s
        try:
            node = cluster.add_node(num_cpus=1, **MEMORY)
            break
        except Exception:
            if not left:
                raise
    print("raylet", node.all_processes["raylet"][0].process.pid, flush=True)
cluster.shutdown()
"""


class Machines:
    """A Ray of two machines, of which the second may be killed and replaced."""

    def __init__(self) -> None:
        self.address = next(address for _ in range(STARTS) if (address := self._begun()))
        self.raylet = self._added()

    def _begun(self) -> str:
        words, pipe = [sys.executable, "-c", NODES], subprocess.PIPE
        self.process = subprocess.Popen(
            words, env=os.environ | QUICK, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        return self._answer("at")

    def _answer(self, first: str) -> str:
        assert self.process.stdout
        return next((words[1] for line in self.process.stdout if (words := line.split())[:1] == [first]), "")

    def _added(self) -> int:
        assert self.process.stdin
        self.process.stdin.write("add\n")
        self.process.stdin.flush()
        return int(self._answer("raylet"))

    def kill(self) -> None:
        os.kill(self.raylet, signal.SIGKILL)
        self.raylet = self._added()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(120)


@pytest.fixture
def machines() -> Iterator[Machines]:
    started = Machines()
    yield started
    started.close()


class Search:
    """A search's driver as a process, and what its folder says."""

    def __init__(self, given: SearchSettings, address: str) -> None:
        self.out = Path(given.out)
        self._words = [sys.executable, "-m", "tests.search.trivial", given.model_dump_json(), str(PAUSE_S), "stepwise"]
        self._env = os.environ | QUICK | {"RAY_ADDRESS": address}
        self.killed: set[int] = set()  # trials: of one, one process alone
        self.start()

    def start(self) -> None:
        self.driver = subprocess.Popen(self._words, env=self._env, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self.driver.kill()
        self.driver.wait()

    def ended(self) -> dict[int, tuple[TrialRecord, int]]:
        """Return the trials that have ended, and how often each was started."""
        done = [one for one in read_trials(self.out) if one.state != "running"]
        return {one.number: (one, len(self.starts(one.number))) for one in done}

    def starts(self, number: int) -> list[int]:
        path = trial_folder(self.out, number) / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def await_ended(self, count: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while len(self.ended()) < count:
            assert self.driver.poll() is None and time.monotonic() < until, "the driver ended, or nothing goes on"
            time.sleep(0.05)

    def kill_trial(self, moment: random.Random) -> None:
        """Kill the process of a running trial none of whose was killed before."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            running = [one.number for one in read_trials(self.out) if one.state == "running"]
            chosen = [number for number in running if number not in self.killed and self.starts(number)]
            moment.shuffle(chosen)
            for number in chosen:
                process = Path("/proc", str(self.starts(number)[-1]))
                if process.exists() and (process / "cmdline").read_bytes().startswith(b"ray::"):
                    os.kill(int(process.name), signal.SIGKILL)
                    self.killed.add(number)
                    return
            time.sleep(0.02)
        raise AssertionError("no trial runs")


@pytest.mark.parametrize("seed", [1])
def test_what_is_killed_anywhere_loses_no_finished_trial_and_doubles_none(
    server: Server, machines: Machines, tmp_path: Path, seed: int
) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    given = SearchSettings(
        space=str(tmp_path / "space.toml"), data="nowhere", out=str(tmp_path / "out"), trials=TRIALS, parallel=2,
        pruning=False, storage=server.url, study=f"kills-{seed}",
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    search, moment = Search(given, machines.address), random.Random(seed)
    kills = moment.sample(KILLS, len(KILLS))
    before: dict[int, tuple[TrialRecord, int]] = {}
    for kill in kills:
        search.await_ended(len(before) + moment.randrange(1, 3))
        time.sleep(moment.random())
        before = search.ended()
        print(f"seed {seed}: {len(before)} trials have ended; kill -9 of the {kill}", flush=True)
        match kill:
            case "trial":
                search.kill_trial(moment)
            case "driver":
                search.kill()
                search.start()
            case "node":
                machines.kill()
            case "server":
                server.kill()
                time.sleep(1)
                server.start()
        after = search.ended()
        assert {number: after[number] for number in before} == before, "finished trials stay as they were"
    assert search.driver.wait(PATIENCE_S) == 0
    records = read_trials(search.out)
    assert [one.number for one in records] == list(range(TRIALS))
    assert {one.state for one in records} == {"complete"}
    assert {number: search.ended()[number] for number in before} == before
    assert {one.number for one in records if one.crashes} <= search.killed, "a lost machine counts nothing"
    shared = Shared(server.url, f"kills-{seed}", search_of(given, plan_of(given)))
    found = index(search.out, given, shared)
    rows = kept(found)
    assert [(row[0], row[3]) for row in rows] == [(one.number, one.value) for one in records]
    lost(found, shared.name)
    assert kept(index(search.out, given, shared)) == rows == kept(index(search.out, given, None)), "of the folders"


def index(out: Path, given: SearchSettings, shared: Shared | None) -> Index:
    OPENED.append(Index(out, plan_of(given), given.seed, METRIC, given.pruning, shared))
    return OPENED[-1]


def lost(found: Index, name: str) -> None:
    import optuna

    optuna.delete_study(study_name=name, storage=found.study._storage)
