"""The space of a search: what a TOML file may say, what it makes of a recipe, and what is refused before any trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from covseg.errors import UsageError
from covseg.training.recipe import load_recipe
from workers.search.explain import explain
from workers.search.parameters import Scalar
from workers.search.plan import SearchPlan, as_toml, draw
from workers.search.space import load_space, spaces

TINY = ("network.widths=[4, 8]", "input.size=64", "stop.epochs=4")
SIZE = '[[parameter]]\nkind = "integer"\nfield = "input.size"\nlow = 32\nhigh = 96\nstep = 32\n'
LR = '[[parameter]]\nkind = "log"\nfield = "optimiser.lr"\nlow = 1e-4\nhigh = 1e-2\n'
FOCAL = """[[parameter]]
kind = "choice"
field = "loss.focal"
choices = [0.0, 1.0]
[[parameter]]
kind = "linear"
field = "loss.focal_gamma"
low = 1.0
high = 4.0
when = { "loss.focal" = [1.0] }
"""
WEIGHTS = '[[parameter]]\nkind = "weights"\nfields = ["loss.bce", "loss.dice"]\nlow = 0.1\nhigh = 10\n'


def plan(tmp_path: Path, *parts: str, order: str = "tpe", settings: tuple[str, ...] = TINY) -> SearchPlan:
    path = tmp_path / "space.toml"
    path.write_text(f'title = "a test"\nrecipe = "unet-small"\norder = "{order}"\n' + "\n".join(parts))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(as_toml(load_recipe("unet-small", settings)))
    return SearchPlan(load_space(path), str(recipe))


class First:
    """Draws the lowest and the first."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        return low

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return low

    def suggest_categorical(self, name: str, choices: list[Scalar]) -> Scalar:
        return choices[-1]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "is empty"),
        (["[[parameter]]\nkind = 'odd'"], "parameter.0"),
        ([SIZE.replace("input.size", "input.sise")], "did you mean 'size'"),
        ([SIZE.replace("high = 96", "high = 4128")], r"allows input.size=2080.*2048"),
        ([SIZE.replace("step = 32", "step = 16")], "allows input.size=48.*multiple of 32"),
        ([SIZE.replace("high = 96", "high = 90")], "no whole number of steps"),
        ([SIZE, SIZE], "stands there twice"),
        ([LR.replace("low = 1e-4", "low = 0.0")], "wants one above 0"),
        ([LR.replace("high = 1e-2", "high = 1e-5")], "is not below high"),
        ([LR.replace("optimiser.lr", "stop.metric")], "is the search's own"),
        ([LR + 'when = { "input.size" = [32] }'], "no parameter before it"),
        ([FOCAL.replace("[1.0, 4.0]", "")[FOCAL.index("[[parameter]]", 5) :]], "no parameter before it"),
        (['[[parameter]]\nkind="choice"\nfield="network.kind"\nchoices=["plain-unet", "unet"]'], "does not take"),
        (['[[parameter]]\nkind="bundle"\nname="a"\n[parameter.options]\nx=[]\ny=["optimiser.lr=2"]'], "allows a=y"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_is_refused_by_name(tmp_path: Path, parts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan(tmp_path, *parts).check()


def test_an_unknown_encoder_and_a_contradicting_setting_are_refused(tmp_path: Path) -> None:
    encoders = '[[parameter]]\nkind="choice"\nfield="network.encoder"\nchoices=["resnet18", "resnet19"]'
    settings = ("network.kind=encoder-unet", "network.encoder=resnet18", "input.size=64")
    with pytest.raises(UsageError, match=r"allows network\.encoder=resnet19"):
        plan(tmp_path, encoders, settings=settings).check()
    with pytest.raises(UsageError, match=r"the space searches input\.size"):
        replace(plan(tmp_path, SIZE), settings=("input.size=64",)).check()
    with pytest.raises(UsageError, match="no space 'nothing': wanted one of accurate-space"):
        load_space("nothing")


def test_two_choices_that_contradict_each_other_are_found(tmp_path: Path) -> None:
    kinds = '[[parameter]]\nkind="choice"\nfield="network.kind"\nchoices=["plain-unet", "attention-unet"]'
    channels = '[[parameter]]\nkind="bundle"\nname="planes"\n[parameter.options]\none=[]\ntwo=["input.channels=2"]'
    with pytest.raises(UsageError, match="allows planes=two"):
        plan(tmp_path, kinds, channels).check()


def test_weights_keep_the_sum_of_the_recipe_and_their_own_ratio(tmp_path: Path) -> None:
    loss = plan(tmp_path, WEIGHTS, settings=(*TINY, "loss.dice=2")).at({"loss.bce": 9.0, "loss.dice": 1.0}).loss
    assert (loss.bce, loss.dice) == pytest.approx((2.7, 0.3))  # type: ignore[attr-defined]


def test_a_condition_decides_whether_its_parameter_is_drawn(tmp_path: Path) -> None:
    conditional = plan(tmp_path, FOCAL)
    assert draw(conditional.space, First()) == {"loss.focal": 1.0, "loss.focal_gamma": 1.0}
    assert conditional.start == {"loss.focal": 0.0}
    conditional.check()


def test_a_finer_grid_gets_fewer_epochs_of_the_same_budget(tmp_path: Path) -> None:
    fine = plan(tmp_path, SIZE, settings=("network.widths=[4, 8]", "stop.epochs=16"))
    epochs = {size: fine.at({"input.size": size}).stop.epochs for size in (32, 64, 96)}
    assert fine.base.input.size == 256
    assert epochs[32] == 16 * 64 and epochs[64] == 16 * 16, "operations grow with the pixels"


def test_the_recipe_comes_first_then_its_neighbours_and_a_sweep_moves_one_thing(tmp_path: Path) -> None:
    settings = ("network.widths=[4, 8]",)
    sizes = SIZE.replace("high = 96", "high = 256")
    first = plan(tmp_path, sizes, LR, settings=settings).first
    recipe = {"input.size": 256, "optimiser.lr": 1e-4}
    assert first == [recipe, recipe | {"input.size": 32}, recipe | {"optimiser.lr": 2e-4}]
    sweeps = load_space("unet-small-sweeps")
    points = SearchPlan(sweeps, sweeps.recipe).first
    assert len(points) == 7
    assert all(sum(point[name] != points[0][name] for name in point) <= 1 for point in points)


@pytest.mark.parametrize("name", spaces())
def test_a_shipped_space_fits_its_recipe_and_explains_itself(name: str) -> None:
    space = load_space(name)
    lines = explain(SearchPlan(space, space.recipe), 24)
    assert space.title in lines[0]
    assert [field for field in space.names if not any(field in line for line in lines)] == []


def test_a_recipe_written_as_toml_is_read_back_equal(tmp_path: Path) -> None:
    for ref in ("fast", "unet-plain", "cascade-unet-effb0"):
        (tmp_path / "recipe.toml").write_text(as_toml(load_recipe(ref)))
        assert load_recipe(tmp_path / "recipe.toml") == load_recipe(ref)
