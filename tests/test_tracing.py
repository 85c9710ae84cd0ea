"""Spans of OpenTelemetry: one a shard, in whatever its SDK exports to, and nothing without it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from covseg.archive import Outcome
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from workers import tracing
from workers.telemetry import StageClock, Telemetry

CANARY = "DOE-JANE-19540321"
OUTCOME = Outcome("0f", True, "b2", {"scored": 3, "quarantined": 1}, {"empty": 1}, {"open": 1.5, "model": 2.0})


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing.trace, "get_tracer", provider.get_tracer)
    return exporter


def test_a_committed_shard_is_a_span_with_run_counts_and_seconds_by_stage(exporter: InMemorySpanExporter) -> None:
    began = time.time() - 5
    Telemetry("a1").finished(OUTCOME, began)
    (span,) = exporter.get_finished_spans()
    assert span.attributes == {
        "covseg.run": "a1", "covseg.shard": "0f", "covseg.images": 4, "covseg.scored": 3, "covseg.quarantined": 1,
        "covseg.seconds.open": 1.5, "covseg.seconds.model": 2.0,
    }  # fmt: skip
    assert span.start_time == int(began * 1e9)
    assert 5 <= (span.end_time - span.start_time) / 1e9 < 60
    assert span.status.is_unset


def test_a_shard_that_was_given_up_is_a_span_with_an_error_and_no_text_of_it(exporter: InMemorySpanExporter) -> None:
    Telemetry("a1").retried("0f", OSError(CANARY), time.time())
    Telemetry("a1").lost_images("1f", 7, time.time())
    retried, left_open = exporter.get_finished_spans()
    assert (retried.status.is_ok, retried.status.description) == (False, "OSError")
    assert left_open.attributes["covseg.missing_or_changed"] == 7
    assert CANARY not in retried.to_json()


def test_a_span_belongs_to_the_one_that_is_open(exporter: InMemorySpanExporter) -> None:
    with tracing.trace.get_tracer("flow").start_as_current_span("flow") as flow:
        Telemetry().finished(OUTCOME, time.time())
    assert exporter.get_finished_spans()[0].parent.span_id == flow.get_span_context().span_id


def test_seconds_by_stage_are_those_since_they_were_taken() -> None:
    clock = StageClock()
    for name in ("open", "open", "model"):
        with clock.stage(name):
            time.sleep(0.01)
    taken = clock.take()
    assert set(taken) == {"open", "model"}
    assert taken["open"] >= 0.02
    assert clock.take() == {}


def test_without_a_tracer_a_shard_costs_next_to_nothing() -> None:
    start = time.process_time()
    for _ in range(1_000):
        tracing.record_shard(0.0, {"run": "a1"})
    assert time.process_time() - start < 0.5


def test_without_the_package_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "opentelemetry", None)
        assert importlib.reload(tracing).trace is None
        tracing.record_shard(time.time(), {"run": "a1"})
    assert importlib.reload(tracing).trace is not None


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP endpoint, and what was sent to it."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


@pytest.mark.ray
def test_a_scoring_under_opentelemetry_sends_a_span_a_shard_and_no_key(
    ray_cluster: str, collector: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    pytest.importorskip("opentelemetry.distro", reason="no opentelemetry-distro: wanted the extra otel")
    (tmp_path / "in").mkdir()
    for seed in range(6):
        (tmp_path / "in" / f"{CANARY}-{seed}.png").write_bytes(encode(make_phantom(seed, 256, 256), "png"))
    begin = Path(sys.executable).with_name("opentelemetry-instrument")
    score = ["-m", "flows.cli", "score", str(tmp_path / "in"), str(tmp_path / "out"), "--shard-size", "2", "--json"]
    environment = os.environ | {
        "OTEL_TRACES_EXPORTER": "otlp_proto_http", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector[0],
    }  # fmt: skip
    done = subprocess.run([begin, sys.executable, *score], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    spans = [
        span
        for body in collector[1]
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if span.name == "covseg.shard"
    ]
    found = [{pair.key: pair.value for pair in span.attributes} for span in spans]
    assert sum(attributes["covseg.images"].int_value for attributes in found) == 6
    assert len({attributes["covseg.shard"].string_value for attributes in found}) == 3
    assert {attributes["covseg.run"].string_value for attributes in found} == {
        json.loads(done.stdout.splitlines()[-1])["published_by"]
    }
    for stage in ("open", "model", "finish", "encode", "commit"):
        assert all(attributes[f"covseg.seconds.{stage}"].double_value > 0 for attributes in found)
    assert not any(
        CANARY.encode() in body or os.environ["COVSEG_PROJECT_KEY"].encode() in body for body in collector[1]
    )
