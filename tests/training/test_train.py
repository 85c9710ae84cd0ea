"""The loop: what is learnt depends on the recipe and the data alone, and nothing that was learnt is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("albumentations", reason="the train extra is not installed")

from safetensors.torch import load_file

from covseg.errors import Stopped, StorageFull, TrainingFailed, UsageError
from covseg.training import run_folder
from covseg.training.batches import Samples, order, training_batches
from covseg.training.dataset import load_split, without_leaks
from covseg.training.job import Hooks, TrainingJob
from covseg.training.learner import Learner
from covseg.training.ranks import Rank
from covseg.training.recipe import load_recipe
from covseg.training.seeds import train_seeds
from covseg.training.train import train

TINY = (
    "network.kind=attention-unet", "network.widths=[4, 8, 16]", "input.size=64", "batch=4", "stop.epochs=3",
    "optimiser.lr=3e-3", "optimiser.schedule=cosine", "optimiser.average=0.5", "optimiser.average_every=1",
    "augment.mirror=0.5", "augment.affine=0.9", "augment.rotate=10", "augment.noise=0.5",
)  # fmt: skip


def tiny(*settings: str):
    return load_recipe("unet-small", [*TINY, *settings])


def weights(folder: Path) -> bytes:
    return (folder / run_folder.WEIGHTS).read_bytes()


def stop_after(step: int) -> Hooks:
    seen = {"step": 0}

    def step_done(done, *_):
        seen["step"] = done

    return Hooks(step_done=step_done, stop=lambda: seen["step"] >= step)


def test_a_run_of_one_step_an_epoch_stops_when_asked_or_late_and_goes_on(made_set, tmp_path):
    job = TrainingJob(made_set, tmp_path / "whole")
    whole = train(tiny("batch=64"), job)
    with pytest.raises(Stopped, match=r"after step 1 of 3, state saved; .*--resume"):
        train(tiny("batch=64"), TrainingJob(made_set, tmp_path / "cut"), stop_after(1))
    with pytest.raises(Stopped, match="after step 2 of 3"):
        train(tiny("batch=64"), TrainingJob(made_set, tmp_path / "cut", resume=True, minutes=1e-9))
    resumed = train(tiny("batch=64"), TrainingJob(made_set, tmp_path / "cut", resume=True), stop_after(1))
    assert (resumed.epoch, resumed.best) == (whole.epoch, whole.best) == (3, whole.best)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.parametrize("cut", [1, 5, 7])
def test_a_run_cut_at_any_step_and_resumed_gives_the_same_weights(made_set, tmp_path, cut):
    whole = train(tiny(), TrainingJob(made_set, tmp_path / "whole"))
    with pytest.raises(Stopped, match="--resume"):
        train(tiny(), TrainingJob(made_set, tmp_path / "cut"), stop_after(cut))
    resumed = train(tiny(), TrainingJob(made_set, tmp_path / "cut", resume=True))
    assert resumed.epoch == whole.epoch == 3
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    states = [run_folder.load_state(tmp_path / name)["learner"]["network"] for name in ("whole", "cut")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    rows = [run_folder.read_rows(tmp_path / name) for name in ("whole", "cut")]
    assert [row["val_loss"] for row in rows[0]] == [row["val_loss"] for row in rows[1]]
    assert [row["train_loss"] for row in rows[0]] == [row["train_loss"] for row in rows[1]]


def test_dropout_resumes_too(made_set, tmp_path):
    recipe = tiny("network.kind=unet", "network.encoder=resnet18", "network.widths=[]", "network.dropout=0.3")
    recipe = recipe.model_copy(update={"stop": recipe.stop.model_copy(update={"epochs": 1})})
    train(recipe, TrainingJob(made_set, tmp_path / "whole"))
    with pytest.raises(Stopped):
        train(recipe, TrainingJob(made_set, tmp_path / "cut"), stop_after(2))
    train(recipe, TrainingJob(made_set, tmp_path / "cut", resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_another_seed_gives_other_weights(made_set, tmp_path):
    train(tiny("stop.epochs=1"), TrainingJob(made_set, tmp_path / "one"))
    train(tiny("stop.epochs=1", "seed=2"), TrainingJob(made_set, tmp_path / "two"))
    assert weights(tmp_path / "one") != weights(tmp_path / "two")


def test_loader_processes_change_nothing(made_set):
    code = f"""
