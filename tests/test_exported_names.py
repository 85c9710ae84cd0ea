"""The public names of the package, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import covseg
from covseg import api, errors, outcome, records
from covseg.errors import CovsegError
from covseg.settings.environment import code_version


def test_every_public_name_can_be_imported_and_is_listed_in_order() -> None:
    assert covseg.__all__ == sorted(covseg.__all__, key=str)
    assert dir(covseg) == covseg.__all__
    for name in covseg.__all__:
        assert getattr(covseg, name) is not None


def test_the_names_are_those_of_their_modules() -> None:
    assert (covseg.Model, covseg.load_model) == (api.Model, api.load_model)
    assert (covseg.Scored, covseg.Refused) == (outcome.Scored, outcome.Refused)
    assert (covseg.Row, covseg.Radiograph, covseg.Masks) == (records.Row, records.Radiograph, records.Masks)
    assert covseg.__version__ == code_version()


def test_every_error_of_the_tree_is_public() -> None:
    tree = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, CovsegError)}
    assert tree <= set(covseg.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'np'"):
        _ = covseg.np


def test_importing_the_package_and_its_errors_stays_light() -> None:
    code = "import sys, covseg; covseg.UsageError, covseg.__version__; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for module in ("numpy", "cv2", "torch", "pydantic", "pyarrow", "pydicom", "onnxruntime"):
        assert f"'{module}'" not in loaded


@pytest.mark.parametrize("words", [["--version"], ["version"]])
def test_both_ways_to_ask_for_the_version_say_the_same(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_version()
