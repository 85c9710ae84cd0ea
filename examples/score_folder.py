"""Score a folder in this process, as `covseg predict` does: masks, rows, table and report.

Run: python examples/score_folder.py [IMAGES OUT]; without arguments phantoms are drawn into a temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from covseg.model_folder.backends import open_backend
from covseg.pipeline import Pipeline, resolve
from covseg.predict import predict
from covseg.records import Row
from covseg.registry import open_model
from covseg.storage import LocalStore, entries
from covseg.synthetic.phantom.writer import write_images


def score(images: Path, out: Path) -> list[Row]:
    """Score every file of a folder; one row each, a refusal where there is no mask."""
    model = open_model("default")  # checks every digest
    backend = open_backend(model, "onnx")  # the graph is exported once, then cached
    pipeline = Pipeline(model.config, resolve(model, backend, batch=4))
    source = LocalStore(images)
    return predict(pipeline, backend, source, entries(source), LocalStore(out), streams=2)


def draw(folder: Path, count: int = 3) -> None:
    """Draw phantoms, and a file that is no image at all."""
    for _ in write_images(LocalStore(folder), range(count), (256, 256), ("png",)):
        pass
    (folder / "images" / "notes.png").write_text("not an image")


def main() -> None:
    """Score the folder that was named, or phantoms."""
    with tempfile.TemporaryDirectory() as scratch:
        if len(sys.argv) == 3:
            images, out = map(Path, sys.argv[1:])
        else:
            images, out = Path(scratch, "images"), Path(scratch, "out")
            draw(Path(scratch))
        rows = score(images, out)
        for status, count in Counter(row.reason or row.status for row in rows).items():
            print(f"{count:>4}  {status}")
        print("written:", ", ".join(sorted(path.name for path in out.iterdir())))


if __name__ == "__main__":
    main()