import torch
from pathlib import Path
from covseg.training.batches import Samples, training_batches
from covseg.training.ranks import Rank
from covseg.training.dataset import load_split
from covseg.training.recipe import load_recipe
samples = Samples(load_split(Path({str(made_set)!r}), "Train"), load_recipe("unet-small", {list(TINY)!r}))
ways = [list(training_batches(samples, 1, 0, Rank(), workers)) for workers in (0, 2)]
assert len(ways[0]) == 5
assert all(torch.equal(a.images, b.images) for a, b in zip(*ways, strict=True))
"""
    # a process of its own: loaders fork, and this one may hold the threads of a server by now
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ranks_share_one_global_order(made_set):
    samples = Samples(load_split(made_set, "Train"), tiny())
    alone = [batch.samples.tolist() for batch in training_batches(samples, 0, 1, Rank(), 0)]
    parts = [[batch.samples.tolist() for batch in training_batches(samples, 0, 1, Rank(r, 2), 0)] for r in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(one) for one in alone]


def test_an_epoch_is_a_permutation_cut_into_full_batches():
    batches = order(20, 6, 1, 0)
    rows = [row for batch in batches for row in batch.tolist()]
    assert [len(batch) for batch in batches] == [6, 6, 6]
    assert len(set(rows)) == 18
    assert order(20, 6, 1, 1)[0].tolist() != batches[0].tolist()
    assert [len(batch) for batch in order(3, 6, 1, 0)] == [3]


def test_the_loss_falls_and_the_folder_holds_what_it_says(made_set, tmp_path):
    train(tiny("stop.epochs=6", "optimiser.lr=1e-2"), TrainingJob(made_set, tmp_path))
    rows = run_folder.read_rows(tmp_path)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert {"train_dice", "val_loss", "val_dice", "val_iou", "val_accuracy", "learning_rate", "val_covid_dice",
            "films_per_second", "data_wait_share"} <= set(rows[0])  # fmt: skip
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"recipe.json", "run.json", "metrics.csv", "curves.png", "events", "samples", "last.pt",
                     "weights.safetensors"}  # fmt: skip
    facts = run_folder.read_facts(tmp_path)
    assert facts.images == {"Train": 20, "Val": 8}
    assert len(facts.data_sha256["Train"]) == 64
    assert list(json.loads((tmp_path / "run.json").read_text())) == [
        "label", "recipe_sha256", "seed", "weights", "lung_channel", "set", "strata", "films", "limit", "drop_leaks",
        "data_sha256", "side", "parameters", "ranks", "device", "threads", "torch", "python", "code_version",
    ]  # fmt: skip


def test_early_stopping_waits_its_patience(made_set, tmp_path):
    progress = train(
        tiny("stop.epochs=9", "stop.patience=2", "optimiser.lr=1e-8", "optimiser.schedule=constant"),
        TrainingJob(made_set, tmp_path),
    )
    assert progress.epoch < 9
    assert progress.since_best == 2


def test_a_finite_loss_is_wanted_and_the_last_saved_state_is_kept(made_set, tmp_path):
    with pytest.raises(TrainingFailed, match=r"loss is (nan|inf) at step 0: .* holds no state yet. Lower optimiser.lr"):
        train(tiny("loss.bce=1e3", "loss.pos_weight=1e38"), TrainingJob(made_set, tmp_path / "new"))
    with pytest.raises(Stopped):
        train(tiny(), TrainingJob(made_set, tmp_path / "old"), stop_after(2))
    before = (tmp_path / "old" / run_folder.STATE).read_bytes()

    def poison(step, *_):
        raise FloatingPointError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingFailed, match="holds the last saved state"):
        patch.setattr(Learner, "step", poison)
        train(tiny(), TrainingJob(made_set, tmp_path / "old", resume=True))
    assert (tmp_path / "old" / run_folder.STATE).read_bytes() == before


def test_a_folder_with_another_run_is_refused(made_set, tmp_path):
    with pytest.raises(Stopped):
        train(tiny(), TrainingJob(made_set, tmp_path), stop_after(1))
    with pytest.raises(UsageError, match="add --resume"):
        train(tiny(), TrainingJob(made_set, tmp_path))
    with pytest.raises(UsageError, match=r"optimiser.lr is 0.003 there, 0.1 here"):
        train(tiny("optimiser.lr=0.1"), TrainingJob(made_set, tmp_path, resume=True))


def test_a_run_goes_on_with_the_images_that_it_began_with(made_set, tmp_path):
    with pytest.raises(Stopped):
        train(tiny(), TrainingJob(made_set, tmp_path), stop_after(1))
    with pytest.raises(UsageError, match=r"whose data_sha256 is .* choose another --out"):
        train(tiny(), TrainingJob(made_set, tmp_path, limit=12, resume=True))
    assert train(tiny(), TrainingJob(made_set, tmp_path, resume=True)).epoch == 3


def test_a_run_that_goes_on_elsewhere_says_so_and_a_finished_one_keeps_its_facts(made_set, tmp_path):
    with pytest.raises(Stopped):
        train(tiny(), TrainingJob(made_set, tmp_path), stop_after(1))
    began = json.loads((tmp_path / "run.json").read_text())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        train(tiny(), TrainingJob(made_set, tmp_path, resume=True))
        kept = json.loads((tmp_path / "run.json").read_text())
        assert kept == began | {"resumed": [{"epoch": 0, "step": 1, "threads": threads + 1}]}
        torch.set_num_threads(threads + 2)
        train(tiny(), TrainingJob(made_set, tmp_path, resume=True))
    finally:
        torch.set_num_threads(threads)
    assert json.loads((tmp_path / "run.json").read_text()) == kept


def test_facts_of_another_version_are_refused_by_name(made_set, tmp_path):
    with pytest.raises(Stopped):
        train(tiny(), TrainingJob(made_set, tmp_path), stop_after(1))
    facts = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(facts | {"left_out": 0}))
    with pytest.raises(UsageError, match=r"run.json: left_out: .* wanted a run of this version of covseg"):
        train(tiny(), TrainingJob(made_set, tmp_path, resume=True))


def test_a_metric_that_is_not_measured_is_said_before_the_first_step(made_set, tmp_path):
    with pytest.raises(UsageError, match=r"'val_lung_dice' is not measured on this Val: wanted one of val_dice"):
        train(tiny("stop.metric=val_lung_dice"), TrainingJob(made_set, tmp_path / "run"))


def test_a_metric_that_no_image_of_val_counts_for_is_said_before_the_first_step(made_set, tmp_path):
    healthy = tiny('data.strata=["Non-COVID", "Normal"]')
    with pytest.raises(UsageError, match=r"'val_covid_dice' is not measured on this Val: wanted one of val_dice"):
        train(healthy, TrainingJob(made_set, tmp_path / "run"))
    with pytest.raises(UsageError, match="stratum covid has no image"):
        train(tiny('data.strata=["COVID"]'), TrainingJob(made_set, tmp_path / "run"))


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(made_set):
    recipe = tiny()
    learner = Learner(recipe, Rank(), 10)
    samples = Samples(load_split(made_set, "Train"), recipe)
    batch = next(iter(training_batches(samples, 0, 0, Rank(), 0)))
    learner.step(batch, len(batch.samples))
    before = {name: value.clone() for name, value in learner.plain.named_parameters()}
    next(learner.plain.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(FloatingPointError, match=r"gradient's norm is (nan|inf) at step 1"):
        learner.step(batch, len(batch.samples))
    assert all(torch.equal(before[name], value) for name, value in learner.plain.named_parameters())


def test_missing_data_is_said_before_the_first_step(tmp_path):
    with pytest.raises(UsageError):
        train(tiny(), TrainingJob(tmp_path / "nowhere", tmp_path / "run"))


def test_encoder_weights_that_cannot_be_fetched_are_said_before_the_first_step(made_set, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-hub"))
    hub = tiny("network.kind=unet", "network.encoder=resnet18", "network.widths=[]", "network.weights=imagenet")
    with pytest.raises(UsageError, match=r"network.weights=PATH"):
        train(hub, TrainingJob(made_set, tmp_path / "hub"))
    lost = tiny("network.kind=unet", "network.encoder=resnet18", "network.widths=[]", "network.weights=/no/such.pth")
    with pytest.raises(UsageError, match=r"cannot be read"):
        train(lost, TrainingJob(made_set, tmp_path / "lost"))


def test_an_encoder_can_start_from_another_runs_weights(made_set, tmp_path):
    encoder = ("network.kind=unet", "network.encoder=resnet18", "network.widths=[]", "optimiser.average=0")
    train(
        tiny(*encoder, "data.targets=['lung']", "stop.metric=val_lung_dice", "stop.epochs=1"),
        TrainingJob(made_set, tmp_path, limit=8),
    )
    path = tmp_path / run_folder.WEIGHTS
    learner = Learner(tiny(*encoder, f"network.weights={path}"), Rank(), 1)
    assert learner.start.startswith("weights.safetensors, sha256 ")
    found, kept = load_file(path), learner.plain.network.encoder.state_dict()
    assert all(torch.equal(found[f"encoder.{name}"].to(value.dtype), value) for name, value in kept.items())


def test_a_leaked_image_is_left_out_of_training(made_set):
    training, held_out = load_split(made_set, "Train"), load_split(made_set, "Val")
    training.images[3] = held_out.images[5]
    left, dropped = without_leaks(training, held_out)
    assert dropped == 1
    assert left.names == [name for row, name in enumerate(training.names) if row != 3]


def test_several_seeds_give_a_mean_and_a_deviation(made_set, tmp_path):
    result = train_seeds(tiny("stop.epochs=1"), TrainingJob(made_set, tmp_path), seeds=2)
    assert result.seeds == 2
    each = [run_folder.read_rows(tmp_path / f"seed-{seed}")[-1]["val_covid_dice"] for seed in (1, 2)]
    assert result.mean == pytest.approx(sum(each) / 2)
    assert result.deviation == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
    assert {path.name for path in tmp_path.iterdir()} == {"seed-1", "seed-2"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_keeps_the_state_before(made_set, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        fill = Hooks(epoch_done=lambda *_: (disk / "filler").write_bytes(b"0" * (disk_free(disk) - 4096)))
        with pytest.raises(StorageFull, match="no room to write"):
            train(tiny("network.widths=[16, 32, 64]"), TrainingJob(made_set, disk / "run"), fill)
        assert run_folder.load_state(disk / "run")["progress"]["epoch"] == 1
        (disk / "filler").unlink()
        assert train(tiny("network.widths=[16, 32, 64]"), TrainingJob(made_set, disk / "run", resume=True)).epoch == 3
    finally:
        subprocess.run(["umount", disk], check=True)


def disk_free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def test_ctrl_c_saves_and_says_how_to_go_on(made_set, tmp_path):
    words = [
        sys.executable, "-m", "flows.cli", "train", "unet-small", "--data", str(made_set),
        "--out", str(tmp_path / "run"), *(word for one in (*TINY, "stop.epochs=500") for word in ("--set", one)),
    ]  # fmt: skip
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "run" / "last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "--resume goes on" in said
    assert "Traceback" not in said
    assert run_folder.load_state(tmp_path / "run")["learner"]["steps"] > 0


def test_the_command_trains_and_prints_json(made_set, tmp_path, capsys):
    from flows.cli.app import run

    words = ["train", "unet-small", "--data", str(made_set), "--out", str(tmp_path / "run"), "--json"]
    assert run([*words, *(word for one in (*TINY, "stop.epochs=1") for word in ("--set", one))]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["recipe"] == "unet-small"
    assert found["films"] == 8


def test_a_recipe_with_consistency_sees_each_image_twice_in_one_frame(made_set, tmp_path):
    path = ("augment.path.share=1", "augment.path.frame=1", "augment.path.noise=1", "stop.epochs=1")
    images = load_split(made_set, "Train")
    batch = next(training_batches(Samples(images, tiny(*path, "loss.consistency=1")), 0, 0, Rank(), 0))
    once = next(training_batches(Samples(images, tiny(*path)), 0, 0, Rank(), 0))
    count = len(batch.samples)
    assert len(batch.images) == len(batch.truth) == len(batch.strata) == 2 * count
    assert torch.equal(batch.images[:count], once.images)
    assert torch.equal(batch.truth[count:], once.truth)
    assert not torch.equal(batch.images[count:], once.images)
    result = train(tiny(*path, "loss.consistency=1"), TrainingJob(made_set, tmp_path / "twice"))
    train(tiny(*path), TrainingJob(made_set, tmp_path / "once"))
    assert result.epoch == 1
    assert weights(tmp_path / "twice") != weights(tmp_path / "once")
