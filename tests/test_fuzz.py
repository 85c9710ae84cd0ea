"""Mutated files through the reader: no crash, no hang, no memory above the limit; each is read or has its reason."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from covseg.errors import Reason

PROJECT = Path(__file__).resolve().parents[1]
MUTATIONS, AT_ONCE = 10_000, 1_000
SLOWEST_S = 10  # CPU seconds of one file
# The largest image that is read has 64 million pixels: 16 bits stored, a table's answer, and float32 beside them.
LIMIT_MIB = 2048


def fuzzed(start: int, count: int) -> dict[str, object]:
    """Read mutations in a process that may take so much memory and CPU, and no more."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (count, count + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", str(start), str(count)],
        cwd=PROJECT, env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, timeout=3600, preexec_fn=limit,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"mutation {lines[-1] if lines else start}: {done.stderr[-2000:]}"
    return json.loads(lines[-1])


def check(answers: list[dict[str, object]], count: int) -> Counter[str]:
    found = sum((Counter(answer["found"]) for answer in answers), Counter[str]())
    assert found.total() == count
    assert set(found) <= {"read", *Reason}
    assert max(answer["slowest"] for answer in answers)[0] < SLOWEST_S
    assert max(answer["peak_mib"] for answer in answers) < LIMIT_MIB
    return found


def test_three_hundred_mutations_are_read_or_refused():
    check([fuzzed(0, 300)], 300)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_mutations_are_read_or_refused():
    answers = [fuzzed(start, AT_ONCE) for start in range(0, MUTATIONS, AT_ONCE)]
    found = check(answers, MUTATIONS)
    assert len(found) > 8
    peak, slowest = max(answer["peak_mib"] for answer in answers), max(answer["slowest"] for answer in answers)
    print(f"{dict(found.most_common())}, slowest {slowest}, peak {peak} MiB")
