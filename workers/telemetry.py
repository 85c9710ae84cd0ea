"""What an operator sees of a scoring: Ray's counters and gauges, one JSON line an event, one span a shard.

Ray's machines export the numbers, with ``ray_`` before each name, for a Prometheus to scrape; the board is
``infra/monitoring/board.json``. Neither numbers nor lines nor spans hold a source key, an input id or a secret.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TextIO

from ray.util.metrics import Counter, Gauge

from covseg.archive import Outcome, Plan
from covseg.errors import Reason
from covseg.outcome import PreparedImage, Refused, Result
from covseg.pipeline import Pipeline
from covseg.records import Entry, Prediction
from covseg.storage import Store
from workers.tracing import record_shard

LOG = logging.getLogger("covseg.scoring")


class JsonLines(logging.Formatter):
    """A line of JSON a record: time, level, event, and what belongs to it, run and shard among it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", {})
        return json.dumps({"time": when, "level": record.levelname, "event": record.getMessage(), **fields})


@contextlib.contextmanager
def json_lines(output: TextIO) -> Iterator[None]:
    """Write what happens to shards as JSON lines while the context is open."""
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonLines())
    level, forwards = LOG.level, LOG.propagate
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        LOG.propagate = forwards


class Telemetry:
    """The driver's numbers and lines of one run; `run` is its attempt id."""

    def __init__(self, run: str = "") -> None:
        self._run = run
        self._images = Counter("covseg_images", "Images that came to an end.", ("status", "reason"))
        self._shards = Counter("covseg_shards", "Shards by what became of them.", ("outcome",))
        self._planned = Gauge("covseg_images_planned", "Images of the snapshot under way.")
        self._in_flight = Gauge("covseg_shards_in_flight", "Shards and trials that workers have.")
        self._waiting = Gauge("covseg_shards_waiting", "Shards and trials that wait for a second try.")

    def planned(self, plan: Plan) -> None:
        """Tell how large the snapshot is."""
        self._planned.set(plan.images)
        self._say("planned", plan=plan.number, images=plan.images, shards=plan.shards)

    def finished(self, outcome: Outcome, began_s: float) -> None:
        """Count a committed shard and its images."""
        self._shards.inc(1, {"outcome": "committed"})
        refused = sum(outcome.reasons.values())
        for reason, count in outcome.reasons.items():
            self._images.inc(count, {"status": Reason(reason).status, "reason": reason})
        if scored := sum(outcome.statuses.values()) - refused:
            self._images.inc(scored, {"status": "scored", "reason": ""})
        self._say("shard committed", shard=outcome.shard, **dict(outcome.statuses))
        seconds = {f"seconds.{stage}": taken for stage, taken in outcome.seconds.items()}
        counts = {"images": sum(outcome.statuses.values()), **outcome.statuses, **seconds}
        record_shard(began_s, {"run": self._run, "shard": outcome.shard, **counts})

    def retried(self, shard: str, why: BaseException, began_s: float) -> None:
        """Count a shard that a worker, a machine or the store gave up."""
        self._shards.inc(1, {"outcome": "retried"})
        self._say("shard retried", logging.WARNING, shard=shard, why=type(why).__name__)
        record_shard(began_s, {"run": self._run, "shard": shard}, why)

    def lost_images(self, shard: str, count: int, began_s: float) -> None:
        """Count a shard that is left open, because too many of its images are missing or changed."""
        self._shards.inc(1, {"outcome": "left_open"})
        self._say("shard left open", logging.WARNING, shard=shard, missing_or_changed=count)
        record_shard(began_s, {"run": self._run, "shard": shard, "missing_or_changed": count})

    def isolating(self, shard: str, images: int) -> None:
        """Tell that the images of a shard that cost workers are tried one by one."""
        self._say("shard isolated", logging.WARNING, shard=shard, images=images)

    def queue(self, in_flight: int, waiting: int) -> None:
        """Tell how much is under way, and how much waits for a second try."""
        self._in_flight.set(in_flight)
        self._waiting.set(waiting)

    def published(self, snapshot: int, accepted: bool) -> None:
        """Tell that the snapshot exists."""
        self._say("published", snapshot=snapshot, accepted=accepted)

    def _say(self, event: str, level: int = logging.INFO, **fields: object) -> None:
        LOG.log(level, event, extra={"fields": {"run": self._run, **fields}})


class StageClock:
    """A decode worker's seconds by stage, bytes and model images; its threads may share it."""

    def __init__(self) -> None:
        self._seconds = Counter("covseg_stage_seconds", "Seconds of workers by stage, waiting included.", ("stage",))
        self._bytes = Counter("covseg_read_bytes", "Bytes of source images that were listed and opened.")
        self._images = Counter("covseg_model_images", "Images that went through the model.")
        self._taken: dict[str, float] = {}
        self._taking = threading.Lock()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds that the context is open."""
        start = time.monotonic()
        try:
            yield
        finally:
            taken = max(time.monotonic() - start, 1e-9)
            self._seconds.inc(taken, {"stage": name})
            with self._taking:
                self._taken[name] = self._taken.get(name, 0.0) + taken

    def take(self) -> dict[str, float]:
        """Return the seconds by stage since the last call."""
        taken, self._taken = self._taken, {}
        return taken

    def opened(self, size: int) -> None:
        """Count the bytes of an image."""
        if size:
            self._bytes.inc(size)

    def through_model(self, images: int) -> None:
        """Count the images of a batch."""
        self._images.inc(images)


class ClockedPipeline(Pipeline):
    """A pipeline that counts what its two ends take."""

    def __init__(self, pipeline: Pipeline, clock: StageClock) -> None:
        super().__init__(pipeline.model, pipeline.config, pipeline.bucket, pipeline.key, pipeline.dicom)
        self._clock = clock

    def open_image(self, store: Store, entry: Entry) -> PreparedImage | Refused:
        """Fetch, read and prepare one image."""
        self._clock.opened(entry.size)
        with self._clock.stage("open"):
            return super().open_image(store, entry)

    def finish(self, image: PreparedImage, prediction: Prediction) -> Result:
        """Take one prediction through the stages behind the model."""
        with self._clock.stage("finish"):
            return super().finish(image, prediction)
