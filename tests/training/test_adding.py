"""A network and a loss of one's own: a class or a function, one entry in a table, and everything else takes them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("albumentations", reason="the train extra is not installed")

from covseg.errors import UsageError
from covseg.model_folder.folder import open_folder
from covseg.model_folder.load import load
from covseg.networks.table import NETWORKS, NetworkEntry
from covseg.release.release import release
from covseg.training.batches import Samples, training_batches
from covseg.training.dataset import load_split
from covseg.training.job import TrainingJob
from covseg.training.learner import Learner
from covseg.training.loss_table import LOSSES, LossTerm
from covseg.training.ranks import Rank
from covseg.training.recipe import described, load_recipe
from covseg.training.train import train

TINY = ("input.size=64", "batch=4", "stop.epochs=1", 'data.targets=["lung", "infection"]')


class OneConvolution(torch.nn.Module):
    """A network of somebody else's."""

    def __init__(self, masks, channels, widths=(4,), attention="none"):
        super().__init__()
        self.body = torch.nn.Conv2d(channels, widths[0], 5, padding=2)
        self.head = torch.nn.Conv2d(widths[0], masks, 1)
        self.scale = 0.5 if attention == "gates" else 1.0

    def forward_with_features(self, images):
        features = torch.relu(self.body(images)) * self.scale
        masks = self.head(features)
        return masks, masks[:, -1].amax(dim=(1, 2)), features.mean(dim=(2, 3))


def squared(logits, truth, margin=0.0):
    return (logits.sigmoid() - truth).abs().sub(margin).clamp(min=0).square().mean()


@pytest.fixture
def network(monkeypatch):
    entry = NetworkEntry("tests.training.test_adding:OneConvolution", widths=True, attention=("gates",))
    monkeypatch.setitem(NETWORKS, "one-convolution", entry)
    return "network.kind=one-convolution"


@pytest.fixture
def loss(monkeypatch):
    entry = LossTerm("tests.training.test_adding:squared", "Weight of the squared error.", {"margin": 0.0})
    monkeypatch.setitem(LOSSES, "squared", entry)


def test_a_network_from_outside_is_trained_and_released(network, made_set, tmp_path):
    recipe = load_recipe("unet-small", [*TINY, network, "network.widths=[6]", "network.attention=gates"])
    train(recipe, TrainingJob(made_set, tmp_path / "run"))
    release(tmp_path / "run", tmp_path / "model", "mine")
    folder = open_folder(tmp_path / "model")
    assert folder.config.network_args == {"masks": 2, "channels": 1, "widths": [6], "attention": "gates"}
    with torch.no_grad():
        assert load(folder).forward_with_features(torch.zeros(1, 1, 64, 64))[0].shape == (1, 2, 64, 64)


def test_a_recipe_refuses_what_a_network_from_outside_does_not_take(network):
    for setting, said in [
        ("network.attention=scse", "'scse' is for unet, unetpp, encoder-unet, lung-view, not one-convolution"),
        ("network.dropout=0.1", "network.dropout is for unet, unetpp, segformer, not one-convolution"),
        ("network.encoder=resnet18", "network.encoder is for unet, unetpp, segformer, encoder-unet, lung-view"),
    ]:
        with pytest.raises(UsageError, match=said):
            load_recipe("unet-small", [*TINY, network, setting])


def test_a_loss_from_outside_takes_a_step(loss, network, made_set, tmp_path):
    recipe = load_recipe("unet-small", [*TINY, network, "network.widths=[]", "loss.bce=0", "loss.squared=2"])
    learner = Learner(recipe, Rank(), 4)
    batch = next(training_batches(Samples(load_split(made_set, "Train"), recipe), 0, 0, Rank(), 0))
    before = learner.plain.network.head.weight.clone()
    value, masks = learner.step(batch, len(batch.samples))
    by_hand = sum(2 * squared(masks[:, mask], batch.truth[:, mask]).item() for mask in (0, 1))
    assert value == pytest.approx(by_hand, rel=1e-5)
    assert not torch.equal(before, learner.plain.network.head.weight)


def test_a_loss_from_outside_is_a_key_of_every_recipe(loss):
    recipe = load_recipe("unet-small", ["loss.squared=2", "loss.squared_margin=0.1"])
    assert (recipe.loss.squared, recipe.loss.squared_margin) == (2.0, 0.1)
    assert described(type(recipe.loss))["squared"] == "Weight of the squared error."
    assert type(recipe).model_validate_json(recipe.model_dump_json()) == recipe
    with pytest.raises(UsageError, match=r"unknown key loss.squred, did you mean 'squared'"):
        load_recipe("unet-small", ["loss.squred=2"])
    with pytest.raises(UsageError, match=r"loss.squared: wanted 0 or more"):
        load_recipe("unet-small", ["loss.squared=-1"])
