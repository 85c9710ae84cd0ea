"""Phantoms to files: PNG, DICOM, truth masks, a truth table, and a small data set in the COVID-QU-Ex layout.

In: seeds. Out: objects in a store. Every byte follows from the seed, the size and the format; no
clock, no host name and no random identifier is written.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.errors import Reason
from covseg.records import Mask
from covseg.storage import LocalStore, Store
from covseg.synthetic.phantom import WHITE, Phantom, make_phantom

FORMATS = ("png", "png16", "monochrome2", "monochrome1")
TRUTH_COLUMNS = (
    "key", "seed", "infected_fraction", "infected_fraction_right", "infected_fraction_left", "lung_area_px",
)  # fmt: skip
STRATA = ("COVID-19", "COVID-19", "Non-COVID", "Normal")  # in turn: half of the images are infected
FILE_NAMES = {"COVID-19": "covid_{}.png", "Non-COVID": "non_COVID ({}).png", "Normal": "Normal ({}).png"}


def encode(phantom: Phantom, file_format: str) -> bytes:
    """Return the image as one file: ``png`` (8 bits), ``png16`` (12 in 16), ``monochrome2`` or ``1`` (DICOM, 12 bits).

    Raises
    ------
    ValueError
        For any other format.
    """
    if file_format not in FORMATS:
        raise ValueError(f"unknown image format {file_format!r}: wanted one of {', '.join(FORMATS)}")
    if file_format == "png":
        return _png(np.round(phantom.pixels * np.float32(255 / WHITE)).astype(np.uint8))
    if file_format == "png16":
        return _png(phantom.pixels)
    from covseg.synthetic.phantom.dicom import encode_dicom

    return encode_dicom(phantom, inverted=file_format == "monochrome1")


def _png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_images(
    store: Store, seeds: range, size: tuple[int, int], formats: tuple[str, ...] = ("png",)
) -> Iterator[Phantom]:
    """Write images and their truth; yields every phantom when it lies in the store.

    ``images/phantom-0000.png`` or ``.dcm``, ``truth/lung/`` and ``truth/infection/`` with masks {0, 255}
    of the same stem, and ``truth.csv`` last.

    Parameters
    ----------
    seeds : range
        One image each.
    size : tuple of int
        Height and width in pixels.
    formats : tuple of str
        Taken in turn, image by image; see `encode`.
    """
    rows: list[tuple[object, ...]] = []
    for index, phantom in enumerate(_made(seeds, lambda each: make_phantom(each, *size))):
        file_format = formats[index % len(formats)]
        stem = f"phantom-{index:04d}"
        key = stem + (".png" if file_format.startswith("png") else ".dcm")
        store.write(f"images/{key}", encode(phantom, file_format))
        store.write(f"truth/lung/{stem}.png", _mask_png(phantom.lung_mask))
        store.write(f"truth/infection/{stem}.png", _mask_png(phantom.infection_mask))
        fractions = [f"{phantom.infected_fractions[part]:.6f}" for part in ("total", "right", "left")]
        rows.append((key, phantom.seed, *fractions, int(phantom.lung_mask.sum())))
        yield phantom
    store.write("truth.csv", _csv(TRUTH_COLUMNS, rows))


def _made(seeds: range, make: Callable[[int], Phantom]) -> Iterator[Phantom]:
    """Make phantoms two at a time, in order, with at most four in memory."""
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(seeds), 4):
            yield from pool.map(make, seeds[start : start + 4])


def _mask_png(mask: Mask) -> bytes:
    return _png((mask * 255).astype(np.uint8))


def _csv(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()


def write_bad_inputs(store: Store, bad: dict[str, tuple[bytes, Reason]]) -> None:
    """Write inputs that must be refused under ``images/bad/``, and the reason of each to ``bad.csv``."""
    for name, (data, _) in bad.items():
        store.write(f"images/bad/{name}", data)
    store.write("bad.csv", _csv(("key", "reason"), [(f"bad/{name}", str(reason)) for name, (_, reason) in bad.items()]))


def write_dataset(root: Path, split_sizes: dict[str, int], seed: int = 0, size: int = 256) -> None:
    """Write a made data set in the Kaggle layout of COVID-QU-Ex.

    ``{split}/{stratum}/{images,infection masks,lung masks}/*.png``, 8-bit grey images and masks
    {0, 255}. As in the real one, only COVID-19 images have infection, and file names are unique.

    Parameters
    ----------
    split_sizes : dict of str to int
        Images a split, in the strata 2 : 1 : 1, such as ``{"Train": 16, "Val": 8}``.
    seed : int
        Of the first image; no seed is used twice.
    size : int
        Height and width in pixels.
    """
    store = LocalStore(root)
    for split, count in split_sizes.items():
        for index in range(count):
            stratum = STRATA[index % len(STRATA)]
            phantom = make_phantom(seed, size, size, infected=stratum == "COVID-19")
            kinds = {
                "images": encode(phantom, "png"),
                "lung masks": _mask_png(phantom.lung_mask),
                "infection masks": _mask_png(phantom.infection_mask),
            }
            for kind, data in kinds.items():
                store.write(f"{split}/{stratum}/{kind}/{FILE_NAMES[stratum].format(seed)}", data)
            seed += 1
