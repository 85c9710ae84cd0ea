"""Bulk scoring from a bucket to the same server, a Ceph gateway: whatever is killed, the same bytes.

The images are 120 of the real Val split, 15 shards of eight. The cluster is of this module, because workers
take their AWS settings from where they were started.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from covseg.archive import gc, load_run
from covseg.storage import Store, entries, open_store
from covseg.verify import verify
from tests.conftest import make_bucket
from tests.test_scoring_ray import PUBLISHED, pids

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.service, pytest.mark.timeout(1200)]

IMAGES, SHARD, LATER = 120, 8, 10
CLUSTER = """
import sys
import ray
from workers.cluster import connect
with connect("local", cpus=2):
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def images(val_root: Path) -> list[Path]:
    """As many of each class, from the `images` folders alone."""
    classes = [sorted(folder.glob("images/*.png")) for folder in sorted(val_root.iterdir())]
    return [image for group in zip(*classes, strict=False) for image in group][: IMAGES + LATER]


@pytest.fixture(scope="module")
def bucket(ceph_server: dict[str, str], images: list[Path]) -> Iterator[str]:
    """A bucket with the images below `images/first/`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ceph_server.items():
            patch.setenv(name, value)
        found = f"s3://{make_bucket()}"
        put(open_store(found), "images/first", images[:IMAGES])
        yield found


@pytest.fixture(scope="module")
def cluster(bucket: str) -> Iterator[int]:
    """The process that started a Ray of two cores, which `RAY_ADDRESS` names."""
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        words = [sys.executable, "-c", CLUSTER]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            patch.setenv("RAY_ADDRESS", process.stdout.readline().strip())
            yield process.pid
            process.communicate()  # its input ends, and it stops


def put(store: Store, folder: str, images: list[Path]) -> None:
    for image in images:
        store.write(f"{folder}/{image.parents[1].name}/{image.name}", image.read_bytes())


def start(source: str, dest: str, include: str = "first/*") -> subprocess.Popen[str]:
    words = ["score", source, dest, "--include", include, "--shard-size", str(SHARD), "--workers", "2", "--json"]
    return subprocess.Popen([sys.executable, "-m", "flows.cli", *words], stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate()
    assert process.returncode == 0, said
    summary: dict[str, Any] = json.loads(said)
    return summary


def commits(dest: str) -> list[str]:
    return [entry.key for entry in entries(open_store(dest), "commits/")]


def published(dest: str) -> dict[str, str]:
    store = open_store(dest)
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in PUBLISHED}


def rows(dest: str, folder: Path) -> list[dict[str, Any]]:
    open_store(dest).download("severity.parquet", folder / "severity.parquet")
    return pq.read_table(folder / "severity.parquet").to_pylist()


def assert_sound(dest: str) -> None:
    store = open_store(dest)
    assert verify(store).breaches == []


def await_commits(dest: str, count: int, process: subprocess.Popen[str]) -> None:
    while len(commits(dest)) < count:
        assert process.poll() is None, "the run ended before its kill"
        time.sleep(0.05)


def moments(seed: int) -> list[int]:
    """Two counts of committed shards at which something is killed."""
    draw = random.Random(seed)
    return [draw.randrange(1, 5), draw.randrange(6, 11)]


@pytest.fixture(scope="module")
def unbroken(bucket: str, cluster: int) -> str:
    """Where a run that nobody disturbed has published."""
    dest = f"{bucket}/unbroken"
    summary = finish(start(f"{bucket}/images", dest))
    assert (summary["finished"], summary["images"], summary["retried"]) == (IMAGES, IMAGES, 0)
    assert_sound(dest)
    return dest


def test_a_bucket_gives_the_rows_of_a_folder(unbroken: str, images: list[Path], tmp_path: Path) -> None:
    """All but what names the place: a bucket's ETag is an MD5, and the input id follows from it."""
    put(open_store(tmp_path / "in"), "first", images[:IMAGES])
    finish(start(str(tmp_path / "in"), str(tmp_path / "out")))
    placed = {"input_id": None, "etag": None, "mask_uri": None}
    ours, theirs = (rows(dest, tmp_path) for dest in (unbroken, str(tmp_path / "out")))
    assert [row | placed for row in ours] == [row | placed for row in theirs]


def test_two_runs_give_the_same_bytes(unbroken: str, bucket: str) -> None:
    finish(start(f"{bucket}/images", f"{bucket}/again"))
    assert published(f"{bucket}/again") == published(unbroken)


@pytest.mark.parametrize(("worker", "seed"), [("ModelWorker", 1), ("DecodeWorker", 2)])
def test_two_killed_workers_cost_nothing_but_time(
    unbroken: str, bucket: str, cluster: int, worker: str, seed: int
) -> None:
    dest = f"{bucket}/killed-{worker.lower()}"
    process = start(f"{bucket}/images", dest)
    for moment in moments(seed):
        await_commits(dest, moment, process)
        os.kill(random.Random(seed).choice(pids(worker, cluster)), signal.SIGKILL)
    summary = finish(process)
    print(f"{worker} killed at {moments(seed)} commits: {summary['retried']} shards scored again")
    assert summary["finished"] == IMAGES
    assert 1 <= summary["retried"] <= 4  # two shards in flight, two kills
    assert published(dest) == published(unbroken)
    assert_sound(dest)


@pytest.mark.parametrize("seed", [4])
def test_a_gateway_that_is_killed_and_back_after_five_seconds_costs_nothing_but_time(
    unbroken: str, bucket: str, ceph_server: dict[str, str], seed: int
) -> None:
    dest, configuration = f"{bucket}/killed-gateway", Path(ceph_server["CEPH_CONF"])
    process = start(f"{bucket}/images", dest)
    for moment in moments(seed):
        await_commits(dest, moment, process)
        os.kill(int((configuration.parent / "client.rgw.pid").read_text()), signal.SIGKILL)
        time.sleep(5)
        subprocess.run(["radosgw", "-c", configuration, "-n", "client.rgw"], check=True)
    summary = finish(process)
    print(f"gateway killed at {moments(seed)} commits: {summary['retried']} shards scored again")
    assert summary["finished"] == IMAGES
    assert published(dest) == published(unbroken)
    assert_sound(dest)
    store = open_store(dest)
    gc(load_run(store, store), 0)
    assert verify(store).orphans == 0


@pytest.mark.parametrize("seed", [3])
def test_a_twice_killed_run_resumes_to_the_same_bytes_and_then_takes_only_what_is_new(
    unbroken: str, bucket: str, images: list[Path], seed: int
) -> None:
    source, dest = f"{bucket}/images", f"{bucket}/killed-run"
    for moment in moments(seed):
        process = start(source, dest)
        await_commits(dest, moment, process)
        process.kill()
        process.communicate()
    kept = commits(dest)
    print(f"run killed at {moments(seed)} commits, {len(kept)} of {IMAGES // SHARD} shards kept")
    assert finish(start(source, dest))["finished"] == IMAGES - SHARD * len(kept)
    assert set(kept) < set(commits(dest))
    assert published(dest) == published(unbroken)
    assert finish(start(source, dest))["finished"] == 0
    assert published(dest) == published(unbroken)
    put(open_store(bucket), "images/later", images[IMAGES:])
    summary = finish(start(source, dest, "*"))
    assert (summary["snapshot"], summary["finished"], summary["images"]) == (2, LATER, IMAGES + LATER)
    assert_sound(dest)
