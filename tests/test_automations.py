"""Prefect's automations of infra/automations: each is taken by a real server, and one rings where it was told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from string import Template
from typing import Any

import pytest

pytest.importorskip("prefect")
pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]

FOLDER = Path(__file__).resolve().parents[1] / "infra" / "automations"
NAMES = ("crashed", "failed", "late", "nothing-new", "out-of-scope", "stranded", "zombie")


def summary_of(**statuses: int) -> Any:
    from workers.summary import Summary

    images = sum(statuses.values())
    return Summary(
        snapshot=7, images=images, finished=images, retried=0, accepted=False, published_by="tests", mine=True,
        statuses=statuses, reasons={}, report="", table="", max_failed=0.05, max_out_of_scope=1, max_missing=0.01,
        hide_keys=False, start_s=0, score_s=0, publish_s=0, grades={"mild": 6},
    )  # fmt: skip


@pytest.fixture(scope="module")
def heard() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook on loopback; yields its URL and what it was sent."""
    sent: list[dict[str, Any]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", sent
    server.shutdown()


@pytest.fixture(scope="module")
def registered(
    prefect_server: Path, heard: tuple[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    """All files, their block put in as the runbook says; yields what the server made of them."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.client.orchestration import get_client

    url, _ = heard
    block = CustomWebhookNotificationBlock(
        name="tests", url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    document = str(block.save("covseg-tests", overwrite=True))
    folder = tmp_path_factory.mktemp("automations")
    for path in FOLDER.glob("*.yaml"):
        made = folder / path.name
        made.write_text(Template(path.read_text()).substitute(COVSEG_NOTIFY=document))
        command = [sys.executable, "-m", "prefect", "automation", "create", "--from-file", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, cwd=folder)
        assert done.returncode == 0, (path.name, done.stdout + done.stderr)
    with get_client(sync_client=True) as client:
        answer = client._client.post("/automations/filter", json={})
    return list(answer.json())


def test_every_file_is_taken_by_the_server_and_enabled(registered: list[Any]) -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(NAMES)
    assert {one["name"] for one in registered} == {f"covseg {name.replace('-', ' ')}" for name in NAMES}
    assert all(one["enabled"] for one in registered)
    postures = {one["name"]: one["trigger"]["posture"] for one in registered}
    assert {name for name, posture in postures.items() if posture == "Proactive"} == {
        "covseg nothing new", "covseg zombie", "covseg stranded",
    }  # fmt: skip


@pytest.mark.slow
def test_a_failed_run_and_a_snapshot_out_of_scope_ring_the_webhook(
    registered: list[Any], heard: tuple[str, list[dict[str, Any]]]
) -> None:
    from prefect import flow, tags

    from covseg.errors import NotAccepted
    from flows.ending import ended
    from flows.events import tell_of_snapshot

    def work(_: object) -> tuple[str, None]:
        tell_of_snapshot(summary_of(scored=6, out_of_scope=4), "s3://scored/tests")
        raise NotAccepted("snapshot 7 is published, not accepted: for the test")

    @flow(name="score", persist_result=False)
    def score() -> Any:
        return ended(work, None)

    with tags("scoring"), pytest.raises(NotAccepted, match="for the test"):
        score()
    until = time.monotonic() + 120
    _, sent = heard
    wanted = {"covseg: a run failed", "covseg: much is out of scope"}
    while time.monotonic() < until and not wanted <= {one["subject"] for one in sent}:
        time.sleep(0.5)
    said = {one["subject"]: one["body"] for one in sent}
    assert "snapshot 7 is published, not accepted" in said["covseg: a run failed"]
    assert "s3://scored/tests 40 % or more" in said["covseg: much is out of scope"]


def test_a_flow_ends_with_its_numbers_and_without_a_traceback(
    prefect_server: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect import flow, task

    from covseg.errors import UsageError
    from flows.ending import ended

    @task
    def breaks() -> None:
        raise UsageError("found this, wanted that")

    def fail(_: object) -> tuple[str, None]:
        breaks()
        raise AssertionError

    @flow(persist_result=False)
    def whole() -> Any:
        return ended(lambda _: ("12 images, 1 refused", {"images": 12}), None)

    @flow(persist_result=False)
    def broken() -> Any:
        return ended(fail, None)

    state = whole(return_state=True)
    assert state.is_completed() and state.message == "12 images, 1 refused"
    assert whole() == {"images": 12}
    state = broken(return_state=True)
    assert state.is_failed() and state.message == "UsageError: found this, wanted that"
    assert "Traceback" not in caplog.text
    with pytest.raises(UsageError, match="wanted that"):
        broken()
