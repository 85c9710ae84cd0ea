"""Transfer syntax x photometric interpretation x bits, each against pydicom's own decoding and rendering."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from covseg.stages.read import read
from covseg.synthetic.bad_inputs import image
from tests.dicom_images import SIDE, carrying, dataset, jpeg_lossless, written

NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
NATIVE += [uid.DeflatedExplicitVRLittleEndian]
LOSSLESS = [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGLosslessSV1]
LOSSY = [uid.JPEGLSNearLossless, uid.JPEG2000, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit]
WINDOWS = {"plain": {}, "window": {"WindowCenter": 0.4, "WindowWidth": 0.5}}
ONLY_BITS = {uid.JPEGBaseline8Bit: [8], uid.JPEGExtended12Bit: [8]}  # of 12 bits pydicom renders none: see the twins


def encoded(syntax: uid.UID, photometric: str, bits: int, window: dict[str, float], folder: Path) -> bytes:
    top = 2**bits - 1
    stored = np.round(image(SIDE) / 255 * top).astype(np.uint8 if bits == 8 else np.uint16)
    changes = {name: round(value * top, 3) for name, value in window.items()}
    changes |= {"RescaleSlope": "0.5", "RescaleIntercept": "30"} if window else {}
    if syntax == uid.ExplicitVRBigEndian:
        changes |= {"PixelData": stored.byteswap().tobytes()} if bits > 8 else {}
    if syntax == uid.JPEGLosslessSV1:
        return jpeg_lossless(written(dataset(stored, bits, photometric, **changes)), folder)
    if syntax in ONLY_BITS:
        jpeg = io.BytesIO()
        Image.fromarray(stored).save(jpeg, "JPEG", quality=90)
        return carrying(jpeg.getvalue(), syntax, stored, bits, photometric=photometric, **changes)
    one = dataset(stored, bits, photometric, **changes)
    if syntax in (uid.JPEGLSNearLossless, uid.JPEG2000):
        return _lossy(one, syntax)
    return written(one, syntax)


def _lossy(one: Dataset, syntax: uid.UID) -> bytes:
    written(one)  # gives it its file meta
    options = {"jls_error": 2} if syntax == uid.JPEGLSNearLossless else {"j2k_psnr": [80]}
    one.compress(syntax, generate_instance_uid=False, **options)
    file = io.BytesIO()
    one.save_as(file, enforce_file_format=True)
    return file.getvalue()


def rendered(data: bytes, photometric: str) -> np.ndarray:
    """Return what pydicom makes of it, in [0, 1]; bone bright."""
    one = dcmread(io.BytesIO(data), force=True)
    stored = one.pixel_array
    values = apply_voi_lut(apply_modality_lut(stored, one), one)
    slope, intercept = float(one.get("RescaleSlope", 1)), float(one.get("RescaleIntercept", 0))
    grey = (values - intercept) / (slope * (2**one.BitsStored - 1))
    return 1 - grey if photometric == "MONOCHROME1" else grey


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("syntax", "bits"),
    [
        pytest.param(syntax, bits, id=f"{syntax.keyword}-{bits}")
        for syntax in (*NATIVE, *LOSSLESS, *LOSSY)
        for bits in ONLY_BITS.get(syntax, [8, 10, 12, 14, 15, 16])
    ],
)
def test_every_image_renders_as_pydicom_renders_it(syntax, bits, window, photometric, tmp_path):
    data = encoded(syntax, photometric, bits, WINDOWS[window], tmp_path)
    assert dcmread(io.BytesIO(data), force=True).file_meta.TransferSyntaxUID in (syntax, uid.JPEGLossless)
    pixels = read(data).pixels
    assert np.allclose(pixels, rendered(data, photometric), atol=4e-5)
