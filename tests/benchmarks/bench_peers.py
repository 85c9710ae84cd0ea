"""The same images through what a user would take instead: loops on PyTorch, MONAI and Ray Data beside `covseg predict`.

Every way reads the same PNGs, runs the same network with one thread, and writes a label map and a line of CSV for each
image; ours also filters, cleans, measures and judges. Each has processes of its own on one core, or two; what it costs
to start (imports, model, cluster) is what four images take, and is taken off the rest. Memory is the sum of what its
processes hold. A way whose package is absent is left out, and said so. nnU-Net brings its own preprocessing and
weights: it cannot run this network.

Run: ``python -m tests.benchmarks.bench_peers [--images 200] [--size 1024] [--cores 1] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.bench_predict import NAIVE, export, write_images

TICK, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
SETUP = """
import csv, os, sys, time
from pathlib import Path
import cv2, numpy as np, torch
from covseg.model_folder.folder import open_folder
from covseg.model_folder.load import load
source, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
torch.set_num_threads(1)
cv2.setNumThreads(1)
folder = open_folder()
size = folder.config.size
paths = sorted(map(str, source.iterdir()))
def read(path):
    image = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return (small - small.mean()) / small.std(), image.shape
def write(probability, shape, path):
    lung, infection = (cv2.resize(plane, shape[::-1]) > 0.5 for plane in probability)
    cv2.imwrite(str(out / Path(path).name), lung.astype(np.uint8) + (lung & infection))
    return [Path(path).name, (lung & infection).sum() / max(lung.sum(), 1)]
class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = load(folder)
    def forward(self, batch):
        return self.inner.forward_with_features(batch)[0].sigmoid()
class Set(torch.utils.data.Dataset):
    def __len__(self):
        return len(paths)
    def __getitem__(self, place):
        pixels, shape = read(paths[place])
        return torch.from_numpy(pixels)[None], shape, paths[place]
def collate(items):
    return torch.stack([item[0] for item in items]), [item[1] for item in items], [item[2] for item in items]
def keep(rows):
    with (out / "rows.csv").open("a") as file:
        csv.writer(file).writerows(rows)
"""
LOOP = """
network = Network().eval()
loader = torch.utils.data.DataLoader(Set(), batch_size=4, num_workers={workers}, collate_fn=collate)
with torch.inference_mode():
    for batch, shapes, names in loader:
        keep(map(write, {infer}.numpy(), shapes, names))
"""
MONAI = "from monai.inferers import SimpleInferer\ninferer = SimpleInferer()\n"
RAY = """
import ray
ray.init(address="local", num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False)
def decode(batch):
    pairs = [read(path) for path in batch["item"]]
    shapes = np.array([shape for _, shape in pairs])
    return {"pixels": np.stack([pixels for pixels, _ in pairs]), "shape": shapes, "item": batch["item"]}
class Score:
    def __init__(self):
        torch.set_num_threads(1)
        self.network = Network().eval()
    def __call__(self, batch):
        with torch.inference_mode():
            answers = self.network(torch.from_numpy(batch["pixels"])[:, None]).numpy()
        rows = list(map(write, answers, map(tuple, batch["shape"]), batch["item"]))
        return {"name": [row[0] for row in rows], "fraction": [row[1] for row in rows]}
table = ray.data.from_items(paths, override_num_blocks=max(2, len(paths) // 16))
table = table.map_batches(decode, batch_size=4, num_cpus=0.5)  # a whole core would wait for ever beside the models
rows = table.map_batches(Score, batch_size=4, concurrency=len(os.sched_getaffinity(0)), num_cpus=0.5).take_all()
keep([row["name"], row["fraction"]] for row in rows)
time.sleep(1)  # its processes are counted while they live
ray.shutdown()
"""


def measure(words: list[str], cores: int) -> tuple[float, float, float]:
    """Run a process on `cores` cores; return CPU-seconds, wall seconds and MB of it and all that it started."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    start, most, held = time.perf_counter(), 0.0, 0.0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=said, stderr=said, preexec_fn=lambda: os.sched_setaffinity(0, allowed)
        )
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            cpu_s, megabytes = _tree(process.pid)
            most, held = max(most, cpu_s), max(held, megabytes)
            time.sleep(0.5)
        wall = time.perf_counter() - start
        _, status, used = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise RuntimeError(said.read().decode()[-2000:])
    return max(most, used.ru_utime + used.ru_stime), wall, max(held, used.ru_maxrss / 1024)


def _tree(root: int) -> tuple[float, float]:
    """Return CPU-seconds and resident MB of a process and all that live below it, those that ended counted too."""
    found: dict[int, tuple[int, float, float]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                found[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15])) / TICK, int(fields[21]) * PAGE
    tree = {root}
    for _ in range(6):
        tree |= {pid for pid, (parent, *_) in found.items() if parent in tree}
    alive = [found[pid] for pid in tree if pid in found]
    return sum(cpu_s for _, cpu_s, _ in alive), sum(size for *_, size in alive) / 1e6


def ways(cores: int) -> dict[str, tuple[str | None, str]]:
    """Return package and program of each way."""
    loop = LOOP.format(workers=0 if cores == 1 else cores, infer="network(batch)")
    monai = MONAI + LOOP.format(workers=0 if cores == 1 else cores, infer="inferer(batch, network)")
    return {
        "loop, batch 1": (None, NAIVE),
        "DataLoader, batch 4": (None, SETUP + loop),
        "MONAI SimpleInferer over a Dataset": ("monai", SETUP + monai),
        "Ray Data map_batches": ("ray", SETUP + RAY),
    }


def main() -> None:
    """Measure, print, and leave the figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(COVSEG_CACHE=f"{scratch}/cache", RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
        export()
        folders = {count: Path(scratch) / str(count) for count in (4, flags.images)}
        for count, folder in folders.items():
            write_images(folder, count, flags.size)
        words = ["-m", "flows.cli", "predict", "-o", f"{scratch}/ours", "--overlay", "none", "--no-pictures"]
        words += ["--streams", str(flags.cores)]
        programs = {
            name: ["-c", text]
            for name, (package, text) in ways(flags.cores).items()
            if not package or find_spec(package)
        }
        for name in ways(flags.cores).keys() - programs.keys():
            print(f"{name}: left out, its package is not installed")
        ours = {f"covseg predict --backend {name}": [*words, "--backend", name] for name in ("onnx", "auto")}
        for name, program in [*programs.items(), *ours.items()]:
            behind = [f"{scratch}/{len(name)}", "1"] if name in programs else []
            few, many = (measure([*program, str(folders[count]), *behind], flags.cores) for count in (4, flags.images))
            cpu_ms, wall_ms = (1e3 * (many[at] - few[at]) / (flags.images - 4) for at in (0, 1))
            found[name] = {"cpu_ms": cpu_ms, "wall_ms": wall_ms, "start_cpu_s": few[0], "peak_mb": many[2]}
            print(
                f"{name:<36}{1e3 / cpu_ms:7.1f} images a core-second  {cpu_ms:7.1f} CPU-ms  {1e3 / wall_ms:7.1f} "
                f"images/s  start {few[0]:6.1f} CPU-s  {many[2]:6.0f} MB",
                flush=True,
            )
    if flags.json:
        flags.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
