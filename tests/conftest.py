"""Shared fixtures.

Index
-----
data_root      ../shared/data beside the project; skips with a message where it is absent
val_images     the three Val image folders' root; skips with a message where it is absent
model_folder   the committed default model, checked
backend        the reference backend on the default model, opened once
corridor       the doors around the default model, with a fixed project key
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("COVSEG_PROJECT_KEY", "a key for tests")

import pytest

from covseg.models.folder import ModelFolder, open_folder
from covseg.predict import Corridor, resolve
from covseg.segment import Backend, open_backend

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
QU_EX = DATA / "covid-qu-ex" / "Infection Segmentation Data"


@pytest.fixture(scope="session")
def data_root() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def val_images() -> Path:
    if not (QU_EX / "Val").is_dir():
        pytest.skip(f"no COVID-QU-Ex Val split at {QU_EX}")
    return QU_EX / "Val"


@pytest.fixture(scope="session")
def model_folder() -> ModelFolder:
    return open_folder()


@pytest.fixture(scope="session")
def backend(model_folder: ModelFolder) -> Backend:
    return open_backend(model_folder)


@pytest.fixture(scope="session")
def corridor(model_folder: ModelFolder, backend: Backend) -> Corridor:
    return Corridor(model_folder.card, resolve(model_folder, backend, 4), key=b"a key for tests")
