"""What the DICOM objects of one image cost: CPU-ms of SEG, SR and SC, apart from reading and inference.

Images are phantoms with their true masks. The time of each kind is the median of several; the first, which imports
highdicom, is left out and named apart.

Run: ``python -m tests.benchmarks.bench_dicom [--sides 1024 2500] [--times 9]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import cv2
import numpy as np

from covseg.dicom import make_objects, read_source
from covseg.errors import Status
from covseg.records import Masks, Row
from covseg.settings.dicom import DICOM_KINDS, DicomSettings
from covseg.stages.read import read
from covseg.stages.severity import measure
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.dicom import encode_dicom

KEY = b"a key for benchmarks"
ALL = DicomSettings(kinds=DICOM_KINDS)


def cpu_ms(call: Callable[[], object]) -> float:
    """Return the CPU-milliseconds of a call."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)


def made(side: int) -> tuple[bytes, Row, Masks]:
    """Return a phantom's file, row and masks."""
    phantom = make_phantom(0, side, side)
    lung, infection = (mask.astype(np.uint8) for mask in (phantom.lung_mask, phantom.infection_mask))
    sides = np.where(np.arange(side) < side // 2, 1, 2).astype(np.uint8) * lung
    masks = Masks(lung, infection & lung, sides, False, 0.0, 1, 1.0)
    row = Row(
        input_id="0" * 32, key="phantom.dcm", etag="", sha256="0" * 64, size=0, status=Status.SCORED, height=side,
        width=side, **measure(masks).cells(0.2), infection_probability=0.9, threshold=0.5, qc_flags=("rotated",),
        model_id="bench", weights_sha256="0" * 64, config_sha256="0" * 64,
    )  # fmt: skip
    return encode_dicom(phantom), row, masks


def measure_side(side: int, times: int) -> str:
    """Return the costs and sizes at one side in words."""
    data, row, masks = made(side)
    pixels, source = read(data).pixels, read_source(data, KEY, ALL)
    make = partial(make_objects, source=source, row=row, samples=pixels, masks=masks)
    first = cpu_ms(partial(make, DICOM_KINDS))
    calls = {"source": partial(read_source, data, KEY, ALL), **{kind: partial(make, [kind]) for kind in DICOM_KINDS}}
    cost = {name: median(cpu_ms(call) for _ in range(times)) for name, call in calls.items()}
    words = ", ".join(f"{name} {ms:.1f}" for name, ms in cost.items())
    sizes = ", ".join(f"{kind} {len(made) / 1000:.0f}" for kind, made in make(DICOM_KINDS).items())
    return f"{side} px: {sum(cost.values()):6.1f} CPU-ms ({words}); the first {first:.0f}; kB {sizes}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2500])
    parser.add_argument("--times", type=int, default=9)
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    for side in flags.sides:
        print(measure_side(side, flags.times))


if __name__ == "__main__":
    main()
