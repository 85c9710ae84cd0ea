"""One image in every transfer syntax: identical pixels, and no harm from damage."""

from __future__ import annotations

import base64
import io

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame

from covseg.errors import RadiographRefused, Reason
from covseg.stages.read import read
from covseg.stages.read.codestream import Layout, run_decoder
from covseg.synthetic.bad_inputs import image
from tests.dicom_images import PLAIN, SIDE, TWELVE_BIT, carrying, dataset, jpeg_lossless, reason_of, written

# A 64 x 64 ramp, as another program (DCMTK) wrote it: nothing installed here writes 12-bit JPEG.
TWELVE_BIT_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
    "UlNSMj5aYVpQYEpRUk//wQALDABAAEABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAABwkL/8QAGRAAAQUAAAAAAAAAAAAAAAAAAAYH"
    "IzKh/9oACAEBAAA/AM5RLNtSDBiSzbUgwY0s21IMGJLNtSDBjSzbUgwYks21IMGNLNtSDBiSzbUgwgmlm2pBgxJZtqQYMaWbakGD"
    "Elm2pBgxpZtqQYMSWbakGDGlm2pBgxJZtqQYQTSzbUgwYks21IMGNLNtSDBiSzbUgwY0s21IMGJLNtSDBjSzbUgwYks21IMIJpZt"
    "qQYMSWbakGDGlm2pBgxJZtqQYMaWbakGDElm2pBgxJZtqQYMaWbakGEE0s21IMGJLNtSDBjSzbUgwYks21IMGJLNtSDBjSzbUgwY"
    "ks21IMGNLNtSDCCaWbakGDElm2pBgxJZtqQYMaWbakGDElm2pBgxpZtqQYMSWbakGDGlm2pBhBJLNtSDBjSzbUgwYks21IMGNLNt"
    "SDBiSzbUgwY0s21IMGJLNtSDBjSzbUgwgklm2pBgxpZtqQYMSWbakGDGlm2pBgxJZtqQYMaWbakGDElm2pBgxpZtqQYf///Z"
)

TWINS = [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless]
TWINS += [uid.JPEGLSLossless]


