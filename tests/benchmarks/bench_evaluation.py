"""What the metrics of 932 images cost, apart from inference: wall and CPU seconds on one thread.

Masks are made: truth is a smooth blob on half of the images, the prediction a shifted copy. Judging
is counts, distances, lesions and border; the table is every convention, stratum and interval.

Run: ``python -m tests.benchmarks.bench_evaluation [--images 932] [--size 256]``.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np

from covseg.metrics.image_results import ImageResults, score_masks
from covseg.metrics.summary import summarise
from covseg.records import Masks, Truth

STRATA = ("COVID-19", "Non-COVID", "Normal")


def made(seed: int, size: int) -> tuple[Masks, Truth]:
    """One image's masks and truth."""
    noise = np.random.default_rng(seed).standard_normal((size, size)).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), size / 16)
    infection = (field > field.std()).astype(np.uint8) if seed % 2 else np.zeros((size, size), np.uint8)
    lung = np.zeros((size, size), np.uint8)
    lung[size // 8 : -size // 8, size // 8 : -size // 8] = 1
    guess = np.roll(infection, 3, axis=0) & lung
    return Masks(lung, guess, lung, False, 0.0, 0, None), Truth(infection & lung, lung)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=932)
    parser.add_argument("--size", type=int, default=256)
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    images = [made(seed, flags.size) for seed in range(64)]
    results, clocks = ImageResults(), [(time.perf_counter(), time.process_time())]
    for number in range(flags.images):
        masks, truth = images[number % 64]
        stratum = "COVID-19" if number % 2 else STRATA[1 + number % 4 // 2]
        results.add(score_masks(f"{number}.png", stratum, masks, truth, (number % 97) / 97, number % 89 / 89))
    clocks.append((time.perf_counter(), time.process_time()))
    summarise(results, STRATA)
    clocks.append((time.perf_counter(), time.process_time()))
    for name, start, end in (("judging", *clocks[:2]), ("the table", *clocks[1:]), ("together", clocks[0], clocks[2])):
        wall, busy = end[0] - start[0], end[1] - start[1]
        print(f"{name:<10} {flags.images} images of {flags.size} px: {wall:6.2f} s wall, {busy:6.2f} s CPU")


if __name__ == "__main__":
    main()
