"""Bulk scoring on a real Ray cluster: the same table as predict, and whatever is killed, the same bytes.

Needs the `ray_cluster` fixture; images are phantoms of 256 pixels, six shards of four.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from covseg.archive import Shard, pending
from covseg.errors import EnvironmentFailed, ImagesLost, UsageError
from covseg.records import Entry
from covseg.settings.score import ScoreSettings
from covseg.storage import LocalStore
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from covseg.verify import verify
from workers.scheduler import Scheduler
from workers.scoring import open_work, score_archive
from workers.summary import Progress, Summary

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

IMAGES, SHARD = 24, 4
PUBLISHED = ("severity.parquet", "severity.csv", "report.html")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-two images, a text and half an image."""
    folder = tmp_path_factory.mktemp("archive")
    add_images(folder, range(IMAGES - 2))
    (folder / "notes.png").write_text("not an image")
    (folder / "half.png").write_bytes(encode(make_phantom(99, 256, 256), "png")[:2000])
    return folder


def add_images(folder: Path, seeds: range) -> None:
    for seed in seeds:
        (folder / f"film-{seed:03}.png").write_bytes(encode(make_phantom(seed, 256, 256), "png"))


def settings(archive: Path, dest: Path, **changes: object) -> ScoreSettings:
    usual = {"source": str(archive), "dest": str(dest), "shard_size": SHARD, "max_failed": 0.2, "workers": 2}
    return ScoreSettings.model_validate(usual | changes)


def run_score(
    archive: Path, dest: Path, tell: Callable[[Progress], None] = lambda _: None, **changes: object
) -> Summary:
    return score_archive(settings(archive, dest, **changes), tell)


def command(archive: Path, dest: Path) -> list[str]:
    options = ["--shard-size", str(SHARD), "--max-failed", "0.2", "--workers", "2", "--json"]
    return [sys.executable, "-m", "flows.cli", "score", str(archive), str(dest), *options]


