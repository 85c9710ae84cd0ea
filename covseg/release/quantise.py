"""Make the int8 model of a model folder, ``int8.safetensors``.

In: a model folder with its own graph, and a labelled set. The ranges of what its convolutions read are those of Train,
by NNCF; the image-level logit is moved until as many images of Val without infection are marked as in float32: the
float32 model's threshold was chosen on Val as well. What that costs is for `covseg.release.prove` to measure.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covseg.model_folder.backends import OnnxBackend
from covseg.model_folder.folder import ModelFolder
from covseg.model_folder.precision import INT8
from covseg.stages.postprocess import raw_presence
from covseg.stages.segment import Backend
from covseg.storage import LocalStore
from covseg.training.dataset import load_split
from covseg.training.lungs import on_grid

CALIBRATION = 300  # Train images
BATCH = 4

Floats = NDArray[np.float64]


def quantise(folder: ModelFolder, root: Path, limit: int | None = None, count: int = CALIBRATION) -> str:
    """Write the int8 model and return its SHA-256.

    Parameters
    ----------
    folder : ModelFolder
        With its own graph.
    root : Path
        Holds ``Train`` and ``Val``.
    limit, count : int or None, int
        About so many images of Val, and of Train.

    Raises
    ------
    ModelRefused
        When the folder has no graph that OpenVINO can read.
    SetRefused
        When a split is missing or has no images.
    """
    os.environ.setdefault("NNCF_CI", "1")  # without it, NNCF tells its makers of every use
    import nncf

    from covseg.model_folder.openvino_graph import but_for_int8, move_presence, pack, read_graph

    nncf.set_log_level(logging.WARNING)
    model = read_graph(folder)
    images = on_grid(load_split(root, "Train", count, targets=()).images, folder.config)
    quantised = nncf.quantize(
        model,
        nncf.Dataset([image[None, None] for image in images]),
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=sorted(but_for_int8(model)), validate=False),
    )
    data = pack(quantised)
    LocalStore(folder.path).write(INT8, data)
    if shift := _shift(folder, root, limit):
        move_presence(quantised, shift)
        data = pack(quantised)
        LocalStore(folder.path).write(INT8, data)
    return hashlib.sha256(data).hexdigest()


def _shift(folder: ModelFolder, root: Path, limit: int | None) -> float:
    """Return what must be added to the int8 model's image-level logit; 0 for a model without a threshold on it."""
    from covseg.model_folder.openvino_backend import OpenVinoBackend

    if not folder.config.thresholds.presence:
        return 0.0
    split = load_split(root, "Val", limit, targets=("infection",))
    clear = ~split.infections.any(axis=(1, 2))
    images = on_grid(split.images[clear], folder.config)
    reference, rounded = (
        _logits(backend, images) for backend in (OnnxBackend(folder), OpenVinoBackend(folder, "int8", proved=False))
    )
    threshold = float(_logit(np.array(raw_presence(folder.config.thresholds))))
    return level(reference, rounded, threshold)


def level(reference: Floats, rounded: Floats, threshold: float) -> float:
    """Return the shift of logits ``(N,)`` that lets as many of `rounded` reach a threshold as of `reference`.

    It lies halfway between the last that reaches it and the next; 0 where all or none do.

    Examples
    --------
    >>> level(np.array([0.0, 1.0, 3.0]), np.array([-0.5, 0.5, 1.5]), 2.0)
    1.0
    """
    marked = int((reference >= threshold).sum())
    if not 0 < marked < len(rounded):
        return 0.0
    ordered = np.sort(rounded)[::-1]
    return float(threshold - (ordered[marked - 1] + ordered[marked]) / 2)


def _logits(backend: Backend, images: NDArray[np.float32]) -> Floats:
    parts = [backend.run(images[start : start + BATCH])[1] for start in range(0, len(images), BATCH)]
    return _logit(np.concatenate(parts).astype(np.float64))


def _logit(probability: Floats) -> Floats:
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)))
