"""Every file of pydicom's own collections, through the pipeline: ``python -m tests.dicom_corpus`` prints the table.

pydicom brings about 150 files, the package pydicom-data about 60 more, NEMA's WG-04 images among them; the latter is
looked for as an installed package, or in the folder that ``PYDICOM_DATA`` names.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from pathlib import Path

import pydicom

from covseg.errors import RadiographRefused
from covseg.outcome import Scored
from covseg.pipeline import Pipeline, score_batch
from covseg.stages.read import read
from covseg.stages.segment import Backend
from covseg.storage import MemoryStore, entries

SUFFIXES = {".py", ".pyc", ".txt", ".md", ".json", ".zip", ".gz"}


def folders() -> dict[str, Path | None]:
    """Return where the collections lie; None for one that is absent."""
    own = Path(pydicom.__file__).parent / "data"
    spec = importlib.util.find_spec("data_store")
    installed = Path(spec.origin).parent / "data" if spec and spec.origin else None
    named = os.environ.get("PYDICOM_DATA")
    more = Path(named) if named else installed
    return {"pydicom": own, "pydicom-data": more if more and more.is_dir() else None}


def files(folder: Path) -> dict[str, bytes]:
    """Return the DICOM files, and what is beside them, by name."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in SUFFIXES)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if "__pycache__" not in path.parts}


def outcomes(images: dict[str, bytes], pipeline: Pipeline, backend: Backend) -> dict[str, str]:
    """Return ``scored`` or the reason, by name; what is refused at reading is not held for the model."""
    found = {}
    for name, data in images.items():
        try:
            read(data)
        except RadiographRefused as refused:
            found[name] = str(refused.reason)
            continue
        store = MemoryStore({"a": data})
        (result,) = score_batch(pipeline, backend, store, list(entries(store)))
        found[name] = "scored" if isinstance(result, Scored) else str(result.row.reason)
    return found


def table(found: dict[str, str]) -> list[str]:
    """Return Markdown: outcome, how many files, and which."""
    counts = Counter(found.values())
    lines = ["| outcome | files | which |", "|---|---|---|"]
    for outcome, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        names = sorted(Path(name).name for name, one in found.items() if one == outcome)
        lines.append(f"| `{outcome}` | {count} | {', '.join(f'`{name}`' for name in names)} |")
    return lines


def main() -> None:
    """Print a table of each collection."""
    import warnings

    from covseg.model_folder.backends import open_backend
    from covseg.model_folder.folder import open_folder
    from covseg.pipeline import resolve

    warnings.simplefilter("ignore")
    folder = open_folder()
    backend = open_backend(folder)
    pipeline = Pipeline(folder.config, resolve(folder, backend, 4), key=b"a key for tests")
    for name, place in folders().items():
        found = outcomes(files(place), pipeline, backend) if place else {}
        sys.stdout.write("\n".join([f"## {name}: {len(found)} files", "", *table(found), "", ""]))


if __name__ == "__main__":
    main()
