"""What an image of training costs in CPU time: one process, and two ranks that share the same global batch.

Every way runs in processes of its own, a thread and a core each; CPU-seconds (user + system, all threads)
are taken between two steps inside the first epoch, so that imports, validation and pictures are left out.
Ways take turns, and the median of the rounds is told. Ratios travel, absolute figures do not.

Run: ``python -m tests.benchmarks.bench_training [--recipe fast] [--steps 24] [--rounds 3]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WARM = 4  # steps before the clock starts


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.socket() as check_conditional_writes:
        check_conditional_writes.bind(("127.0.0.1", 0))
        return int(check_conditional_writes.getsockname()[1])


def one_rank(root: Path, recipe_name: str, settings: list[str], place: tuple[int, int, int]) -> dict[str, float]:
    """Train one epoch as rank `index` of `world`; return CPU and wall seconds of the timed steps, and the waiting."""
    index, world, port = place
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[index % len(cores)]})
    import cv2
    import torch
    import torch.distributed as dist

    from covseg.errors import Stopped
    from covseg.training.job import Hooks, TrainingJob
    from covseg.training.ranks import Rank
    from covseg.training.recipe import load_recipe
    from covseg.training.train import train

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=index, world_size=world)
    marks: list[tuple[int, float, float, float]] = []

    def step_done(step: int, _: int, row: dict[str, float]) -> None:
        marks.append((step, time.process_time(), time.perf_counter(), row["data_wait_share"]))

    steps = int(os.environ["BENCH_STEPS"])
    hooks = Hooks(step_done=step_done, stop=lambda: len(marks) == WARM + steps)
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(Stopped):
        train(load_recipe(recipe_name, settings), TrainingJob(root, Path(out)), hooks, Rank(index, world))
    first, last = marks[WARM - 1], marks[WARM + steps - 1]
    return {"cpu": last[1] - first[1], "wall": last[2] - first[2], "wait": last[3]}


def measure(root: Path, flags: argparse.Namespace, world: int) -> dict[str, float]:
    """Run `world` ranks; return milliseconds an image, all ranks together."""
    port = free_port()
    words = [sys.executable, "-m", "tests.benchmarks.bench_training", "--recipe", flags.recipe, "--root", str(root)]
    words += [word for one in flags.set for word in ("--set", one)]
    environment = {**os.environ, "BENCH_STEPS": str(flags.steps), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*words, "--place", str(index), str(world), str(port)], stdout=subprocess.PIPE, env=environment
        )
        for index in range(world)
    ]
    told: list[dict[str, Any]] = [json.loads(rank.communicate()[0].splitlines()[-1]) for rank in ranks]
    images = flags.steps * flags.batch
    return {
        "cpu_ms": 1e3 * sum(one["cpu"] for one in told) / images,
        "wall_ms": 1e3 * max(one["wall"] for one in told) / images,
        "wait": max(one["wait"] for one in told),
    }


def main() -> None:
    """Measure, and print a line a way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--place", type=int, nargs=3)
    flags = parser.parse_args()
    from covseg.training.recipe import load_recipe

    if flags.place:
        print(json.dumps(one_rank(flags.root, flags.recipe, flags.set, tuple(flags.place))))
        return
    flags.batch = load_recipe(flags.recipe, flags.set).batch
    from covseg.synthetic.phantom.writer import write_dataset

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_dataset(root, {"Train": (flags.steps + WARM + 1) * flags.batch, "Val": 8})
        rounds = [{world: measure(root, flags, world) for world in (1, 2)} for _ in range(flags.rounds)]
    found = {
        world: {name: statistics.median(one[world][name] for one in rounds) for name in rounds[0][world]}
        for world in (1, 2)
    }
    for world, told in found.items():
        print(
            f"{world} rank(s), global batch {flags.batch}: {told['cpu_ms']:8.1f} CPU-ms an image, "
            f"{told['wall_ms']:8.1f} ms, {100 * told['wait']:.1f} % of a step is data and augmentation"
        )
    ratios = [one[2]["cpu_ms"] / one[1]["cpu_ms"] for one in rounds]
    each = ", ".join(f"{one:.3f}" for one in ratios)
    print(f"two ranks: x {statistics.median(ratios):.3f} CPU an image (rounds {each})")
    print(f"two ranks: x {found[1]['wall_ms'] / found[2]['wall_ms']:.2f} images a second")


if __name__ == "__main__":
    main()
