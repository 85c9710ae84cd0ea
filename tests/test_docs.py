"""The documentation builds without a warning, asks no other host for anything, and its examples run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
EXTERNAL = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does."""
    pytest.importorskip("mkdocs", reason="the docs group is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_asks_another_host_for_a_script_a_style_or_a_picture(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert pages
    assert [page.name for page in pages if EXTERNAL.search(page.read_text())] == []


def test_every_room_has_a_page_of_the_reference(site: Path) -> None:
    rooms = {f"covseg.{path.parent.name}" for path in (ROOT / "covseg").glob("*/__init__.py")}
    assert rooms <= {page.stem for page in (site / "reference").glob("*.html")}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.ray) if "on_ray" in n else n for n in EXAMPLES])
def test_an_example_runs(name: str) -> None:
    environment = os.environ | {"COVSEG_PROJECT_KEY": "0123456789abcdef"}
    done = subprocess.run(
        [sys.executable, f"examples/{name}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
