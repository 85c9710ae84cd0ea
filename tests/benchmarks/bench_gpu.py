"""What a GPU makes of the pipeline: the model alone, then everything, fed by one and by more decoders.

The same code runs with ``--device cpu``, where decoders and model share the cores, so that a share of the model-only
rate says nothing about a GPU. Rates are images a second of wall time; batches are those of the plan.

Run: ``python -m tests.benchmarks.bench_gpu [--device cuda] [--precision bfloat16] [--compile] [--batches 32 64 128]
[--decoders 1 4 16] [--images 2000] [--size 1024] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from covseg.model_folder.folder import open_folder
from covseg.model_folder.torch_backend import TorchBackend, fused
from covseg.pipeline import Pipeline, resolve, stream
from covseg.storage import LocalStore, entries
from tests.benchmarks.bench_predict import write_images


def model_only(backend: TorchBackend, side: int, batch: int, images: int, callers: int) -> float:
    """Return images a second of batches that are ready, handed in by so many threads."""
    ready = np.random.default_rng(0).standard_normal((batch, side, side)).astype(np.float32)
    rounds = max(callers, images // batch)
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(backend.run, [ready] * callers))  # warm
        start = time.perf_counter()
        list(pool.map(backend.run, [ready] * rounds))
        return batch * rounds / (time.perf_counter() - start)


def end_to_end(backend: TorchBackend, folder: Path, batch: int, decoders: int) -> float:
    """Return images a second from files to rows, decoded by so many threads."""
    model = open_folder()
    pipeline = Pipeline(model.config, resolve(model, backend, batch), key=b"bench")
    source = LocalStore(folder)
    chosen = list(entries(source))
    start = time.perf_counter()
    done = sum(1 for _ in stream(pipeline, backend, source, chosen, decoders, lambda result: result.row))
    return done / (time.perf_counter() - start)


def main() -> None:
    """Measure, print, and leave the figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--decoders", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    compiler = fused if flags.compile else None
    backend = TorchBackend(open_folder(), flags.device, flags.precision, proved=False, compiler=compiler)
    side, found = open_folder().config.size, []
    print(f"{backend.name}, {flags.images} images of {flags.size} pixels a side")
    with tempfile.TemporaryDirectory() as scratch:
        write_images(Path(scratch) / "in", flags.images, flags.size)
        for batch, decoders in itertools.product(flags.batches, flags.decoders):
            alone = model_only(backend, side, batch, flags.images, min(2, decoders))
            rate = end_to_end(backend, Path(scratch) / "in", batch, decoders)
            found.append({"batch": batch, "decoders": decoders, "model": alone, "all": rate, "share": rate / alone})
            print(
                f"batch {batch:>4}  decoders {decoders:>3}  model only {alone:8.1f}/s  end to end {rate:8.1f}/s  "
                f"share {rate / alone:.2f}",
                flush=True,
            )
    if flags.json:
        flags.json.write_text(json.dumps({"backend": backend.name, "rates": found}, indent=1))


if __name__ == "__main__":
    main()
