"""One whole run, server, Ray job and all, in a network of its own that leads nowhere: what it leaves, whom it calls."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode

pytestmark = [
    pytest.mark.slow, pytest.mark.flow, pytest.mark.ray, pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own wants root"),
    pytest.mark.skipif(not (shutil.which("strace") and shutil.which("ip")), reason="no strace or ip: Debian packages"),
]  # fmt: skip

PROJECT = Path(__file__).resolve().parents[1]
PATIENT, KEY, SECRET = "DOE-JANE-19540321", "a-project-key-canary-7f3a", "an-s3-secret-canary-9c1e"
RUN = """
set -e
ip link set lo up
covseg score "$SOURCE" "$DEST-alone" --workers 1
covseg up --port 4200 --ray-port 6379 --dashboard-port 8265
STATE="$HOME/.local/state/covseg/up"
. "$STATE/environment"
python -m prefect deployment run score/archive --watch -p source=$SOURCE -p dest=$DEST -p workers=1 -p shard_size=4 \\
    --job-variable 'env={"RAY_ADDRESS": "http://127.0.0.1:8265"}'
RAY_ADDRESS=http://127.0.0.1:8265 python -m ray.scripts.scripts job list > "$OUT/jobs"
RAY=$(python -c "import json; print(json.load(open('$STATE/processes.json'))['ray_folder'])")
cp -rL "$RAY/session_latest/logs" "$OUT/ray-logs"
covseg down
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the run has left: `home` with Prefect's database and logs, `out` with Ray's, `dest`, and `trace`."""
    folder = tmp_path_factory.mktemp("run")
    for name in ("home", "out", "source", "bin"):
        (folder / name).mkdir()
    for seed in range(7):
        (folder / "source" / f"{PATIENT}-{seed}.png").write_bytes(encode(make_phantom(seed, 256, 256), "png"))
    (folder / "source" / f"{PATIENT}.png").write_text("no image")
    (folder / "bin" / "covseg").write_text(f'#!/bin/sh\nexec {sys.executable} -m flows.cli "$@"\n')
    (folder / "bin" / "covseg").chmod(0o755)
    environment = {
        "HOME": str(folder / "home"),
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "SOURCE": str(folder / "source"),
        "DEST": str(folder / "dest"),
        "OUT": str(folder / "out"),
        "COVSEG_PROJECT_KEY": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    words = ["unshare", "-n", "strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect", "-e", "signal=none"]
    done = subprocess.run(
        [*words, "-o", folder / "trace", "bash", "-c", RUN], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Completed" in done.stdout
    (folder / "out" / "said").write_text(done.stdout + done.stderr)
    return folder


def test_nothing_but_loopback_is_called(left: Path) -> None:
    calls = re.findall(r'connect\(\d+, \{sa_family=AF_INET6?.*?"([0-9a-f.:]+)"', (left / "trace").read_text())
    assert len(calls) > 50
    assert {call for call in calls if not call.startswith("127.") and call not in ("::1", "::ffff:127.0.0.1")} == set()


def test_no_patient_no_input_and_no_secret_stands_where_it_does_not_belong(left: Path) -> None:
    """In Prefect's database and its dump, logs of every part, job metadata, artifacts, report, manifest and commits."""
    state, dest = left / "home" / ".local" / "state" / "covseg" / "up", left / "dest"
    held = [KEY, SECRET, *((state / name).read_text() for name in ("prefect-auth", "ray-token"))]
    ids = [path.name.split("-")[0] for path in (dest / "masks").iterdir()]
    assert len(ids) == 7
    with sqlite3.connect(state / "prefect" / "prefect.db") as database:
        (left / "out" / "dump").write_text("\n".join(database.iterdump()))
    assert "score-summary" in (left / "out" / "dump").read_text()
    assert list((left / "out" / "ray-logs").glob("job-driver-covseg-score-*"))
    where = [path for folder in ("home", "out", "dest") for path in (left / folder).rglob("*") if path.is_file()]
    found = []
    for path in where:
        own = {"prefect-auth": held[2:3], "ray-token": held[3:], "environment": held[2:3]}.get(path.name, [])
        content = path.read_bytes()
        names = [PATIENT, *ids] if is_public(path, dest) else []
        found += [(str(path), canary) for canary in {*held, *names} - {*own} if canary.encode() in content]
    assert found == []


def is_public(path: Path, dest: Path) -> bool:
    """Tell what may hold neither key nor input id: all but the table, its parts, plans, and the report with ids."""
    if not path.is_relative_to(dest):
        return True
    return path.relative_to(dest).parts[0] in ("run.json", "manifests", "leases")


def test_the_report_names_no_patient_and_the_table_can_hide_the_keys(left: Path) -> None:
    report = (left / "dest" / "report.html").read_text()
    assert PATIENT not in report
    assert not re.findall(r"""(?:src|href)=["']https?://""", report)
    manifest = json.loads((left / "dest" / "manifests" / "1.json").read_text())
    assert manifest["accepted"] is True
