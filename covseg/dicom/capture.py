"""SC: the image with both contours burnt in, for viewers that do not draw segmentations."""

from __future__ import annotations

import cv2
import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit

from covseg.dicom.file import encode, identity, source_image
from covseg.dicom.identity import Source
from covseg.records import RESEARCH_ONLY, Grey, Masks, Row
from covseg.stages.encode import overlay

FONT, LETTER_SHARE = cv2.FONT_HERSHEY_SIMPLEX, 0.9  # of the width is what the words may take


def make_capture(source: Source, row: Row, samples: Grey, masks: Masks) -> bytes:
    """Return an RGB secondary capture at source size, JPEG compressed, "Research use only" in its top left corner."""
    canvas = overlay(samples, masks)
    _burn(canvas, RESEARCH_ONLY)
    image = source_image(source, row)
    made = SCImage.from_ref_dataset(
        ref_dataset=image,
        pixel_array=cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB),
        photometric_interpretation="YBR_FULL_422",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # highdicom wants one; below stands the source's
        transfer_syntax_uid=JPEGBaseline8Bit,
        **identity(source, row, "sc"),
    )
    made.PatientOrientation = list(source.orientation)
    made.BodyPartExamined = "CHEST"  # which has no laterality
    # Text that names a patient: what covseg burns in does not, what was in the image may.
    made.BurnedInAnnotation = "YES" if "burned_in_text" in row.qc_flags else "NO"
    made.LossyImageCompression, made.LossyImageCompressionMethod = "01", "ISO_10918_1"
    made.LossyImageCompressionRatio = f"{canvas.size / len(made.PixelData):.2f}"
    made.SourceImageSequence = [_reference(image)]
    return encode(made, source)


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _burn(canvas: NDArray[np.uint8], words: str) -> None:
    """Write white words on a black box, as wide as the image allows and no taller than a thirtieth of it."""
    (width, height), below = cv2.getTextSize(words, FONT, 1.0, 1)
    scale = min(LETTER_SHARE * canvas.shape[1] / width, max(canvas.shape[0] / 30, 12) / height)
    thickness = max(1, round(scale))
    (width, height), below = cv2.getTextSize(words, FONT, scale, thickness)
    margin = max(2, height // 3)
    cv2.rectangle(canvas, (0, 0), (width + 2 * margin, height + below + 2 * margin), (0, 0, 0), cv2.FILLED)
    cv2.putText(canvas, words, (margin, height + margin), FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
