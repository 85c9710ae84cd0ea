"""What becomes of an image on its way through the pipeline: prepared, then scored or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from covseg.dicom import MetadataCell, Source
from covseg.records import RESEARCH_ONLY, Entry, Masks, Prediction, Radiograph, Row
from covseg.settings.dicom import DicomKind
from covseg.stages.encode import overlay
from covseg.table import cells

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class PreparedImage:
    """A radiograph that is ready for the model.

    Parameters
    ----------
    entry : Entry
        Where it came from.
    radiograph : Radiograph
        Its source samples.
    small : ndarray of float32, shape (SOURCE_SIDE, SOURCE_SIDE)
        Grey values in [0, 1] at the side of the training images, where sharpness is judged.
    model_pixels : ndarray of float32, shape (S, S)
        What the model sees.
    source : Source or None
        What DICOM objects of it refer to; None where none are asked for, or can be made.
    metadata : mapping
        Cells from its header that the run asks for, by column.
    """

    entry: Entry
    radiograph: Radiograph
    small: NDArray[np.float32]
    model_pixels: NDArray[np.float32]
    source: Source | None = None
    metadata: Mapping[str, MetadataCell] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """An image that has a mask: its row, masks at source size, prediction at model geometry, DICOM files by kind."""

    row: Row
    image: PreparedImage
    masks: Masks
    prediction: Prediction
    objects: Mapping[DicomKind, bytes] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return the line as plain values that JSON takes, and that the output is for research use only."""
        return {**cells(self.row), "intended_use": RESEARCH_ONLY}

    def show(self) -> Image:
        """Return the image ``(H, W)`` with contours of lung (cyan) and infection (orange); a notebook displays it."""
        from PIL import Image

        bgr = overlay(self.image.radiograph.samples, self.masks)
        return Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1]))


@dataclass(frozen=True)
class Refused:
    """An image without a mask; its row holds reason, stage and detail, `image` what the input filter alone refused."""

    row: Row
    image: PreparedImage | None = None


Result = Scored | Refused
