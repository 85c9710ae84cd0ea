"""What an operator sees: a board and alerts on metrics that exist, scraped by a real Prometheus from a run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from covseg.archive import Outcome
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from tests.conftest import await_port, free_port
from tests.nodes import Machines

ROOT = Path(__file__).resolve().parents[1]
MONITORING = ROOT / "infra" / "monitoring"
BOARD = json.loads((MONITORING / "board.json").read_text())
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
CANARY = "DOE-JANE-19540321"
IMAGES = 16


def metrics(query: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", query))


def test_the_board_has_what_grafana_needs_and_no_two_panels_in_one_place() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(BOARD)
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]]
    assert len(set(places)) == len(places)
    (source,) = BOARD["templating"]["list"]
    assert {panel["datasource"]["uid"] for panel in BOARD["panels"]} == {f"${{{source['name']}}}"}
    assert all(panel["targets"] and metrics(target["expr"]) for panel in BOARD["panels"] for target in panel["targets"])


def test_every_alert_has_a_row_in_the_runbook() -> None:
    runbook = (ROOT / "infra" / "README.md").read_text()
    assert len(RULES) >= 5
    assert not [rule["alert"] for rule in RULES if f"| alert `{rule['alert']}`" not in runbook]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: it is in Debian's package prometheus")
def test_prometheus_takes_rules_and_queries() -> None:
    done = subprocess.run(["promtool", "check", "rules", MONITORING / "alerts.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_line_names_run_and_shard_and_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    from workers.telemetry import Telemetry, json_lines

    with json_lines(sys.stderr):
        telemetry = Telemetry("a1")
        telemetry.finished(Outcome("0f", True, "b2", {"scored": 3, "quarantined": 1}, {"empty": 1}), time.time())
        telemetry.retried("0f", OSError(CANARY), time.time())
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first | {"time": ""} == {
        "time": "", "level": "INFO", "event": "shard committed", "run": "a1", "shard": "0f", "scored": 3,
        "quarantined": 1,
    }  # fmt: skip
    assert (second["event"], second["why"], second["level"]) == ("shard retried", "OSError", "WARNING")
    assert CANARY not in json.dumps(second)


@pytest.fixture
def prometheus(ray_machines: tuple[Machines, str], tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes the machines every second."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus: it is a Debian package")
    ports, port = ray_machines[0].metrics, free_port()
    content = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "alerts.yaml")],
        "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": [f"127.0.0.1:{one}" for one in ports]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(content))
    words = [
        "prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/series",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        await_port(port, process)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def ask(server: str, path: str, **parameters: str) -> Any:
    url = f"{server}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)["data"]


def images_by_status(server: str) -> Counter[str]:
    found = ask(server, "query", query="sum by (status) (last_over_time(ray_covseg_images_total[10m]))")["result"]
    return Counter({one["metric"]["status"]: int(float(one["value"][1])) for one in found})


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(1800)
def test_a_prometheus_scrapes_a_run_and_every_panel_shows_something(
    ray_machines: tuple[Machines, str], prometheus: str, tmp_path: Path
) -> None:
    archive, dest = tmp_path / "archive", tmp_path / "dest"
    archive.mkdir()
    for number in range(IMAGES - 1):
        (archive / f"{CANARY}-{number:03}.png").write_bytes(encode(make_phantom(number, 256, 256), "png"))
    (archive / f"{CANARY}.png").write_text("no image")
    words = ["score", str(archive), str(dest), "--shard-size", "2", "--workers", "2", "--log", "json", "--json"]
    env = os.environ | {"RAY_ADDRESS": ray_machines[0].address}
    time.sleep(3)  # two scrapes
    before = images_by_status(prometheus)  # of other runs on these machines
    done = subprocess.run([sys.executable, "-m", "flows.cli", *words], env=env, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 0, lines
    time.sleep(12)  # Ray hands its numbers on every 10 s at most
    scraped = set(ask(prometheus, "label/__name__/values"))
    wanted = set().union(*map(metrics, [*QUERIES, *(rule["expr"] for rule in RULES)]))
    shown = {
        query: ask(prometheus, "query", query=f"last_over_time(({query.replace('$__rate_interval', '1m')})[10m:1s])")
        for query in QUERIES
    }
    images = images_by_status(prometheus)
    series = json.dumps(ask(prometheus, "series", **{"match[]": '{__name__=~"ray_covseg.*"}'}))
    assert wanted <= scraped, wanted - scraped
    assert [query for query, answer in shown.items() if not answer["result"]] == []
    assert images - before == {"scored": IMAGES - 1, "out_of_scope": 1}
    ids = [path.name.split("-")[0] for path in (dest / "masks").iterdir()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert [event["event"] for event in events].count("shard committed") == IMAGES // 2
    assert {"run", "shard"} <= set(events[1])
    assert not [name for name in (CANARY, *ids) if name in series + "\n".join(lines)]
