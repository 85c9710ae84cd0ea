"""A small labelled set and a small space for what trains in the tests of the search."""

from __future__ import annotations

from pathlib import Path

import pytest

SPACE = """title = "a test"
recipe = "unet-small"
[[parameter]]
kind = "log"
field = "optimiser.lr"
low = 1e-4
high = 1e-1
[[parameter]]
kind = "choice"
field = "network.widths"
choices = [[8, 16, 32, 64], [8, 16, 32, 48]]
[[parameter]]
kind = "weights"
fields = ["loss.bce", "loss.dice"]
low = 0.1
high = 10
"""
TINY = [
    "network.widths=[8, 16, 32, 64]", "input.size=64", "stop.epochs=3", "batch=4", "optimiser.lr=3e-3", "loss.dice=1",
    "loss.bce=0.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from covseg.synthetic.phantom.writer import write_dataset

    root = tmp_path_factory.mktemp("labelled")
    write_dataset(root, {"Train": 120, "Val": 12}, size=64)
    return root


@pytest.fixture
def space(tmp_path: Path) -> Path:
    from covseg.training.recipe import load_recipe
    from workers.search.plan import as_toml

    (tmp_path / "recipe.toml").write_text(as_toml(load_recipe("unet-small", TINY)))
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path / "space.toml"
