"""What the model alone costs in every backend and precision, one thread: CPU-ms an image, ratios to ONNX Runtime.

The backends take turns on the same batches of phantoms, so that what else the machine does falls on all of them; a
precision that this processor cannot run, or a runtime that is not installed, is left out. No proof is asked for.

Run: ``python -m tests.benchmarks.bench_backends [--model default] [--rounds 8] [--batch 4] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from covseg.errors import EnvironmentFailed
from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import ModelFolder
from covseg.registry import open_model
from covseg.stages.preprocess import prepare
from covseg.stages.segment import Backend
from covseg.synthetic.phantom import make_phantom

CALLS = 4  # of a backend in its turn


def backends(folder: ModelFolder) -> dict[str, Backend]:
    """Open all that run here; int8 only where the model folder holds it."""
    opened: dict[str, Backend] = {"onnx float32": open_backend(folder)}
    try:
        from covseg.model_folder.openvino_backend import OpenVinoBackend
        from covseg.model_folder.precision import INT8
    except ImportError:
        return opened
    for precision in ("float32", "bfloat16", "int8"):
        if precision != "int8" or (folder.path / INT8).is_file():
            try:
                opened[f"openvino {precision}"] = OpenVinoBackend(folder, precision, proved=False)
            except EnvironmentFailed as error:
                print(error)
    return opened


def main() -> None:
    """Measure, print, and leave the figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    folder = open_model(flags.model)
    grid = (folder.config.size, folder.config.normalisation, folder.config.source_side)
    drawn = [make_phantom(seed, 512, 512).pixels.astype(np.float32) / 4095 for seed in range(flags.batch)]
    batch, opened = np.stack([prepare(pixels, *grid) for pixels in drawn]), backends(folder)
    spent: dict[str, list[float]] = {name: [] for name in opened}
    for backend in opened.values():
        backend.run(batch)
    for _ in range(flags.rounds):
        for name, backend in opened.items():
            start = time.process_time()
            for _ in range(CALLS):
                backend.run(batch)
            spent[name].append(1e3 * (time.process_time() - start) / (CALLS * flags.batch))
    figures = {name: {"cpu_ms": float(np.median(each)), "least": min(each)} for name, each in spent.items()}
    reference = figures["onnx float32"]["cpu_ms"]
    for name, figure in figures.items():
        ratio = reference / figure["cpu_ms"]
        print(f"{name:<20}{figure['cpu_ms']:8.2f} CPU-ms an image (least {figure['least']:.2f})  x {ratio:.2f}")
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
