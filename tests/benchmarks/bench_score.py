"""What scoring through Ray costs beside `covseg predict`: start-up apart, then images per second and CPU per image.

Every way runs in a process of its own, held to one core or two. Rates are taken from the second quarter of
the shards on, when every worker is warm; CPU-seconds are those of the process and all that it started.

Run: ``python -m tests.benchmarks.bench_score [--images 2000] [--size 1024]``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_predict import cost, export, write_images

TICK = os.sysconf("SC_CLK_TCK")


def cpu_of_tree(root: int) -> float:
    """Return user + system seconds of a process and all that live below it."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
            spent[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICK
    tree = {root}
    for _ in range(6):
        tree |= {child for child, parent in parents.items() if parent in tree}
    return sum(spent.get(pid, 0.0) for pid in tree)


def score_once(source: str, dest: str, cores: int, shard_size: int) -> dict[str, Any]:
    """Score a folder in this process and return what it took."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from covseg.settings.score import ScoreSettings
    from workers.scoring import score_archive
    from workers.summary import Progress

    marks: list[tuple[int, float, float]] = []

    def tell(progress: Progress) -> None:
        marks.append((progress.finished, time.perf_counter(), cpu_of_tree(os.getpid())))

    settings = ScoreSettings(source=source, dest=dest, workers=cores, shard_size=shard_size)
    summary = score_archive(settings, tell)
    first, last = marks[len(marks) // 4], marks[-1]
    images = last[0] - first[0]
    return {
        "wall_ms": 1e3 * (last[1] - first[1]) / images,
        "cpu_ms": 1e3 * (last[2] - first[2]) / images,
        "start_s": summary.start_s,
        "publish_s": summary.publish_s,
    }


def measure(folder: Path, cores: int, shard_size: int) -> dict[str, Any]:
    """Run `score_once` in a process of its own."""
    with tempfile.TemporaryDirectory() as dest:
        words = ["-m", "tests.benchmarks.bench_score", "--once", str(folder), dest, str(cores), str(shard_size)]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Measure, and print a line a way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--once", nargs=4)
    flags = parser.parse_args()
    if flags.once:
        source, dest, cores, shard_size = flags.once
        print(json.dumps(score_once(source, dest, int(cores), int(shard_size))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["COVSEG_CACHE"] = f"{scratch}/cache"  # inherited by every process below
        export()  # beside both ways, or the first would pay for it
        folders = {count: Path(scratch) / str(count) for count in (4, flags.images)}
        for count, folder in folders.items():
            write_images(folder, count, flags.size)
        found = {}
        for cores in (1, 2):
            words = ["-m", "flows.cli", "predict", "-o", f"{scratch}/out", "--overlay", "none", "--no-pictures"]
            words += ["--streams", str(cores)]
            found["predict", cores] = cost(lambda count, w=words: [*w, str(folders[count])], flags.images, cores)
            found["score", cores] = measure(folders[flags.images], cores, max(8, min(256, flags.images // 16)))
            for way in ("predict", "score"):
                told = "  ".join(f"{name} {value:8.2f}" for name, value in found[way, cores].items())
                print(f"{way:<8} {cores} core(s)  {told}", flush=True)
            share = found["predict", cores]["wall_ms"] / found["score", cores]["wall_ms"]
            print(f"score at {share:.2f} of predict's rate on {cores} core(s)", flush=True)
        print(f"1 -> 2 cores: x {found['score', 1]['wall_ms'] / found['score', 2]['wall_ms']:.2f}")


if __name__ == "__main__":
    main()
