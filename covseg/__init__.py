"""Mark the infected part of the lung on chest radiographs. Research use only, not for diagnosis.

``covseg.load_model(ref).predict(pixels)`` scores one image in memory; the ``covseg`` command scores
files, folders and buckets. Importing this package touches nothing and loads no model; the public names
below are imported when they are first used.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from typing import TYPE_CHECKING, Any

# python-gdcm, which pydicom loads, brings a zlib of its own. A system libz loaded after it binds to that one's
# functions, and the next user of libz (OpenCV or Pillow writing a PNG) dies of a double free. Loaded before, it does
# not. A program that imports pydicom before covseg must load libz, Pillow or OpenCV first itself.
with contextlib.suppress(OSError):
    ctypes.CDLL("libz.so.1")

if TYPE_CHECKING:
    from covseg.api import Model, load_model
    from covseg.errors import (
        BadMask,
        CovsegError,
        EnvironmentFailed,
        ImagesLost,
        InternalFailure,
        ModelRefused,
        ModelWorkerLost,
        NotAccepted,
        NotPublished,
        RadiographRefused,
        Reason,
        SetRefused,
        SplitAbsent,
        Stage,
        Status,
        Stopped,
        StorageDenied,
        StorageFull,
        StorageUnreachable,
        TrainingFailed,
        UsageError,
    )  # fmt: skip
    from covseg.evaluation.evaluate import evaluate
    from covseg.outcome import Refused, Scored
    from covseg.records import Masks, Prediction, Radiograph, Row
    from covseg.training.train import train

    __version__: str

__all__ = [
    "BadMask", "CovsegError", "EnvironmentFailed", "ImagesLost", "InternalFailure", "Masks", "Model",
    "ModelRefused", "ModelWorkerLost", "NotAccepted", "NotPublished", "Prediction", "Radiograph",
    "RadiographRefused", "Reason", "Refused", "Row", "Scored", "SetRefused", "SplitAbsent", "Stage", "Status",
    "Stopped", "StorageDenied", "StorageFull", "StorageUnreachable", "TrainingFailed", "UsageError", "__version__",
    "evaluate", "load_model", "train",
]  # fmt: skip
_MODULES = ("errors", "records", "outcome", "api")  # the lightest first

_ENTRIES = {"evaluate": "evaluation.evaluate", "train": "training.train"}  # want more than the core


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name == "__version__":
        from covseg.settings.environment import code_version

        return code_version()
    if name in _ENTRIES:
        return getattr(importlib.import_module(f"covseg.{_ENTRIES[name]}"), name)
    for module in _MODULES if name in __all__ else ():
        names = vars(importlib.import_module(f"covseg.{module}"))
        if name in names:
            return names[name]
    raise AttributeError(f"module 'covseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
