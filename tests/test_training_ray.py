"""Training on a real Ray cluster: what one process learns, whatever is killed, cut or resized.

Needs the `ray_cluster` fixture; images are phantoms of 96 pixels, twelve steps of two images an epoch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("albumentations", reason="the train extra is not installed")

from covseg.errors import EnvironmentFailed, Stopped, TrainingFailed, UsageError
from covseg.settings.train import TrainSettings
from covseg.storage import entries, open_store
from covseg.synthetic.phantom.writer import write_dataset
from covseg.training import run_folder
from covseg.training.job import Hooks, TrainingJob
from covseg.training.recipe import Recipe, load_recipe
from covseg.training.seeds import TrainResult
from covseg.training.train import train
from tests.test_scoring_ray import pids

# Ray Train asks Ray Data for its settings, which warn of one another.
OF_RAY = r"ignore::DeprecationWarning:ray\.data"
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200), pytest.mark.filterwarnings(OF_RAY)]

STEPS, EPOCHS = 12, 3
# The plain U-Net has no batch normalisation: it sees an image alike on any rank.
SETTINGS = (
    "network.kind=plain-unet", "network.widths=[8, 16, 32]", "input.size=128", "batch=2", f"stop.epochs={EPOCHS}",
    "loss.dice=1", "optimiser.lr=1e-3", "optimiser.schedule=cosine", "optimiser.average=0.5", "augment.mirror=0.5",
    "augment.affine=0.9", "augment.rotate=10",
)  # fmt: skip
# Sums of floats in another order, through 36 steps of Adam: 1e-5 was seen on one kind of processor, 2.4e-4 on another.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_dataset(root, {"Train": 24, "Val": 8}, size=96)
    return root


def recipe(*settings: str) -> Recipe:
    return load_recipe("unet-small", [*SETTINGS, *settings])


def on_ray(labelled: Path, out: Path, hooks: Hooks | None = None, **changes: Any) -> TrainResult:
    from workers.training import train_on_ray

    settings, resume, limit = changes.pop("settings", ()), changes.pop("resume", False), changes.pop("limit", None)
    ranks = TrainSettings(recipe="unet-small", data=str(labelled), out=str(out), **{"workers": 2} | changes)
    return train_on_ray(recipe(*settings), TrainingJob(labelled, out, resume=resume, limit=limit), ranks, hooks)


def here(labelled: Path, out: Path, hooks: Hooks | None = None, resume: bool = False) -> None:
    """Train in this process, on one thread: tiny steps on two mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(recipe(), TrainingJob(labelled, out, resume=resume), hooks)
    finally:
        torch.set_num_threads(before)


def rank_folders() -> set[Path]:
    return set(Path("/tmp").glob("covseg-unet-small-*-rank-*"))


def ranks() -> list[int]:
    return pids("RayTrainWorker")


def curves(folder: Path) -> np.ndarray:
    return np.array([[row["train_loss"], row["val_loss"]] for row in run_folder.read_rows(folder)])


