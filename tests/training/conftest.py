"""Fixtures of the training's tests.

Index
-----
made_set      a made data set in the Kaggle layout: Train 20 and Val 8 images of 96 x 96
one_thread    (always) torch on one thread: tiny steps on two threads mostly wait for each other
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from covseg.synthetic.phantom.writer import write_dataset


@pytest.fixture(scope="session")
def made_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    write_dataset(root, {"Train": 20, "Val": 8}, size=96)
    return root


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
