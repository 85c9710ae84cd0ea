"""Truth masks: read, and checked before they are believed.

In: a `LabelledImage` and its set. Out: `Truth`, or `BadMask` with the file's name. A mask is never
resized or thresholded here: one of another size or with grey edges would quietly move every number.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.data.images import LabelledImage, LabelledSet
from covseg.errors import BadMask
from covseg.records import Mask, Truth


def read_truth(
    dataset: LabelledSet, image: LabelledImage, shape: tuple[int, int] | None = None, *, want_infection: bool = True
) -> Truth:
    """Read an image's masks, of the height and width that the image has, where `shape` says those.

    False for `want_infection` reads an image of a set of lung masks only; its infection mask is empty.

    Raises
    ------
    BadMask
        When a mask is unreadable, of another size, or not binary.
    """
    if image.infection is None and image.lung and not want_infection:
        only = read_mask(dataset.root / image.lung, dataset.binary_values, shape)
        return Truth(np.zeros_like(only), only)
    if image.infection is None:
        raise BadMask("missing_infection_mask", f"{image.key} has no infection mask")
    infection = read_mask(dataset.root / image.infection, dataset.binary_values, shape)
    lung = None if image.lung is None else read_mask(dataset.root / image.lung, dataset.binary_values, infection.shape)
    return Truth(infection, lung)


def read_mask(path: Path, values: tuple[int, ...] = (255,), shape: tuple[int, ...] | None = None) -> Mask:
    """Read one mask as 0 and 1.

    Raises
    ------
    BadMask
        When it is unreadable, of another size, or carries other values than 0 and one of `values`.
    """
    # imdecode of the bytes: imread prints to stderr and cannot open every legal file name
    data = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise BadMask("mask_unreadable", f"{path}: not a readable image; wanted a grey PNG")
    if image.ndim == 3:
        image = _one_channel(image, path)
    if shape is not None and image.shape != tuple(shape):
        raise BadMask(
            "mask_size",
            f"{path}: {image.shape[1]}x{image.shape[0]}, its image is {shape[1]}x{shape[0]}: never resized here",
        )
    present = np.flatnonzero(np.bincount(image.ravel(), minlength=2)) if image.dtype == np.uint8 else np.unique(image)
    if not any(set(present.tolist()) <= {0, value} for value in values):
        shown = ", ".join(map(str, present[:6])) + (", ..." if len(present) > 6 else "")
        raise BadMask("mask_not_binary", f"{path}: values {shown}; wanted 0 and {' or '.join(map(str, values))} only")
    return (image > 0).astype(np.uint8)


def _one_channel(image: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Take one of three equal channels; an alpha channel is ignored."""
    colours = image[:, :, :3]
    if not (colours == colours[:, :, :1]).all():
        raise BadMask("mask_not_binary", f"{path}: a colour image; wanted a grey mask")
    return np.ascontiguousarray(colours[:, :, 0])
