"""Mark the infected part of the lung on chest radiographs. Research use only, not for diagnosis.

``covseg.load_model(ref).predict(pixels)`` scores one image in memory; the ``covseg`` command scores
files, folders and buckets. Importing this package touches nothing and loads no model.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING

# python-gdcm, which pydicom loads, brings a zlib of its own. A system libz loaded after it binds to that one's
# functions, and the next user of libz (OpenCV or Pillow writing a PNG) dies of a double free. Loaded before, it does
# not. A program that imports pydicom before covseg must load libz, Pillow or OpenCV first itself.
with contextlib.suppress(OSError):
    ctypes.CDLL("libz.so.1")

if TYPE_CHECKING:
    from covseg.api import Model

__all__ = ["load_model"]


def load_model(ref: str = "default", backend: str = "onnx") -> Model:
    """Open a model that scores images held in memory; see `covseg.api.Model`."""
    from covseg.api import Model

    return Model(ref, backend)