@pytest.mark.parametrize("syntax", TWINS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(("stored", "bits"), [(image(SIDE), 8), (TWELVE_BIT, 12), (TWELVE_BIT * 16, 16)])
def test_a_compressed_twin_gives_identical_pixels(stored, bits, syntax):
    plain = read(written(dataset(stored, bits, "MONOCHROME1"))).pixels
    assert np.array_equal(read(written(dataset(stored, bits, "MONOCHROME1"), syntax)).pixels, plain)


@pytest.mark.parametrize(("stored", "bits"), [(image(SIDE), 8), (TWELVE_BIT, 12), (TWELVE_BIT * 16, 16)])
def test_a_lossless_jpeg_twin_gives_identical_pixels(stored, bits, tmp_path):
    plain = written(dataset(stored, bits))
    assert np.array_equal(read(jpeg_lossless(plain, tmp_path)).pixels, read(plain).pixels)


def test_a_big_endian_twin_gives_identical_pixels():
    swapped = dataset(TWELVE_BIT, 12, PixelData=TWELVE_BIT.byteswap().tobytes())
    twin = written(swapped, uid.ExplicitVRBigEndian)
    assert np.array_equal(read(twin).pixels, read(written(dataset(TWELVE_BIT, 12))).pixels)


def test_compressed_twins_of_a_real_image_give_identical_pixels(data_root, tmp_path):
    source = (data_root / "dicom" / "nih_test1_DX_PA.dcm").read_bytes()
    pixels = read(source).pixels
    for syntax in TWINS[1:]:
        twin = pydicom.dcmread(io.BytesIO(source))
        twin.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        assert np.array_equal(read(written(twin, syntax)).pixels, pixels), syntax.name
    assert np.array_equal(read(jpeg_lossless(source, tmp_path)).pixels, pixels)


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_a_data_set_without_preamble_and_file_meta_is_read(implicit, little):
    stored = TWELVE_BIT if little else TWELVE_BIT.byteswap()
    file = io.BytesIO()
    dataset(stored, 12).save_as(file, implicit_vr=implicit, little_endian=little)
    assert b"DICM" not in file.getvalue()
    assert np.allclose(read(file.getvalue()).pixels, PLAIN, atol=1e-5)


def test_a_baseline_jpeg_in_several_fragments_is_read():
    jpeg = io.BytesIO()
    Image.fromarray(image(SIDE)).save(jpeg, "JPEG", quality=95)
    whole = carrying(jpeg.getvalue(), uid.JPEGBaseline8Bit, image(SIDE), 8)
    split = pydicom.dcmread(io.BytesIO(whole), force=True)
    split.PixelData = encapsulate([jpeg.getvalue()], fragments_per_frame=3)
    file = io.BytesIO()
    split.save_as(file, implicit_vr=False, little_endian=True)
    assert np.array_equal(read(file.getvalue()).pixels, read(whole).pixels)
    assert np.abs(read(whole).pixels - image(SIDE) / 255).mean() < 0.02


def test_twelve_bit_jpeg_is_read_in_dicom_and_alone():
    ramp = np.add.outer(np.arange(64) * 40, np.arange(64) * 20).astype(np.uint16)
    inside = read(carrying(TWELVE_BIT_JPEG, uid.JPEGExtended12Bit, ramp, 12))
    alone = read(TWELVE_BIT_JPEG)
    assert (inside.kind, alone.kind) == ("dicom", "jpeg")
    assert np.allclose(inside.pixels, alone.pixels, atol=1e-5)
    assert np.abs(alone.pixels * 4095 - ramp).max() <= 6


@pytest.mark.parametrize("kind", ["lossless", "jpeg-ls"])
def test_a_bare_lossless_jpeg_file_is_read(kind, tmp_path):
    plain = written(dataset(TWELVE_BIT, 12))
    twin = (
        jpeg_lossless(plain, tmp_path) if kind == "lossless" else written(dataset(TWELVE_BIT, 12), uid.JPEGLSLossless)
    )
    frame = get_frame(pydicom.dcmread(io.BytesIO(twin)).PixelData, 0, number_of_frames=1)
    radiograph = read(frame)
    assert radiograph.kind == "jpeg"
    assert np.allclose(radiograph.pixels, PLAIN, atol=1e-6)


def test_a_grey_image_stored_in_colour_reads_as_grey():
    colour = np.dstack([image(SIDE)] * 3)
    one = dataset(image(SIDE), 8, "RGB", SamplesPerPixel=3, PlanarConfiguration=0, PixelData=colour.tobytes())
    assert np.array_equal(read(written(one)).pixels, image(SIDE) / np.float32(255))
    planes = dataset(
        image(SIDE), 8, "RGB", SamplesPerPixel=3, PlanarConfiguration=1, PixelData=3 * image(SIDE).tobytes()
    )
    assert np.array_equal(read(written(planes)).pixels, image(SIDE) / np.float32(255))


def test_an_unknown_transfer_syntax_lacks_a_decoder():
    data = carrying(b"\xff\x0a" + bytes(64), uid.MPEG2MPML, image(SIDE), 8)
    assert reason_of(data.replace(uid.MPEG2MPML.encode(), b"1.2.840.10008.1.2.4.110")) is Reason.MISSING_DECODER


def test_a_decoder_that_is_not_installed_is_missing():
    with pytest.raises(RadiographRefused) as refused:
        run_decoder(b"", uid.JPEGLossless, Layout(SIDE, SIDE, 1, 8, 8), plugin="pylibjpeg")  # its GPL part is left out
    assert refused.value.reason is Reason.MISSING_DECODER


def test_a_codestream_larger_than_the_header_is_not_decoded():
    large = pydicom.dcmread(io.BytesIO(written(dataset(image(4 * SIDE), 8), uid.JPEG2000Lossless)))
    frame = get_frame(large.PixelData, 0, number_of_frames=1)
    assert reason_of(carrying(frame, uid.JPEG2000Lossless, image(SIDE), 8)) is Reason.CORRUPT


SEEDS = {syntax.name: written(dataset(TWELVE_BIT, 12), syntax) for syntax in (uid.ExplicitVRLittleEndian, *TWINS)}


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(SEEDS)), st.booleans(), st.data())
def test_a_damaged_image_is_read_or_refused_and_nothing_else_happens(name, in_header, draw):
    data = bytearray(SEEDS[name])
    end = min(len(data), 900) if in_header else len(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, end - 1))] = draw.draw(st.integers(0, 255))
    start = draw.draw(st.integers(0, end))
    del data[start : start + draw.draw(st.integers(0, 20))]
    try:
        assert read(bytes(data)).pixels.min() >= 0
    except RadiographRefused as refused:
        assert refused.reason in Reason
