"""DICOM images made for the tests: any stored values, any header, any transfer syntax."""

from __future__ import annotations

import io
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from covseg.errors import RadiographRefused
from covseg.stages.read import read
from covseg.synthetic.bad_inputs import image

SIDE = 96
CANARY = "CANARY^NAME"
TWELVE_BIT = image(SIDE).astype(np.uint16) * 16 + 5
PLAIN = TWELVE_BIT / 4095


def dataset(stored, bits, photometric="MONOCHROME2", **changes):
    """Build a CR image of stored values, with a patient in its header."""
    one = Dataset()
    elements = {
        "SOPClassUID": uid.ComputedRadiographyImageStorage, "SOPInstanceUID": "2.25.1", "StudyDate": "20200101",
        "AccessionNumber": "CANARY", "Modality": "CR", "PatientName": CANARY, "PatientID": "CANARY",
        "SamplesPerPixel": 1, "PhotometricInterpretation": photometric,
        "Rows": stored.shape[0], "Columns": stored.shape[1], "BitsAllocated": 8 * stored.itemsize, "BitsStored": bits,
        "HighBit": bits - 1, "PixelRepresentation": int(stored.dtype.kind == "i"), "PixelData": stored.tobytes(),
    }  # fmt: skip
    for keyword, value in (elements | changes).items():
        if value is not None:
            setattr(one, keyword, value)
    if "PixelData" in one:
        one["PixelData"].VR = "OW" if stored.itemsize == 2 else "OB"
    return one


def written(one, syntax=uid.ExplicitVRLittleEndian):
    """Write a DICOM file, compressing it where the syntax says so."""
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian if syntax.is_encapsulated else syntax
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    if syntax.is_encapsulated:
        one.compress(syntax, generate_instance_uid=False)
    file = io.BytesIO()
    one.save_as(file, enforce_file_format=True)
    return file.getvalue()


def carrying(frame, syntax, stored, bits, **changes):
    """Write a DICOM file around a finished codestream."""
    one = dataset(stored, bits, **changes)
    one.PixelData = encapsulate([frame])
    one["PixelData"].is_undefined_length = True
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    one.save_as(file, implicit_vr=False, little_endian=True)
    return file.getvalue()


def jpeg_lossless(data: bytes, folder: Path) -> bytes:
    """Recompress a DICOM file as lossless JPEG."""
    (folder / "plain.dcm").write_bytes(data)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(folder / "plain.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (folder / "lossless.dcm").read_bytes()


def reason_of(data):
    with pytest.raises(RadiographRefused) as refused:
        read(data)
    return refused.value.reason


# What is planted, by VR; a UID and a date are found again by their beginning.
PLANTED = {
    **dict.fromkeys(("PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "CS"), "CANARY{:08X}"),
    "UI": "1.2.840.99999.{}", "DA": "19391231", "DT": "19391231010203", "TM": "010203.987654", "AS": "087Y",
    "IS": "987654321", "UR": "http://canary.example/{:08X}",
}  # fmt: skip
TRACES = (b"CANARY", b"1.2.840.99999.", b"19391231", b"010203.987654", b"987654321", b"canary")
UNTOUCHED = (
    "SpecificCharacterSet", "SOPClassUID", "Modality", "PresentationIntentType", "PatientOrientation",
    "PhotometricInterpretation", "NumberOfFrames", "BurnedInAnnotation", "VOILUTFunction", "ViewPosition",
)  # fmt: skip


def with_canaries(data: bytes) -> bytes:
    """Plant a name, date or number in every text element of the dictionary, in sequences and in private elements."""
    image = dcmread(io.BytesIO(data))
    for tag, (vr, multiplicity, _, retired, keyword) in DicomDictionary.items():
        plain = vr in PLANTED and keyword and not retired and 0x0008 <= tag >> 16 < 0x6000
        if plain and keyword not in UNTOUCHED and multiplicity[0] == "1":
            setattr(image, keyword, PLANTED[vr].format(tag))
    item = Dataset()
    item.PatientName, item.ReferencedSOPInstanceUID = "CANARY^ITEM", "1.2.840.99999.7"
    image.RequestAttributesSequence = image.ReferencedStudySequence = [item]
    image.private_block(0x0011, "CANARY MAKER", create=True).add_new(1, "LO", "CANARY PRIVATE")
    image.add_new(0x00291010, "UN", b"CANARY UNKNOWN ")
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()
