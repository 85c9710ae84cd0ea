"""A scoring as a Ray job, on two machines with a token: submitted once, followed again, and ended with who asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covseg.archive.lease import FOLDER
from covseg.errors import EnvironmentFailed, UsageError
from covseg.settings.score import ScoreSettings
from covseg.storage import LocalStore
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from covseg.verify import verify
from tests.conftest import free_port
from tests.nodes import Machines

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

IMAGES, MANY, SHARD = 24, 500, 2
CANARY = "DOE-JANE-19540321"


def make_archive(folder: Path, images: int) -> Path:
    for number in range(images):
        (folder / f"{CANARY}-{number:03}.png").write_bytes(encode(make_phantom(number, 256, 256), "png"))
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"), IMAGES)


@pytest.fixture(scope="module")
def long_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many images that a job is still at them when it is to end."""
    return make_archive(tmp_path_factory.mktemp("long"), MANY)


@pytest.fixture
def server(ray_machines: tuple[Machines, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The job server of two machines, to which `RAY_ADDRESS` leads."""
    monkeypatch.setenv("RAY_ADDRESS", ray_machines[1])
    return ray_machines[1]


def settings(archive: Path, dest: Path) -> ScoreSettings:
    return ScoreSettings(source=str(archive), dest=str(dest), shard_size=SHARD, workers=2)


FOLLOW = """
import json, signal, sys
from covseg.settings.score import ScoreSettings
from workers.jobs import score_by_job
signal.signal(signal.SIGTERM, signal.default_int_handler)
note = lambda line: print(line, file=sys.stderr, flush=True)
settings = ScoreSettings.model_validate_json(sys.argv[1])
summary = score_by_job(settings, sys.argv[2], note=note, stale_s=float(sys.argv[3]))
print(json.dumps(summary.as_dict()))
"""


def follow(wanted: ScoreSettings, server: str, stale_s: float = 600) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", FOLLOW, wanted.model_dump_json(), server, str(stale_s)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def jobs(server: str, wanted: ScoreSettings) -> list[Any]:
    from workers.jobs import _Client, _jobs, job_name

    return _jobs(_Client(server), job_name(wanted))


def commits(dest: Path) -> int:
    return len(list((dest / "commits").glob("*.json")))


def await_that(true: Callable[[], bool], seconds: float = 900) -> float:
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds
        time.sleep(0.05)
    return time.monotonic() - start


def await_commit(dest: Path, process: subprocess.Popen[str]) -> None:
    await_that(lambda: commits(dest) >= 1 or process.poll() is not None)
    assert process.poll() is None, process.communicate()


def workers_of(dest: Path) -> list[int]:
    """Return the job's driver processes that score into `dest`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"workers.scoring_job" in words and any(str(dest).encode() in word for word in words):
            found.append(int(folder.name))
    return found


def test_a_job_scores_and_tells_and_is_submitted_once_for_one_owner(server: str, archive: Path, tmp_path: Path) -> None:
    from workers.jobs import score_by_job

    wanted, told, notes = settings(archive, tmp_path / "dest"), [], []
    summary = score_by_job(wanted, server, lambda progress: told.append(progress.finished), notes.append, "run-1")
    assert (summary.statuses, summary.accepted, summary.finished) == ({"scored": IMAGES}, True, IMAGES)
    assert told == list(range(SHARD, IMAGES + 1, SHARD))
    events = [json.loads(note) for note in notes]
    assert [event["event"] for event in events].count("shard committed") == IMAGES // SHARD
    assert len({event["run"] for event in events[1:]}) == 1
    assert verify(LocalStore(tmp_path / "dest")).breaches == []
    again = score_by_job(wanted, server, owner="run-1")
    assert again == summary
    assert len(jobs(server, wanted)) == 1
    assert score_by_job(wanted, server, owner="run-2").finished == 0
    assert len(jobs(server, wanted)) == 2
    (job, _) = jobs(server, wanted)
    said = json.dumps([vars(job), notes], default=str)
    ids = [path.name.split("-")[0] for path in (tmp_path / "dest" / "masks").iterdir()]
    assert not [secret for secret in (CANARY, os.environ["COVSEG_PROJECT_KEY"], *ids) if secret in said]
    assert not list((tmp_path / "dest" / FOLDER).iterdir())


def test_who_comes_back_after_a_kill_follows_the_same_job(server: str, archive: Path, tmp_path: Path) -> None:
    wanted = settings(archive, tmp_path)
    first = follow(wanted, server)
    await_commit(tmp_path, first)
    first.kill()
    first.communicate()
    second = follow(wanted, server)
    said, notes = second.communicate()
    assert second.returncode == 0, notes
    assert json.loads(said)["finished"] == IMAGES
    assert '"event": "followed"' in notes
    assert [job.status.name for job in jobs(server, wanted)] == ["SUCCEEDED"]


def test_a_job_ends_within_ten_seconds_of_a_cancel(server: str, long_archive: Path, tmp_path: Path) -> None:
    wanted = settings(long_archive, tmp_path)
    process = follow(wanted, server)
    await_commit(tmp_path, process)
    assert workers_of(tmp_path)
    process.terminate()
    took = await_that(lambda: not workers_of(tmp_path), 10)
    print(f"the job's driver was gone after {took:.1f} s")
    process.communicate()
    left = commits(tmp_path)
    time.sleep(3)
    assert commits(tmp_path) == left < MANY // SHARD


def test_a_job_ends_itself_when_its_lease_is_given_up_or_stale(server: str, long_archive: Path, tmp_path: Path) -> None:
    for name, stale_s, given_up in (("given up", 600, True), ("stale", 5, False)):
        dest = tmp_path / name
        process = follow(settings(long_archive, dest), server, stale_s)
        await_commit(dest, process)
        process.kill()
        process.communicate()
        if given_up:
            for lease in (dest / FOLDER).glob("covseg-score-*"):
                lease.unlink()
        took = await_that(lambda: not workers_of(dest), 10 if given_up else 60)  # noqa: B023
        print(f"{name}: the job's driver was gone after {took:.1f} s")
        assert commits(dest) < MANY // SHARD
    resumed = follow(settings(long_archive, tmp_path / "stale"), server)
    said, notes = resumed.communicate()
    assert json.loads(said)["statuses"] == {"scored": MANY}, notes


def test_what_ended_a_job_is_raised_here(server: str, archive: Path, tmp_path: Path) -> None:
    from workers.jobs import score_by_job

    with pytest.raises(UsageError, match="nothing to score"):
        score_by_job(settings(archive, tmp_path / "dest").model_copy(update={"include": "*.dcm"}), server)


def test_a_wrong_address_and_a_wrong_token_are_said(
    server: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.jobs import score_by_job

    nowhere = f"http://127.0.0.1:{free_port()}"
    with monkeypatch.context() as patch, pytest.raises(EnvironmentFailed, match="no Ray job server at"):
        patch.setenv("RAY_ADDRESS", nowhere)
        score_by_job(settings(archive, tmp_path), nowhere)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    process = follow(settings(archive, tmp_path), server)
    _, said = process.communicate()
    assert process.returncode == 1
    assert "no Ray job server at" in said
    assert "b" * 64 not in said


def test_the_command_takes_the_job_servers_address_too(server: str, archive: Path, tmp_path: Path) -> None:
    words = ["score", str(archive), str(tmp_path / "dest"), "--json", "--shard-size", "4", "--workers", "2"]
    done = subprocess.run([sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statuses"] == {"scored": IMAGES}