def weights(folder: Path) -> bytes:
    return (folder / run_folder.WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def two_ranks(ray_cluster: str, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on two ranks that nobody disturbed."""
    out = tmp_path_factory.mktemp("runs") / "two"
    before = rank_folders()
    heard: dict[str, list[float]] = {"steps": [], "epochs": []}
    result = on_ray(
        labelled,
        out,
        Hooks(lambda step, *_: heard["steps"].append(step), lambda row, _: heard["epochs"].append(row["epoch"])),
    )
    assert rank_folders() <= before  # those of killed runs, of any test, may lie there
    assert heard["epochs"] == [1, 2, 3]
    assert heard["steps"] and heard["steps"] == sorted(heard["steps"])
    assert (result.epochs, result.images, result.out) == (EPOCHS, 8, str(out))
    return out


def test_two_ranks_learn_what_one_process_learns(two_ranks: Path, labelled: Path, tmp_path: Path) -> None:
    here(labelled, tmp_path / "one")
    np.testing.assert_allclose(curves(two_ranks), curves(tmp_path / "one"), rtol=TOLERANCE)


def test_the_run_folder_is_that_of_a_run_without_ray(two_ranks: Path) -> None:
    assert {path.name for path in two_ranks.iterdir()} == {
        "recipe.json", "run.json", "metrics.csv", "curves.png", "events", "samples", "last.pt", "weights.safetensors",
    }  # fmt: skip
    assert len(list((two_ranks / "samples").iterdir())) == EPOCHS
    assert run_folder.read_facts(two_ranks).ranks == 2


def test_more_ranks_than_places_are_refused_before_any_starts(ray_cluster: str, labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="3 ranks do not fit: the cluster has 2 cores"):
        on_ray(labelled, tmp_path, workers=3)
    with pytest.raises(EnvironmentFailed, match="2 ranks with 1 GPUs each do not fit"):
        on_ray(labelled, tmp_path, gpus=1)


def test_a_folder_with_a_run_is_refused_before_any_rank_starts(two_ranks: Path, labelled: Path) -> None:
    before = weights(two_ranks)
    with pytest.raises(UsageError, match="add --resume"):
        on_ray(labelled, two_ranks)
    assert weights(two_ranks) == before


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_killed_in_the_middle_of_an_epoch_changes_nothing(
    two_ranks: Path, labelled: Path, tmp_path: Path, victim: int
) -> None:
    killed: list[int] = []

    def kill(step: int, *_: object) -> None:
        if not killed and STEPS < step < 2 * STEPS:
            killed.append(sorted(ranks())[victim])
            os.kill(killed[0], signal.SIGKILL)

    heard: list[float] = []
    on_ray(labelled, tmp_path, Hooks(kill, lambda row, _: heard.append(row["epoch"])))
    assert killed
    assert heard.count(1) == 1, "the restart began with the last checkpoint, not anew"
    np.testing.assert_array_equal(curves(tmp_path), curves(two_ranks))
    assert weights(tmp_path) == weights(two_ranks)


@pytest.mark.slow
def test_a_run_stopped_on_two_ranks_goes_on_in_one_process_and_back(
    two_ranks: Path, labelled: Path, tmp_path: Path
) -> None:
    """The global batch and the state know nothing of the number of ranks."""
    seen = [0]

    def step_done(step: int, *_: object) -> None:
        seen[0] = step

    with pytest.raises(Stopped, match="--resume goes on"):
        on_ray(labelled, tmp_path, Hooks(step_done, stop=lambda: seen[0] > STEPS))
    progress = run_folder.load_state(tmp_path)["progress"]  # type: ignore[index]
    assert progress["epoch"] >= 1
    began = run_folder.read_facts(tmp_path)
    with pytest.raises(Stopped):
        here(labelled, tmp_path, Hooks(stop=lambda: True), resume=True)
    with pytest.raises(UsageError, match="a run goes on with what it began with"):
        on_ray(labelled, tmp_path, resume=True, limit=12)
    on_ray(labelled, tmp_path, resume=True)
    facts = run_folder.read_facts(tmp_path)
    assert [resumed["ranks"] for resumed in facts.resumed if "ranks" in resumed] == [1]
    assert facts.model_copy(update={"resumed": ()}) == began
    np.testing.assert_allclose(curves(tmp_path), curves(two_ranks), rtol=TOLERANCE)


@pytest.mark.slow
def test_an_error_that_would_come_again_ends_the_run_at_once(ray_cluster: str, labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"loss is (nan|inf) at step \d+: .*/run holds no state yet"):
        on_ray(labelled, tmp_path / "run", settings=("loss.bce=3e38",))
    with pytest.raises(UsageError, match="nowhere"):
        on_ray(tmp_path / "nowhere", tmp_path / "other")


@contextlib.contextmanager
def second_machine(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Join another node of one core to the cluster; it ends when its process group does."""
    loopback = address.replace("127.0.0.1", "[::ffff:127.0.0.1]")  # `ray start` turns the plain one into an outer one
    words = [str(Path(sys.executable).with_name("ray")), "start", f"--address={loopback}", "--num-cpus=1", "--block"]
    node = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while live_cores() < 3:
            assert node.poll() is None and time.monotonic() < deadline, "no second node joined the cluster"
            time.sleep(0.2)
        yield node
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def live_cores() -> int:
    from workers.cluster import nodes

    return sum(node.cpus for node in nodes())


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_ranks_when_a_machine_is_lost(
    ray_cluster: str, two_ranks: Path, labelled: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    with second_machine(ray_cluster) as node:

        def lose(step: int, *_: object) -> None:
            if not seen and step > 3:  # batches of three, eight steps
                seen.append(run_folder_ranks())
                os.killpg(node.pid, signal.SIGKILL)

        def run_folder_ranks() -> int:
            return len(ranks())

        on_ray(labelled, tmp_path, Hooks(lose), workers=3, least_workers=1, settings=("batch=3",))
    assert seen
    facts = run_folder.read_facts(tmp_path)
    assert (facts.resumed[-1]["ranks"] if facts.resumed else facts.ranks) == 2
    assert len(curves(tmp_path)) == EPOCHS


@pytest.mark.service
@pytest.mark.slow
def test_data_and_checkpoints_lie_in_a_bucket(
    s3_bucket: str, two_ranks: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster of the command's own: its workers take their AWS settings from the machine they run on."""
    data = open_store(f"s3://{s3_bucket}/set")
    for path in labelled.rglob("*.png"):
        data.upload(path, path.relative_to(labelled).as_posix())
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path / "cache"))
    out = f"s3://{s3_bucket}/runs/one"
    words = [
        sys.executable,
        "-m",
        "flows.cli",
        "train",
        "unet-small",
        "--data",
        data.url,
        "--out",
        out,
        "--workers",
        "2",
    ]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = {entry.key for entry in entries(open_store(out))}
    assert {"last.pt", "metrics.csv", "weights.safetensors", "run.json", "curves.png"} <= there
    assert not [key for key in there if key.startswith(".ray")]
    open_store(out).download("metrics.csv", tmp_path / "metrics.csv")
    np.testing.assert_array_equal(curves(tmp_path), curves(two_ranks))
    again = subprocess.run(words, capture_output=True, text=True)
    assert (again.returncode, "add --resume" in again.stderr) == (2, True)
