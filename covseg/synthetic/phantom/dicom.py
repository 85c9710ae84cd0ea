"""A phantom as a DICOM digital X-ray object, explicit little endian, that names nobody.

In: a `Phantom`. Out: bytes, the same for the same phantom: identifiers are derived from the seed, and
dates are empty.
"""

from __future__ import annotations

import io

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from covseg.synthetic.phantom import BITS, WHITE, Phantom

FIELD_MM = 430.0  # longer side of a common detector; sets the pixel spacing
LEFT_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "DetectorType", "PositionerType",
)  # fmt: skip
HEADER: dict[str, object] = {
    "SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX", "Manufacturer": "covseg phantom",
    "ImageComments": "Synthetic: a procedural phantom, not a patient", "ImageType": ["DERIVED", "SECONDARY"],
    "PresentationIntentType": "FOR PRESENTATION", "BodyPartExamined": "CHEST", "ViewPosition": "PA",
    "ImageLaterality": "U", "PatientOrientation": ["L", "F"], "BurnedInAnnotation": "NO", "InstanceNumber": "1",
    "AcquisitionContextSequence": [], "LossyImageCompression": "00", "PixelIntensityRelationship": "LOG",
    "RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "US", "WindowCenter": str(1 << BITS - 1),
    "WindowWidth": str(1 << BITS), "SamplesPerPixel": 1, "BitsAllocated": 16, "BitsStored": BITS, "HighBit": BITS - 1,
    "PixelRepresentation": 0,
}  # fmt: skip


def encode_dicom(phantom: Phantom, inverted: bool = False) -> bytes:
    """Return a DX object of 12 bits: MONOCHROME2, or inverted MONOCHROME1, white the smallest value."""
    height, width = phantom.pixels.shape
    spacing = round(FIELD_MM / max(height, width), 6)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, object] = {**dict.fromkeys(LEFT_EMPTY), **HEADER, **_identifiers(phantom, inverted)}
    for name, value in values.items():
        setattr(image, name, value)
    image.AnatomicRegionSequence = [_code("43799004", "Chest")]
    image.ViewCodeSequence = [_code("399348003", "postero-anterior")]
    image.PixelSpacing = image.ImagerPixelSpacing = [spacing, spacing]
    image.Rows, image.Columns = height, width
    image.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    image.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    image.PixelIntensityRelationshipSign = -1 if inverted else 1
    image.PixelData = (WHITE - phantom.pixels if inverted else phantom.pixels).astype("<u2").tobytes()
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _identifiers(phantom: Phantom, inverted: bool) -> dict[str, str]:
    source = ["covseg phantom", str(phantom.seed), str(phantom.pixels.shape), str(inverted)]
    levels = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return {level: str(generate_uid(entropy_srcs=[*source, level])) for level in levels}


def _code(value: str, meaning: str) -> Dataset:
    """Return a SNOMED CT code item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item
