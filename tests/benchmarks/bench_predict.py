"""What an image costs: the model alone, the pipeline, and the loop a user would write instead.

Every figure is measured in one run, in processes of their own, as CPU-seconds (user + system) and
wall seconds per image; the cost of starting (imports, model) is measured with four images and taken
off. The graph is exported before, into a cache of this run, and that is told apart. Ratios travel,
absolute figures do not.

Run: ``python -m tests.benchmarks.bench_predict [--images 600] [--sizes 1024 256]``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

Words = Callable[[int], list[str]]  # a command, by its number of images

EXPORT = """
from covseg.model_folder.export import graph_of
from covseg.model_folder.folder import open_folder
graph_of(open_folder())
"""
NAIVE = """
import csv, sys
from pathlib import Path
import cv2, numpy as np, torch
from covseg.model_folder.folder import open_folder
from covseg.model_folder.load import load
source, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
torch.set_num_threads(int(sys.argv[3]))
folder = open_folder()
network, size = load(folder), folder.config.size
with (out / "rows.csv").open("w") as file:
    rows = csv.writer(file)
    for path in sorted(source.iterdir()):
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if folder.config.normalisation == "standardise":
            small = (small - small.mean()) / small.std()
        with torch.no_grad():
            logits = network.forward_with_features(torch.from_numpy(small)[None, None])[0]
        lung, infection = (cv2.resize(p, image.shape[::-1]) > 0.5 for p in logits.sigmoid()[0].numpy())
        label_map = lung.astype(np.uint8) + (lung & infection)
        cv2.imwrite(str(out / path.name), label_map)
        rows.writerow([path.name, (lung & infection).sum() / max(lung.sum(), 1)])
        file.flush()
"""
DECODE = """
import sys
from pathlib import Path
import cv2
for path in sorted(Path(sys.argv[1]).iterdir()):
    cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
"""
PREPARE = """
import sys
from pathlib import Path
import cv2, numpy as np
from covseg.stages.preprocess import prepare
for path in sorted(Path(sys.argv[1]).iterdir()):
    prepare(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) / np.float32(255), 256, "standardise", 256)
"""
FLOOR = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from covseg.model_folder.folder import open_folder
from covseg.model_folder.backends import open_backend
count, name, streams = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
folder = open_folder()
backend = open_backend(folder, name)
batch = np.random.default_rng(0).standard_normal((4, folder.config.size, folder.config.size)).astype(np.float32)
with ThreadPoolExecutor(streams) as pool:
    list(pool.map(lambda _: backend.run(batch), range(count // 4)))
"""


def export() -> tuple[float, float]:
    """Convert the model into the cache of this run, as a first run on a new machine does; CPU and wall seconds."""
    cpu_s, wall_s, _ = run(["-c", EXPORT], 2)
    return cpu_s, wall_s


