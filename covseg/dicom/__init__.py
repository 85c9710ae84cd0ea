"""Scores of one DICOM radiograph as DICOM objects, for a reading room: SEG, SR and SC.

In: the source's references, its row, pixels and masks. Out: bytes, the same for the same input, project key and
versions of covseg, highdicom and pydicom: no clock and no random number is in them. It knows nothing of stores.

====  =====================================================================================================
seg   binary segmentation on the source grid: 1 lung, 2 infection; none where no lung was found
sr    TID 1500 report with one image-level group (TID 1501): every number, the grade and the flags of the row
sc    the image with both contours and "Research use only" burnt in, for viewers without SEG
====  =====================================================================================================

Without ``link_patient`` the objects form a study of their own: study, series, instance and patient are named by the
keyed hash, also where the objects refer to the source, and no other element of its header is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from covseg.dicom.identity import Source, instance_uid, read_source
from covseg.dicom.metadata import MetadataCell, read_metadata
from covseg.errors import UsageError
from covseg.records import Grey, Masks, Row
from covseg.settings.dicom import DicomKind

__all__ = ["MetadataCell", "Source", "check_installed", "instance_uid", "make_objects", "read_metadata", "read_source"]


def check_installed() -> None:
    """Find out before any work whether DICOM objects can be made.

    Raises
    ------
    UsageError
        When highdicom is not installed; the message says how.
    """
    if find_spec("highdicom") is None:
        raise UsageError("--dicom needs highdicom, which is not installed: pip install 'covseg[dicom]'")


def make_objects(
    kinds: Sequence[DicomKind], source: Source | None, row: Row, samples: Grey, masks: Masks
) -> dict[DicomKind, bytes]:
    """Return the objects of one scored radiograph.

    Parameters
    ----------
    kinds : sequence of str
        ``seg``, ``sr``, ``sc``.
    source : Source or None
        What the objects say about whose image it is, from `read_source`; without one there are no objects.
    row : Row
        Of a scored image.
    samples : ndarray of uint8 or float32, shape (H, W)
        Of 255, or in [0, 1]; bone bright.
    masks : Masks
        At the same size.

    Returns
    -------
    dict
        Kind to the bytes of a DICOM file; without ``seg`` where no lung was found.
    """
    if source is None or not kinds:
        return {}
    from covseg.dicom.capture import make_capture
    from covseg.dicom.report import make_report
    from covseg.dicom.seg import make_segmentation

    made: dict[DicomKind, bytes] = {}
    if "seg" in kinds and masks.lung.any():
        made["seg"] = make_segmentation(source, row, masks)
    if "sr" in kinds:
        made["sr"] = make_report(source, row)
    if "sc" in kinds:
        made["sc"] = make_capture(source, row, samples, masks)
    return made
