"""Rows S of the fault matrix: a bucket behind a proxy that breaks what passes; whole runs of the bookkeeping over it.

The images are bytes that a made pipeline answers; what a fault may not do is change an answer, lose or double a row.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from covseg.archive import Run
from covseg.errors import EnvironmentFailed, StorageDenied, StorageFull, StorageUnreachable
from covseg.storage import Store, open_store
from covseg.storage.objects import ObjectStore
from covseg.storage.s3 import S3Store
from covseg.verify import verify
from tests.archives import make_run, score
from tests.conftest import DATA

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(900)]

IMAGES = 24
BODY = 20_000  # bytes: a fault at byte 2,000 of an answer is in a body
PLANNED = {f"{number:03}.png": random.Random(number).randbytes(BODY) for number in range(IMAGES)}
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY")
Fault = Callable[[Any], None]


@pytest.fixture(params=["s3", "az"])
def bucket(request: pytest.FixtureRequest) -> str:
    return f"{request.param}://{request.getfixturevalue(request.param + '_bucket')}"


@pytest.fixture
def proxy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The way to the server, faultless until told otherwise."""
    path = DATA.parent / "tools" / "faultproxy.py"
    if not path.is_file():
        pytest.skip(f"no fault proxy at {path}")
    spec = importlib.util.spec_from_file_location("faultproxy", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    setting = {"s3": "AWS_ENDPOINT_URL", "az": "AZURE_STORAGE_ENDPOINT"}[bucket.partition(":")[0]]
    server = urlsplit(os.environ[setting])
    found = module.FaultProxy((server.hostname, server.port)).start()
    monkeypatch.setenv(setting, f"http://127.0.0.1:{found.port}{server.path}")
    yield found
    found.clear()
    found.cut_all()


@pytest.fixture
def stores(proxy: Any, bucket: str) -> tuple[Store, Run]:
    """A bucket with the images, and a destination in it, both behind the proxy, with deadlines of seconds."""
    source, dest = open_store(f"{bucket}/in"), open_store(f"{bucket}/out")
    assert isinstance(source, S3Store | ObjectStore)
    assert isinstance(dest, S3Store | ObjectStore)
    source.deadline_s = dest.deadline_s = 20
    for key, data in PLANNED.items():
        source.write(key, data)
    return source, make_run(dest)


def rows(dest: Store) -> list[dict[str, Any]]:
    return pq.read_table(pa.BufferReader(dest.read("severity.parquet"))).to_pylist()


def assert_whole(run: Run) -> None:
    """Every image once, scored from its own bytes, and a destination that the checker believes."""
    found = rows(run.dest)
    assert {row["key"]: row["sha256"] for row in found} == {
        key: hashlib.sha256(data).hexdigest() for key, data in PLANNED.items()
    }
    assert Counter(row["status"] for row in found) == {"scored": IMAGES}
    assert verify(run.dest).breaches == []


def refuse_some(proxy: Any) -> None:
    draw = random.Random(1)
    proxy.http = lambda *_: (503, "SlowDown") if draw.random() < 0.2 else None


def delay(proxy: Any) -> None:
    proxy.latency = 0.5


def reset(proxy: Any) -> None:
    proxy.reset_down_after, proxy.budget = 7_001, 4


def truncate(proxy: Any) -> None:
    proxy.trunc_down_after, proxy.budget = 9_003, 4


def flip(proxy: Any) -> None:
    proxy.flip_down, proxy.budget = 5_000, 2


def stall(proxy: Any) -> None:
    proxy.stall = True
    threading.Timer(3, lambda: setattr(proxy, "stall", False)).start()


def lose_replies(proxy: Any) -> None:
    """Let the first commit and the manifest be written, and their answers be lost."""
    seen = set()

    def look(method: str, path: str, _: int) -> None:
        kind = next((name for name in ("/commits/", "/manifests/") if method == "PUT" and name in path), None)
        if kind and kind not in seen:
            seen.add(kind)
            proxy.reset_on, proxy.budget = b"HTTP/1.1 20", 1

    proxy.http = look


@pytest.mark.parametrize("fault", [refuse_some, delay, reset, truncate, flip, stall, lose_replies])
def test_a_run_through_a_fault_is_whole(proxy: Any, stores: tuple[Store, Run], fault: Fault) -> None:
    source, run = stores
    fault(proxy)
    try:
        score(run, source, shard_size=6)
    finally:
        proxy.clear()
    assert_whole(run)


def refuse_all(proxy: Any) -> None:
    proxy.http = lambda *_: (503, "SlowDown")


def swallow_all(proxy: Any) -> None:
    proxy.stall = True


def expire(proxy: Any) -> None:
    proxy.http = lambda *_: (403, "ExpiredToken")


def fill(proxy: Any) -> None:
    proxy.http = lambda method, *_: (403, "QuotaExceeded") if method == "PUT" else None


@pytest.mark.parametrize(
    ("fault", "error"),
    [(refuse_all, StorageUnreachable), (swallow_all, StorageUnreachable), (expire, StorageDenied), (fill, StorageFull)],
)
def test_a_fault_for_ever_ends_the_run_by_its_deadline_blames_no_image_and_the_next_run_goes_on(
    proxy: Any, stores: tuple[Store, Run], fault: Fault, error: type[EnvironmentFailed]
) -> None:
    source, run = stores
    requests = len(proxy.log)
    later = threading.Timer(0.7, lambda: fault(proxy))
    later.start()
    start = time.monotonic()
    with pytest.raises(error) as raised:
        while True:  # a run that was faster than the fault is followed by one that meets it
            score(run, source, shard_size=1)
    assert time.monotonic() - start < 90
    assert len(proxy.log) > requests
    assert not any(os.environ.get(name, "none") in str(raised.value) for name in SECRETS)
    proxy.clear()
    score(run, source, shard_size=1)
    assert_whole(run)
