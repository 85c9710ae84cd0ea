"""Made archives for the bookkeeping tests: real bytes in real stores, rows as a pipeline would hand them over."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from covseg.archive import (
    Manifest,
    Plan,
    PublishOptions,
    Run,
    Shard,
    commit_shard,
    key_id,
    make_plan,
    open_run,
    pending,
)
from covseg.archive import publish as publish_snapshot
from covseg.archive.records import MaskMode
from covseg.errors import RadiographRefused, Reason, Status
from covseg.records import Entry, Row, input_id
from covseg.settings.score import ScoringConfig
from covseg.storage import MemoryStore, Store

KEY = b"a key for tests"
CONFIG = ScoringConfig(
    model_id="made", weights_sha256="0" * 64, model_settings={}, backend="none", batch=1, code_version="1"
)
LENIENT = PublishOptions(max_failed=1.0)
REFUSED = {b"text": Reason.NOT_AN_IMAGE, b"": Reason.EMPTY}


def images(count: int, name: str = "film") -> dict[str, bytes]:
    return {f"{name}-{number:05}.png": f"{name} {number}".encode() for number in range(count)}


def make_run(dest: Store | None = None, masks: MaskMode = "png", commits: Store | None = None) -> Run:
    dest = MemoryStore(name="dest") if dest is None else dest
    return open_run(dest, commits or dest, CONFIG, key_id(KEY), masks)


def make_row(source: Store, entry: Entry) -> Row:
    """Answer as the pipeline would, with numbers that follow from the bytes."""
    identity = {
        "input_id": input_id(KEY, "made", entry.key, entry.etag), "key": entry.key, "etag": entry.etag,
        "size": entry.size, "model_id": CONFIG.model_id, "weights_sha256": CONFIG.weights_sha256,
        "config_sha256": CONFIG.digest, "backend": CONFIG.backend, "code_version": CONFIG.code_version,
    }  # fmt: skip
    try:
        data = source.fetch(entry)
        if data in REFUSED:
            raise RadiographRefused(REFUSED[data], "read", "made to be refused")
    except RadiographRefused as refusal:
        reason = refusal.reason
        return Row(**identity, sha256=None, status=reason.status, reason=reason, stage=refusal.stage, detail="made")
    digest = hashlib.sha256(data)
    share = digest.digest()[0] / 255
    return Row(**identity, sha256=digest.hexdigest(), status=Status.SCORED, infected_fraction=share, height=8, width=8)


def make_rows(source: Store, shard: Shard) -> list[Row]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(partial(make_row, source), shard.entries))


def make_masks(rows: Iterable[Row]) -> dict[str, bytes]:
    return {row.input_id: f"mask of {row.sha256}".encode() for row in rows if row.status is Status.SCORED}


def commit(run: Run, source: Store, shard: Shard, attempt: str = "first") -> None:
    rows = make_rows(source, shard)
    commit_shard(run, shard, rows, make_masks(rows), attempt)


def score(
    run: Run, source: Store, attempt: str = "first", shard_size: int = 8, options: PublishOptions = LENIENT
) -> tuple[Plan, int, Manifest]:
    """Do a whole run; return its plan, how many shards it did, and the manifest."""
    plan = make_plan(run, source, shard_size=shard_size)
    done = 0
    for shard in pending(run, plan):
        commit(run, source, shard, attempt)
        done += 1
    return plan, done, publish_snapshot(run, plan, options, source, attempt)
