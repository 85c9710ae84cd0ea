"""The dependency rule: flows -> workers -> covseg, and what each may name."""

import subprocess
import sys
from pathlib import Path


def test_the_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([lint, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "9 kept, 0 broken" in done.stdout


def test_only_the_reader_the_objects_the_phantoms_and_the_types_of_predict_know_dicom():
    root = Path(__file__).resolve().parents[1] / "covseg"
    naming = {
        path.relative_to(root).parts[1 if path.is_relative_to(root / "stages") else 0]
        for path in root.rglob("*.py")
        if "import pydicom" in path.read_text() or "from pydicom" in path.read_text()
    }
    assert naming <= {"api.py", "dicom", "read", "synthetic"}


def test_only_storage_knows_buckets():
    root = Path(__file__).resolve().parents[1] / "covseg"
    naming = {
        path.relative_to(root).parts[0]
        for path in root.rglob("*.py")
        if "import s3fs" in path.read_text() or "import fsspec" in path.read_text()
    }
    assert naming <= {"storage"}