def start(archive: Path, dest: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command(archive, dest), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def published(dest: Path) -> dict[str, str]:
    return {name: hashlib.sha256((dest / name).read_bytes()).hexdigest() for name in PUBLISHED}


def commits(dest: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (dest / "commits").glob("*.json")}


def pids(name: str, driver: int | None = None) -> list[int]:
    """Return the processes of one kind of Ray worker, of the cluster that `driver`, or this session, started."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(f"ray::{name}".encode()):
                raylet = parent(int(folder.name))
                found += [int(folder.name)] if parent(raylet) == (driver or os.getpid()) else []
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def await_commits(dest: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(commits(dest)) < count and process.poll() is None:
        time.sleep(0.02)


@pytest.fixture(scope="module")
def unbroken(ray_cluster: str, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a run that nobody disturbed has published."""
    dest = tmp_path_factory.mktemp("unbroken") / "dest"
    summary = run_score(archive, dest)
    assert summary.finished == summary.images == IMAGES
    assert summary.mine
    assert summary.statuses == {"scored": 22, "out_of_scope": 1, "quarantined": 1}
    yield dest


def test_score_and_predict_write_the_same_table(unbroken: Path, archive: Path, tmp_path: Path) -> None:
    words = ["predict", str(archive), "-o", str(tmp_path), "--overlay", "none"]
    subprocess.run([sys.executable, "-m", "flows.cli", *words], check=True, stdout=subprocess.DEVNULL)
    ours, theirs = (pq.read_table(folder / "severity.parquet").to_pylist() for folder in (unbroken, tmp_path))
    assert [row | {"mask_uri": None} for row in ours] == [row | {"mask_uri": None} for row in theirs]


def test_a_second_run_scores_nothing_and_changes_no_byte(unbroken: Path, archive: Path) -> None:
    before = published(unbroken), commits(unbroken)
    summary = run_score(archive, unbroken)
    assert (summary.finished, summary.mine) == (0, False)
    assert (published(unbroken), commits(unbroken)) == before


def test_only_new_images_are_scored(unbroken: Path, archive: Path, tmp_path: Path) -> None:
    source, dest = tmp_path / "source", tmp_path / "dest"
    source.mkdir()
    add_images(source, range(6))
    assert run_score(source, dest).finished == 6
    before = commits(dest)
    add_images(source, range(6, 16))
    summary = run_score(source, dest)
    assert (summary.snapshot, summary.finished, summary.images) == (2, 10, 16)
    assert before.items() <= commits(dest).items()


@pytest.mark.parametrize("worker", ["ModelWorker", "DecodeWorker"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_worker_costs_nothing_but_time(
    unbroken: Path, archive: Path, tmp_path: Path, worker: str, seed: int
) -> None:
    moment = random.Random(seed).randrange(1, 4)
    killed = []

    def kill(progress: Progress) -> None:
        if progress.shards == moment:
            killed.append(random.Random(seed).choice(pids(worker)))
            os.kill(killed[0], signal.SIGKILL)

    summary = run_score(archive, tmp_path, kill)
    assert killed
    assert summary.finished == IMAGES
    assert summary.retried <= 2
    assert published(tmp_path) == published(unbroken)


def test_what_ray_tells_of_a_lost_worker_stays_out_of_the_summary(
    ray_cluster: str, archive: Path, tmp_path: Path
) -> None:
    process = start(archive, tmp_path)
    await_commits(tmp_path, 1, process)
    os.kill(pids("DecodeWorker")[0], signal.SIGKILL)
    output, _ = process.communicate()
    assert json.loads(output)["retried"] == 1


class Hunted(Scheduler):
    """Kills whoever takes the last shard."""

    def _launch(self, shard: Shard) -> None:
        super()._launch(shard)
        if self._progress.shards == 5:
            while not (found := pids("DecodeWorker.score")):
                time.sleep(0.01)
            os.kill(found[0], signal.SIGKILL)


def test_a_shard_that_always_loses_its_worker_ends_the_run_and_keeps_the_others(
    ray_cluster: str, archive: Path, tmp_path: Path
) -> None:
    with open_work(settings(archive, tmp_path)) as work:
        plan = work.plan()
        work.pool.start_decoders(work.job, 1)
        with pytest.raises(EnvironmentFailed, match="lost its worker 3 times"):
            Hunted(work.pool, Progress(IMAGES), lambda _: None, 600).dispatch(pending(work.job.run, plan))
    assert len(commits(tmp_path)) == 5


class Deadly(LocalStore):
    """A source with images that take down whoever reads them."""

    deadly: tuple[str, ...] = ("film-003.png",)

    def fetch(self, entry: Entry) -> bytes:
        if entry.key in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fetch(entry)


def test_an_image_that_kills_its_workers_is_refused_and_the_others_are_scored(
    unbroken: Path, archive: Path, tmp_path: Path
) -> None:
    with open_work(settings(archive, tmp_path)) as work:
        plan = work.plan()
        work.job = replace(work.job, source=Deadly(archive))
        progress = work.score(plan)
        summary = work.publish(plan, progress)
    assert (summary.finished, summary.retried, summary.reasons["worker_killed"]) == (IMAGES, 2, 1)
    ours, theirs = (pq.read_table(folder / "severity.parquet").to_pylist() for folder in (tmp_path, unbroken))
    (refused,) = (row for row in ours if row["key"] == "film-003.png")
    assert (refused["status"], refused["stage"]) == ("quarantined", "worker")
    assert [row for row in ours if row is not refused] == [row for row in theirs if row["key"] != "film-003.png"]


@pytest.mark.slow
def test_three_poison_images_among_two_hundred_hold_up_no_other_shard(ray_cluster: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    add_images(source, range(200))
    seconds = {}
    for name, deadly in (("without", ()), ("with", ("film-003.png", "film-004.png", "film-117.png"))):
        finished: list[tuple[float, int]] = []
        store = Deadly(source)
        store.deadly = deadly
        with open_work(settings(source, tmp_path / name, workers=4, shard_size=25)) as work:
            plan = work.plan()
            work.job = replace(work.job, source=store)
            start = time.monotonic()
            progress = work.score(plan, lambda done: finished.append((time.monotonic() - start, done.finished)))  # noqa: B023
            seconds[name] = time.monotonic() - start
            summary = work.publish(plan, progress)
        assert summary.statuses == {"scored": 200 - len(deadly), **({"quarantined": 3} if deadly else {})}
    sound = next(when for when, images in finished if images >= 150)  # the six shards without poison
    print(f"wall {seconds['without']:.1f} s without poison, {seconds['with']:.1f} s with; others done at {sound:.1f} s")
    assert sound < seconds["with"]


@pytest.mark.parametrize("shards", [1, 3])
def test_a_killed_run_resumes_to_the_same_bytes(unbroken: Path, archive: Path, tmp_path: Path, shards: int) -> None:
    process = start(archive, tmp_path)
    await_commits(tmp_path, shards, process)
    process.kill()
    process.communicate()
    before = commits(tmp_path)
    assert len(before) >= shards
    summary = run_score(archive, tmp_path)
    assert summary.finished <= IMAGES - SHARD * len(before)
    assert before.items() <= commits(tmp_path).items()
    assert published(tmp_path) == published(unbroken)


def test_sigterm_stops_the_workers_and_says_how_to_resume(ray_cluster: str, archive: Path, tmp_path: Path) -> None:
    process = start(archive, tmp_path)
    await_commits(tmp_path, 1, process)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert shlex.join(["covseg", *command(archive, tmp_path)[3:]]) in said
    assert not list((tmp_path / "manifests").glob("*"))
    for _ in range(100):
        if not pids("DecodeWorker") + pids("ModelWorker"):
            break
        time.sleep(0.1)
    assert not pids("DecodeWorker") + pids("ModelWorker")


@pytest.mark.slow
def test_a_run_whose_only_machine_dies_fails_and_the_next_one_resumes(
    unbroken: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("RAY_ADDRESS")  # a Ray of its own
        process = start(archive, tmp_path)
        await_commits(tmp_path, 2, process)
        os.kill(parent(pids("DecodeWorker", process.pid)[0]), signal.SIGKILL)
        process.communicate(timeout=120)
    assert process.returncode not in (0, 3)
    before = commits(tmp_path)
    assert run_score(archive, tmp_path).finished == IMAGES - SHARD * len(before)
    assert published(tmp_path) == published(unbroken)


def test_two_identical_runs_at_once_publish_one_snapshot(unbroken: Path, archive: Path, tmp_path: Path) -> None:
    both = [start(archive, tmp_path) for _ in range(2)]
    summaries = [json.loads(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(list((tmp_path / "manifests").iterdir())) == 1
    assert sorted(summary["mine"] for summary in summaries) == [False, True]
    assert len({summary["published_by"] for summary in summaries}) == 1
    assert published(tmp_path) == published(unbroken)


def test_no_progress_ends_the_run(ray_cluster: str, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="no shard finished"):
        run_score(archive, tmp_path, timeout_s=0.01)


def test_a_destination_of_another_config_is_refused(unbroken: Path, archive: Path) -> None:
    with pytest.raises(UsageError, match="batch"):
        run_score(archive, unbroken, batch=2)


def test_a_source_inside_the_destination_is_refused_before_anything_is_written(archive: Path) -> None:
    before = sorted(archive.parent.iterdir())
    with pytest.raises(UsageError, match="lie inside each other"):
        run_score(archive, archive.parent)
    assert sorted(archive.parent.iterdir()) == before


def test_too_many_quarantined_images_are_published_but_not_accepted(
    ray_cluster: str, archive: Path, tmp_path: Path
) -> None:
    summary = run_score(archive, tmp_path, include="[hf]*[f0].png", max_failed=0.0)  # half.png and images of tens
    assert not summary.accepted
    assert summary.exit_code == 3


def test_a_folder_that_vanishes_is_not_taken_for_missing_images_and_is_scored_once_it_is_back(
    ray_cluster: str, tmp_path: Path
) -> None:
    source, dest, away = (tmp_path / name for name in ("source", "dest", "away"))
    for name, seeds in (("a", range(8)), ("b", range(8, 16))):
        (source / name).mkdir(parents=True)
        add_images(source / name, seeds)

    def unmount(progress: Progress) -> None:
        if progress.shards == 1:
            (source / "b").rename(away)

    with pytest.raises(ImagesLost, match=rf"8 of 16 planned .* 8 under {source}/b; mount or restore") as raised:
        run_score(source, dest, unmount, workers=1)
    assert raised.value.exit_code == 3
    assert not (dest / "manifests").exists()
    assert len(commits(dest)) == 2
    away.rename(source / "b")
    summary = run_score(source, dest)
    assert (summary.finished, summary.statuses, summary.accepted) == (8, {"scored": 16}, True)


def test_a_few_images_that_were_removed_are_missing_and_published(ray_cluster: str, tmp_path: Path) -> None:
    source, dest = tmp_path / "source", tmp_path / "dest"
    source.mkdir()
    add_images(source, range(8))
    summary = run_score(source, dest, lambda _: (source / "film-007.png").unlink(missing_ok=True), workers=1,
                        max_missing=0.125)  # fmt: skip
    assert (summary.statuses, summary.accepted) == ({"scored": 7, "missing": 1}, True)
    assert verify(LocalStore(dest)).breaches == []


def test_a_dry_run_counts_and_writes_nothing(archive: Path, tmp_path: Path) -> None:
    words = ["score", str(archive), str(tmp_path / "dest"), "--dry-run", "--json"]
    said = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], check=True, capture_output=True, text=True
    ).stdout
    told = json.loads(said)
    assert told["images"] == told["sampled"] == IMAGES
    assert told["kinds"] == {"png": 22}
    assert sum(told["refusals"].values()) == 2
    assert told["output_bytes"] > 0
    assert not (tmp_path / "dest").exists()
