"""Planning and publishing of synthetic keys, without pixels: wall time, CPU time and peak memory of each step.

    python -m tests.benchmarks.bench_archive [--keys 5000 20000] [--large] [--plan-only]

`--large` is 100,000 and 400,000 keys, some ten minutes; `--plan-only` lists and plans, and no more. Every count runs
in a process of its own, so that peaks do not mix. `peak_mb` holds the pages of mapped scratch files, which the system
takes back when it needs them; `own_mb` is without them. Listing is from a store that makes its pages up; everything
else goes to a folder on this disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from covseg.archive import PublishOptions, commit_shard, key_id, make_plan, open_run, pending, publish
from covseg.errors import Status
from covseg.records import Entry, Row, input_id
from covseg.settings.score import ScoringConfig
from covseg.storage import LocalStore, MemoryStore, Page
from covseg.verify import verify

KEY = b"a key for the bench"
CONFIG = ScoringConfig(
    model_id="bench",
    weights_sha256="0" * 64,
    model_settings={},
    backend="onnxruntime cpu fp32",
    batch=4,
    code_version="1",
)


class Endless(MemoryStore):
    """A bucket of `count` images whose listing is computed, not kept."""

    def __init__(self, count: int) -> None:
        super().__init__(name="endless")
        self.count = count

    def list_page(self, after: str | None = None, limit: int = 1000, prefix: str = "") -> Page:
        """List the next page."""
        start = int(after[5:15]) + 1 if after else 0
        stop = min(start + limit, self.count)
        listed = [Entry(f"site/{number:010}.png", 100_000, f"{number:032x}") for number in range(start, stop)]
        return Page(listed, listed[-1].key if stop < self.count else None)


def row_of(entry: Entry) -> Row:
    """Return a full row; one in fifty repeats the content of another image."""
    number = int(entry.etag, 16)
    digest = hashlib.sha256(b"%d" % (number if number % 50 else number // 2)).hexdigest()
    share = int(digest[:6], 16) / 0xFFFFFF
    fractions = {
        f"infected_fraction_{side}{zone}": round(share * weight, 6)
        for side in ("right", "left")
        for zone, weight in (("", 1.0), ("_upper", 0.5), ("_middle", 1.1), ("_lower", 1.3))
    }
    return Row(
        input_id=input_id(KEY, "bench", entry.key, entry.etag), key=entry.key, etag=entry.etag, sha256=digest,
        size=entry.size, status=Status.SCORED, height=1024, width=1024, infected_fraction=share, **fractions,
        lung_area_px=300_000, lung_area_fraction=0.3, infected_area_px=int(300_000 * share), grade="mild",
        extent_0_8=3, zones_extent_0_24=9, zones_affected_0_6=4, grade_table="made", zone_method="made",
        infection_probability=share, threshold=0.5, component_count=3, largest_component_share=0.5,
        lung_ratio_right_left=1.1, infection_outside_lung_fraction=0.01, gate_score=share,
        model_id=CONFIG.model_id, weights_sha256=CONFIG.weights_sha256, config_sha256=CONFIG.digest,
        backend=CONFIG.backend, code_version=CONFIG.code_version,
    )  # fmt: skip


def measure(count: int, plan_only: bool = False) -> dict[str, Any]:
    """Run every step once in this process; return seconds and the peak resident memory after each, in MB."""
    results: dict[str, Any] = {"images": count}
    with tempfile.TemporaryDirectory(prefix="covseg-bench-") as folder:
        dest = LocalStore(Path(folder) / "dest")
        run = open_run(dest, dest, CONFIG, key_id(KEY), "none")
        source = Endless(count)
        plan = _timed(results, "plan", lambda: make_plan(run, source))
        results["plan_bytes"] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        if plan_only:
            return results

        def commit() -> None:
            for shard in pending(run, plan):
                commit_shard(run, shard, [row_of(entry) for entry in shard.entries], {}, "bench")

        _timed(results, "commit", commit)
        _timed(results, "publish", lambda: publish(run, plan, PublishOptions(pictures=0), None, "bench"))
        _timed(results, "plan again", lambda: make_plan(run, source))
        verdict = _timed(results, "verify", lambda: verify(dest))
        results["holds"] = not verdict.breaches
    return results


def _timed(results: dict[str, Any], step: str, work: Callable[[], Any]) -> Any:
    """Run a step; note its time, its peak resident memory, and how much of that was not file cache."""
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    own, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            own[0] = max(own[0], _memory("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done.set()
    watcher.join()
    results[step] = {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_mb": _memory("VmHWM"), "own_mb": own[0]}
    return result


def _memory(name: str) -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) // 1024


def main() -> None:
    """Measure each count in a fresh process, or in this one with ``--here``."""
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(measure(int(sys.argv[2]), plan_only=sys.argv[3:] == ["--plan-only"])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--large", action="store_const", dest="keys", const=[100_000, 400_000])
    parser.add_argument("--plan-only", action="store_const", dest="only", const=["--plan-only"], default=[])
    flags = parser.parse_args()
    for count in flags.keys:
        words = ["-m", "tests.benchmarks.bench_archive", "--here", str(count), *flags.only]
        subprocess.run([sys.executable, *words], check=True)


if __name__ == "__main__":
    main()
