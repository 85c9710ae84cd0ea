"""Recipes: what the authors gave stands exactly, what they did not give is said to be ours."""

import pytest

from covseg.errors import UsageError
from covseg.networks.table import NETWORKS
from covseg.training.recipe import load_recipe, shipped

SEVEN = {
    "unetpp-effb3", "lung-unet-effb3", "cascade-unet-effb0", "unet-plain", "attention-unet", "resnet34-unet",
    "unet-small",
}  # fmt: skip


def takers(setting):
    """Name the networks whose entry takes a setting, as a refusal does."""
    return ", ".join(name for name, entry in NETWORKS.items() if getattr(entry, setting))


def test_seven_published_recipes_ship():
    assert set(shipped()) >= SEVEN
    assert all(load_recipe(name).published for name in SEVEN)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("unetpp-effb3", {"network.kind": "unetpp", "network.encoder": "efficientnet-b3", "network.weights": "imagenet",
                          "input.size": 256, "loss.pos_weight": "data", "optimiser.name": "adamw", "optimiser.lr": 3e-4,
                          "optimiser.schedule": "cosine", "batch": 8, "stop.epochs": 30, "stop.patience": 5,
                          "augment.mirror": 0.5, "augment.shift": 0.05, "augment.scale": 0.05,
                          "augment.brightness": 0.15, "augment.contrast": 0.15, "augment.noise_std": (0.0088, 0.0152)}),
        ("lung-unet-effb3", {"input.size": 448, "input.channels": 3, "loss.dice": 0.7, "loss.bce": 0.3,
                             "optimiser.lr": 1e-4, "optimiser.weight_decay": 1e-4, "batch": 32, "stop.epochs": 15,
                             "stop.patience": 5, "augment.rotate": 15.0, "data.targets": ("lung",)}),
        ("cascade-unet-effb0", {"input.size": 448, "input.channels": 4, "loss.dice": 0.5, "loss.bce": 0.3,
                                "loss.focal": 0.2, "optimiser.lr": 1e-4, "optimiser.weight_decay": 1e-3, "batch": 32,
                                "stop.epochs": 50, "stop.patience": 12, "network.dropout": 0.3, "optimiser.clip": 1.0,
                                "lung_constraint": True}),
        ("unet-plain", {"input.size": 256, "input.channels": 1, "loss.bce": 1.0, "optimiser.name": "adam",
                        "optimiser.schedule": "constant", "data.strata": ("COVID-19",)}),
        ("attention-unet", {"network.kind": "attention-unet", "stop.epochs": 30,
                            "data.strata": ("COVID-19", "Non-COVID")}),
        ("resnet34-unet", {"network.encoder": "resnet34", "network.weights": "imagenet",
                           "data.strata": ("COVID-19", "Non-COVID")}),
        ("unet-small", {"network.widths": (32, 64, 128, 256), "input.size": 256, "loss.bce": 1.0,
                        "optimiser.name": "adam", "optimiser.lr": 1e-4, "batch": 8, "stop.epochs": 30,
                        "augment.mirror": 0.0, "augment.affine": 0.0}),
    ],
)  # fmt: skip
def test_what_an_author_gave_stands_exactly(name, given):
    recipe = load_recipe(name)
    for path, value in given.items():
        found = recipe
        for part in path.split("."):
            found = getattr(found, part)
        assert found == value, path
    covered = [path for path in given if any(path == one or path.startswith(f"{one}.") for one in recipe.ours)]
    assert set(covered) <= {"network.encoder", "input.size", "input.channels"}, covered


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("optimiser.lrr=1e-3", "unknown key optimiser.lrr, did you mean 'lr'?"),
        ("optimizer.lr=1e-3", "unknown key optimizer, did you mean 'optimiser'?"),
        ("optimiser.lr=7", "optimiser.lr: wanted 1 or less"),
        ("optimiser.lr", "wanted key=value"),
        ("input.size=250", "multiple of 32"),
        ("loss.bce=0", "no mask loss"),
        (
            'data.targets=["infection", "lung"]',
            "targets ['infection', 'lung']: wanted one of ['lung'], ['infection'], ",
        ),
        (
            "network.kind=unetp",
            "network.kind: unknown network 'unetp', did you mean 'unetpp'?: wanted",
        ),
        ("network.kind=cascade", "unknown network 'cascade': wanted one of attention-unet, "),
        ("network.kind=unet", f"network.widths is for {takers('widths')}, not unet"),
        ("network.encoder=resnet18", f"network.encoder is for {takers('encoders')}, not plain-unet"),
        ("loss.bec=1", "unknown key loss.bec, did you mean 'bce'?"),
        ("loss.focal=-1", "loss.focal: wanted 0 or more"),
        ("input.channels=3", "input.channels: 3 is for unet, unetpp, segformer, not plain-unet"),
        ("network.dropout=0.3", f"network.dropout is for {takers('dropout')}, not plain-unet"),
        ("network.attention=scse", "'scse' is for unet, unetpp, encoder-unet, lung-view, not plain-unet"),
        ("loss.classes=0.2", "set network.classes=true"),
        ("ours=['loss.bec']", "no field of a recipe"),
        ("batch.size=8", "'batch' is a value"),
    ],
)
def test_a_wrong_setting_names_its_key(setting, said):
    with pytest.raises(UsageError, match=None) as found:
        load_recipe("unet-small", [setting])
    assert said in str(found.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'unet-small'"):
        load_recipe("unet-smal")


def test_a_network_that_is_made_of_an_encoder_wants_one():
    with pytest.raises(UsageError, match=r"network.encoder: lung-view wants one, a name in timm"):
        load_recipe("fast", ["network.encoder="])


def test_the_digests_of_the_shipped_recipes_are_what_their_runs_recorded():
    digests = {name: load_recipe(name).digest[:16] for name in ("fast", "accurate", "cascade-unet-effb0", "unet-small")}
    assert digests == {
        "fast": "3b0c3bcfe32243ce", "accurate": "27c6ced103f3def9", "cascade-unet-effb0": "904dd27022ae9f0b",
        "unet-small": "6b548419607458bf",
    }  # fmt: skip


def test_without_the_wanted_encoder_weights_a_run_is_no_reproduction():
    assert load_recipe("unetpp-effb3").label == "unetpp-effb3"
    assert load_recipe("unetpp-effb3", ["network.weights=none"]).label == (
        "unetpp-effb3, not a reproduction (weights: none)"
    )
    for name in ("resnet34-unet", "lung-unet-effb3", "cascade-unet-effb0"):
        assert "not a reproduction" in load_recipe(name, ["network.weights=none"]).label
    assert load_recipe("unet-small").label == "unet-small"
