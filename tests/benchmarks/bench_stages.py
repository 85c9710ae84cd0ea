"""Where the CPU of ``covseg predict`` goes, stage by stage: one process, one thread, the default model.

Every stage is timed by the CPU of its thread, without what it calls that is timed itself, so that the lines add up;
``the rest`` is the pipeline's own bookkeeping. Beside it, as ratios, what pictures add.

Run: ``python -m tests.benchmarks.bench_stages [--images 60] [--sizes 1024 256] [--backend onnx] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import open_folder
from covseg.pipeline import Pipeline, resolve
from covseg.predict import Outputs, predict
from covseg.storage import LocalStore, entries
from tests.benchmarks.bench_predict import write_images

STAGES = {  # stage: the functions whose CPU it is, by module
    "fetch": ["covseg.storage.local.LocalStore.fetch"],
    "hash": ["covseg.stages.read.sha256_of"],
    "decode": ["covseg.stages.read.png._decode"],
    "read": ["covseg.pipeline.read"],
    "prepare": ["covseg.pipeline.Pipeline.prepare"],
    "model": ["covseg.pipeline.segment"],
    "input filter": ["covseg.pipeline.input_filter"],
    "postprocess": ["covseg.pipeline.postprocess"],
    "put back": ["covseg.pipeline.restore"],
    "measure": ["covseg.pipeline.measure"],
    "quality": ["covseg.pipeline.measure_quality", "covseg.pipeline.qc_flags"],
    "encode": ["covseg.predict.mask_png"],
    "overlay": ["covseg.predict.overlay_jpeg", "covseg.predict.overlay_png"],
    "thumbnail": ["covseg.report.pictures.picture"],
    "write": ["covseg.storage.local.LocalStore.write"],
    "table, report": [
        "covseg.table.to_arrow",
        "covseg.table.to_parquet",
        "covseg.table.to_csv",
        "covseg.predict.render",
    ],
}


class Clock:
    """CPU-seconds a stage of one thread; a timed call inside another is taken off it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside = [0.0]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - start
                self.seconds[stage] += spent - self._inside.pop()
                self._inside[-1] += spent

        return call


def install(clock: Clock) -> None:
    """Put the clock around every stage, for the life of this process."""
    for stage, places in STAGES.items():
        for place in places:
            owner, name = _owner(place)
            if hasattr(owner, name):
                setattr(owner, name, clock.timed(stage, getattr(owner, name)))


def _owner(place: str) -> tuple[Any, str]:
    path, _, name = place.rpartition(".")
    try:
        return importlib.import_module(path), name
    except ModuleNotFoundError:
        module, _, kind = path.rpartition(".")
        return getattr(importlib.import_module(module), kind), name


def measure(folder: Path, out: Path, outputs: Outputs, clock: Clock, backend_name: str) -> dict[str, float]:
    """Return CPU-ms an image by stage, and of the whole process."""
    model = open_folder()
    backend = open_backend(model, backend_name)
    pipeline = Pipeline(model.config, resolve(model, backend, 4), key=b"bench")
    source = LocalStore(folder)
    chosen = list(entries(source))
    predict(pipeline, backend, source, chosen[:4], LocalStore(out), outputs)
    clock.seconds.clear()
    start = time.process_time()
    predict(pipeline, backend, source, chosen, LocalStore(out), outputs)
    spent = time.process_time() - start
    table = {stage: 1e3 * clock.seconds[stage] / len(chosen) for stage in STAGES if clock.seconds[stage]}
    return table | {"the rest": 1e3 * spent / len(chosen) - sum(table.values()), "in all": 1e3 * spent / len(chosen)}


def main() -> None:
    """Measure, print, and leave the figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 256])
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    clock, figures = Clock(), {}
    install(clock)
    with tempfile.TemporaryDirectory() as scratch:
        for size in flags.sizes:
            folder = Path(scratch) / str(size)
            write_images(folder, flags.images, size)
            for name, outputs in (("bare", Outputs("none", pictures=False)), ("pictures", Outputs())):
                figures[f"{size} {name}"] = measure(
                    folder, folder.with_name(f"out-{size}"), outputs, clock, flags.backend
                )
            bare, pictures = figures[f"{size} bare"], figures[f"{size} pictures"]
            for stage, spent in pictures.items():
                print(f"{size:>6}  {stage:<14}{bare.get(stage, 0):9.2f}{spent:9.2f}  CPU-ms an image")
            around = bare["in all"] - bare["model"] - bare["decode"]
            print(f"{size:>6}  all but model and decode: {around:.2f} CPU-ms")
            print(f"{size:>6}  with pictures: x {pictures['in all'] / bare['in all']:.2f}", flush=True)
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