def run(words: list[str], cores: int) -> tuple[float, float, float]:
    """Run a process on `cores` cores; return CPU-seconds, wall seconds, peak RSS in MB."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=said, stderr=said, preexec_fn=lambda: os.sched_setaffinity(0, allowed)
        )
        _, status, used = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise RuntimeError(said.read().decode())
    return used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss / 1024


def cost(make: Words, images: int, cores: int) -> dict[str, float]:
    """Measure a command at that many images and at 4, and return the marginal cost of an image."""
    few, many = (run(make(count), cores) for count in (4, images))
    marginal = images - 4
    return {
        "cpu_ms": 1e3 * (many[0] - few[0]) / marginal,
        "wall_ms": 1e3 * (many[1] - few[1]) / marginal,
        "start_cpu_s": few[0],
        "peak_mb": many[2],
        "peak_mb_of_4": few[2],
    }


def write_images(folder: Path, count: int, size: int) -> None:
    """Write `count` 8-bit PNG phantoms; 60 are drawn, the others are their shifted copies."""
    from covseg.synthetic.phantom import make_phantom

    folder.mkdir(parents=True)
    drawn = [(make_phantom(seed, size, size).pixels // 16).astype(np.uint8) for seed in range(min(count, 60))]
    for number in range(count):
        image = np.roll(drawn[number % len(drawn)], number // len(drawn), axis=0)
        cv2.imwrite(str(folder / f"{number:05d}.png"), image)


def measure(root: Path, images: int, size: int) -> dict[str, dict[str, float]]:
    """Measure every way of scoring `images` files of `size` x `size`."""
    folders = {}
    for count in (4, images):
        folders[count] = root / f"{size}-{count}"
        write_images(folders[count], count, size)
    out = str(root / "out")

    def predict(*words: str) -> Words:
        return lambda count: ["-m", "flows.cli", "predict", str(folders[count]), "-o", out, *words]

    ways: dict[str, tuple[Words, int]] = {
        "decode only, 1 core": (lambda n: ["-c", DECODE, str(folders[n])], 1),
        "decode and prepare, 1 core": (lambda n: ["-c", PREPARE, str(folders[n])], 1),
        "model only, torch, 1 core": (lambda n: ["-c", FLOOR, str(n), "torch", "1"], 1),
        "model only, onnx, 1 core": (lambda n: ["-c", FLOOR, str(n), "onnx", "1"], 1),
        "model only, onnx, 2 cores": (lambda n: ["-c", FLOOR, str(n), "onnx", "2"], 2),
        "model only, auto, 1 core": (lambda n: ["-c", FLOOR, str(n), "auto", "1"], 1),
        "naive loop, torch, 1 core": (lambda n: ["-c", NAIVE, str(folders[n]), out + "-naive", "1"], 1),
        "naive loop, torch, 2 cores": (lambda n: ["-c", NAIVE, str(folders[n]), out + "-naive", "2"], 2),
    }
    for backend in ("onnx", "auto"):
        bare = ("--overlay", "none", "--no-pictures", "--backend", backend, "--streams")
        ways |= {
            f"predict {backend}, no pictures, 1 core": (predict(*bare, "1"), 1),
            f"predict {backend}, no pictures, 2 cores": (predict(*bare, "2"), 2),
            f"predict {backend}, all, 2 cores": (predict("--backend", backend, "--streams", "2"), 2),
        }
    table = {}
    for name, (make, cores) in ways.items():
        table[name] = cost(make, images, cores)
        print(
            f"{size:>6}  {name:<32}" + "".join(f"{key} {value:8.2f}  " for key, value in table[name].items()),
            flush=True,
        )
    return table


def agreement(out: Path) -> float:
    """Return the mean IoU of the lungs that `predict` and the naive loop drew on the same images."""
    shares = []
    for row in pq.read_table(out / "severity.parquet", columns=["key", "mask_uri"]).to_pylist():
        if row["mask_uri"]:
            ours = cv2.imread(str(out / row["mask_uri"]), cv2.IMREAD_GRAYSCALE) > 0
            theirs = cv2.imread(f"{out}-naive/{row['key']}", cv2.IMREAD_GRAYSCALE) > 0
            shares.append((ours & theirs).sum() / max((ours | theirs).sum(), 1))
    return float(np.mean(shares))


def compare(size: int, backend: str, table: dict[str, dict[str, float]]) -> None:
    """Print the ratios of one backend."""
    floor, naive = table[f"model only, {backend}, 1 core"], table["naive loop, torch, 2 cores"]
    one, two = (table[f"predict {backend}, no pictures, {cores}"] for cores in ("1 core", "2 cores"))
    rest, decode = one["cpu_ms"] - floor["cpu_ms"], table["decode only, 1 core"]["cpu_ms"]
    pictures = table[f"predict {backend}, all, 2 cores"]["cpu_ms"] / two["cpu_ms"]
    print(f"{size:>6}  {backend}: all but the model {rest:.1f} CPU-ms an image, x {rest / decode:.1f} of decoding")
    print(
        f"{size:>6}  {backend}: against the naive loop x {naive['wall_ms'] / two['wall_ms']:.2f} wall on 2 cores, "
        f"x {table['naive loop, torch, 1 core']['cpu_ms'] / one['cpu_ms']:.2f} CPU on 1"
    )
    print(f"{size:>6}  {backend}: 1 -> 2 cores x {one['wall_ms'] / two['wall_ms']:.2f}; with pictures x {pictures:.2f}")


def main() -> None:
    """Measure, print, and leave the figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 256])
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["COVSEG_CACHE"] = f"{scratch}/cache"  # inherited by every process below
        cpu_s, wall_s = export()
        figures["conversion"] = {"cpu_s": cpu_s, "wall_s": wall_s}
        print(f"        conversion to ONNX, once a model and machine: {cpu_s:.1f} CPU-s, {wall_s:.1f} s", flush=True)
        for size in flags.sizes:
            table = figures[str(size)] = measure(Path(scratch), flags.images, size)
            for backend in ("onnx", "auto"):
                compare(size, backend, table)
            print(f"{size:>6}  lungs as the naive loop's: IoU {agreement(Path(scratch) / 'out'):.4f}", flush=True)
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
