"""DICOM images made for the tests: any stored values, any header, any transfer syntax."""

from __future__ import annotations

import io
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import uid
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
