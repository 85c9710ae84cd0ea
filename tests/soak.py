"""Random faults on two Ray machines, for minutes or for a number of kills; nothing may be lost, doubled or blamed.

``python -m tests.soak --minutes 30`` (``make soak``). A round scores an archive into a fresh destination while a seeded
draw kills a worker, a model worker, a machine (SIGKILL), a machine as a cloud takes it back (SIGTERM), or the run
itself, which is then started again. A round is judged by `covseg verify`, by a count of its own over the table, and by
the table's bytes, which are those of the first, undisturbed round.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from covseg.storage import LocalStore
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from covseg.verify import verify
from tests.nodes import Machines, machines

FAULTS = ("worker", "model worker", "machine lost", "machine preempted", "run killed", "run stopped")
SHARD, RUNS = 4, 8
OPEN = {"RAY_AUTH_MODE": "disabled"}


@dataclass
class Result:
    """What a soak found."""

    seed: int
    rounds: int = 0
    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    lost: int = 0
    doubled: int = 0
    blamed: int = 0
    other_bytes: int = 0
    breaches: int = 0
    ended_early: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.lost + self.doubled + self.blamed + self.other_bytes + self.breaches


class Soak:
    """An archive, a cluster, a draw; rounds until somebody has had enough."""

    def __init__(self, folder: Path, cluster: Machines, images: int, seed: int) -> None:
        self.folder, self.cluster, self.images = folder, cluster, images
        self.draw, self.result = random.Random(seed), Result(seed)
        self.table, self.start = "", time.monotonic()
        self.archive = folder / "archive"
        self.archive.mkdir()
        for number in range(images):
            (self.archive / f"{number:04}.png").write_bytes(encode(make_phantom(number, 256, 256), "png"))

    def round(self, kills: int) -> None:
        """Score into a fresh destination, with so many faults at random moments."""
        dest = self.folder / f"dest-{self.result.rounds}"
        shards = self.images // SHARD
        moments = sorted(self.draw.sample(range(shards - 1), kills))
        for _ in range(RUNS):
            self.result.runs += 1
            process = self._start(dest)
            while moments and self._reached(dest, moments[0], process):
                fault = self.draw.choice(FAULTS)
                if not self._strike(fault, process):
                    continue
                moments.pop(0)
                self.result.faults[fault] += 1
                at = f"{self._commits(dest)} of {shards} shards, {time.monotonic() - self.start:.0f} s"
                print(f"round {self.result.rounds}: {fault} at {at}", flush=True)
            said, errors = process.communicate()
            if process.returncode == 0:
                self.result.retried += json.loads(said)["retried"]
                break
            if process.returncode not in (-signal.SIGKILL, -signal.SIGTERM, 130):  # SIGTERM: struck before it could say
                self.result.ended_early.append(errors.strip()[-300:])
        self._judge(dest)
        self.result.rounds += 1

    def _start(self, dest: Path) -> subprocess.Popen[str]:
        words = ["score", str(self.archive), str(dest), "--shard-size", str(SHARD), "--workers", "2", "--json"]
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *words], env=os.environ | OPEN | {"RAY_ADDRESS": self.cluster.address},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _commits(self, dest: Path) -> int:
        return len(list((dest / "commits").glob("*.json")))

    def _reached(self, dest: Path, shards: int, process: subprocess.Popen[str]) -> bool:
        while process.poll() is None:
            if self._commits(dest) >= shards and self._workers("Decode"):
                time.sleep(self.draw.random() / 4)
                return process.poll() is None
            time.sleep(0.02)
        return False

    def _workers(self, kind: str, *raylets: int) -> list[int]:
        """Return these machines', or all our machines', workers of a kind."""
        found, start = [], f"ray::{kind}Worker".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent in (raylets or self.cluster.raylets) and (folder / "cmdline").read_bytes().startswith(start):
                    found.append(int(folder.name))
        return sorted(found)

    def _strike(self, fault: str, process: subprocess.Popen[str]) -> bool:
        if fault.startswith("run"):
            process.send_signal(signal.SIGKILL if fault == "run killed" else signal.SIGTERM)
            process.wait()
        elif fault.startswith("machine"):
            if not self._workers("Decode", self.cluster.raylets[-1]):
                return False  # a machine that joined meanwhile: the run does not miss it
            victim = self.cluster.raylets.pop()
            os.kill(victim, signal.SIGKILL if fault == "machine lost" else signal.SIGTERM)
            self.cluster.add(num_cpus=1)
        else:
            if not (found := self._workers("Model" if fault == "model worker" else "Decode")):
                return False
            os.kill(self.draw.choice(found), signal.SIGKILL)
        return True

    def _judge(self, dest: Path) -> None:
        result = self.result
        result.breaches += len(verify(LocalStore(dest)).breaches)
        if not (dest / "severity.parquet").exists():
            result.lost += self.images
            return
        rows = pq.read_table(dest / "severity.parquet", columns=["key", "status"]).to_pylist()
        keys = Counter(row["key"] for row in rows)
        planned = {path.name for path in self.archive.iterdir()}
        result.lost += len(planned - set(keys))
        result.doubled += sum(count - 1 for count in keys.values()) + len(set(keys) - planned)
        result.blamed += sum(row["status"] != "scored" for row in rows)
        table = hashlib.sha256((dest / "severity.parquet").read_bytes()).hexdigest()
        self.table = self.table or table
        result.other_bytes += table != self.table


def soak(minutes: float, kills: int, images: int, seed: int, each: int) -> Result:
    """Go on for so many minutes and so many kills, whichever is later; return what was found."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, machines(OPEN, num_cpus=1) as cluster:
        cluster.add(num_cpus=1)
        work = Soak(Path(folder), cluster, images, seed)
        work.round(0)
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until or work.result.faults.total() < kills:
            work.round(each)
            print(json.dumps(vars(work.result)), flush=True)
        return work.result


def main() -> int:
    """Return 0 when nothing was lost, doubled or blamed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--each", type=int, default=4, help="faults a round")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    start = time.monotonic()
    result = soak(given.minutes, given.kills, given.images, given.seed, given.each)
    print(json.dumps(vars(result) | {"minutes": round((time.monotonic() - start) / 60, 1)}))
    return int(result.bad > 0)


if __name__ == "__main__":
    sys.exit(main())
