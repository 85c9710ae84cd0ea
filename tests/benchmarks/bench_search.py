"""What a search costs by itself: trials that train nothing, through Ray and the study; trials a second, and memory.

    python -m tests.benchmarks.bench_search [--trials 400] [--parallel 2]

One cluster of two cores, SQLite, seven parameters, two reports a trial. Every hundred trials a line: trials a second
since the last line, the driver's CPU time a trial, and its resident memory in MB. Ratios travel, absolute
figures do not.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from covseg.settings.search import SearchSettings
from tests.search.trivial import drive
from workers.cluster import connect
from workers.search.driver import SearchHooks
from workers.search.records import TrialRecord

EVERY = 100


def memory() -> int:
    """Return the resident memory of this process, in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) // 1024


def main() -> None:
    """Measure, and print a line every hundred trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--parallel", type=int, default=2)
    flags = parser.parse_args()
    ended, last, spent = 0, time.perf_counter(), time.process_time()

    def changed(record: TrialRecord) -> None:
        nonlocal ended, last, spent
        ended += record.state != "running"
        if record.state != "running" and ended % EVERY == 0:
            now, cpu = time.perf_counter(), time.process_time()
            rate, own = EVERY / (now - last), 1000 * (cpu - spent) / EVERY
            print(f"{ended:>6} trials  {rate:5.1f} a second  {own:6.0f} CPU-ms each  {memory():>5} MB", flush=True)
            last, spent = now, cpu

    with tempfile.TemporaryDirectory() as out, connect("local", cpus=2):
        given = SearchSettings(
            space="fast-space", data="nowhere", out=out, trials=flags.trials, parallel=flags.parallel, pruning=False
        )
        last = time.perf_counter()
        drive(given, SearchHooks(changed))


if __name__ == "__main__":
    main()
