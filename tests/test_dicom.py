"""DICOM films: grey values, polarity, compression, scope, and what of the header is let in."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from covseg.bad_inputs import film
from covseg.errors import RadiographRefused, Reason
from covseg.read import read
from covseg.read.elements import ALLOWED, read_elements

SIDE = 96
CANARY = "CANARY^NAME"
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


def dataset(stored, bits, photometric="MONOCHROME2", **changes):
    """Build a CR film of stored values, with a patient in its header."""
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


def table_item(table, first=0, bits=16):
    item = Dataset()
    item.LUTDescriptor = [len(table) % 2**16, first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    item.LUTData = np.asarray(table, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return [item]


TWELVE_BIT = film(SIDE).astype(np.uint16) * 16 + 5
PLAIN = TWELVE_BIT / 4095


# ---- bit depth x LUT x polarity: one expected pixel


def no_table(top):
    return {}, lambda stored: stored / top


def linear_window(top):
    centre, width = top * 0.4, top * 0.5
    changes = {"WindowCenter": [round(centre, 3), 1], "WindowWidth": [round(width, 3), 2]}
    return changes, lambda stored: np.clip((stored - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def exact_window(top):
    centre, width = round(top * 0.4, 3), round(top * 0.5, 3)
    changes = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": "LINEAR_EXACT"}
    return changes, lambda stored: np.clip((stored - centre) / width + 0.5, 0, 1)


def sigmoid_window(top):
    centre, width = round(top * 0.4, 3), round(top * 0.5, 3)
    changes = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": "SIGMOID"}
    return changes, lambda stored: 1 / (1 + np.exp(-4 * (stored - centre) / width))


def voi_table(top):
    table = np.round((np.arange(top + 1) / top) ** 2 * 65535).astype(int)
    # The table is applied, the window beside it is not.
    return {
        "VOILUTSequence": table_item(table),
        "WindowCenter": 1,
        "WindowWidth": 2,
    }, lambda stored: (stored / top) ** 2


def modality_table(top):
    table = np.round((np.arange(top + 1) / top) ** 0.5 * 65535).astype(int)
    return {"ModalityLUTSequence": table_item(table)}, lambda stored: (stored / top) ** 0.5


def rescale(top):
    return {"RescaleSlope": "2", "RescaleIntercept": "-50"}, lambda stored: stored / top


def rescale_and_window(top):
    changes = {"RescaleSlope": "2", "RescaleIntercept": "-50", "WindowCenter": top, "WindowWidth": top + 1}
    return changes, lambda stored: np.clip((2 * stored - 50 - (top - 0.5)) / top + 0.5, 0, 1)


def falling_rescale(top):
    return {"RescaleSlope": "-1", "RescaleIntercept": str(top)}, lambda stored: 1 - stored / top


TABLES = [no_table, linear_window, exact_window, sigmoid_window, voi_table, modality_table, rescale, rescale_and_window]
TABLES += [falling_rescale]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_every_pixel_gets_its_expected_grey(bits, table, photometric):
    top = 2**bits - 1
    stored = np.round(film(SIDE) / 255 * top).astype(np.uint8 if bits == 8 else np.uint16)
    changes, expected = table(top)
    grey = expected(stored.astype(float))
    pixels = read(written(dataset(stored, bits, photometric, **changes))).pixels
    assert np.allclose(pixels, 1 - grey if photometric == "MONOCHROME1" else grey, atol=3e-5)


def test_signed_values_start_below_zero():
    stored = (TWELVE_BIT.astype(np.int32) - 2048).astype(np.int16)
    assert np.allclose(read(written(dataset(stored, 12))).pixels, PLAIN, atol=1e-5)


def test_a_table_for_signed_values_starts_below_zero():
    stored = (TWELVE_BIT.astype(np.int32) - 2048).astype(np.int16)
    item = table_item(np.arange(4096) * 16, first=-2048)
    assert np.allclose(
        read(written(dataset(stored, 12, VOILUTSequence=item))).pixels, TWELVE_BIT * 16 / 65535, atol=1e-5
    )


def test_a_table_of_bytes_is_read():
    item = table_item([0], bits=8)
    item[0].LUTDescriptor = [256, 0, 8]
    item[0].LUTData = bytes(range(255, -1, -1))
    assert np.allclose(
        read(written(dataset(film(SIDE), 8, VOILUTSequence=item))).pixels, 1 - film(SIDE) / 255, atol=1e-5
    )


def test_values_outside_of_a_table_get_its_ends():
    item = table_item(np.linspace(0, 65535, 101).round().astype(int), first=100)
    pixels = read(written(dataset(film(SIDE), 8, VOILUTSequence=item))).pixels
    assert np.allclose(pixels, np.clip((film(SIDE).astype(float) - 100) / 100, 0, 1), atol=1e-4)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(function):
    one = dataset(TWELVE_BIT, 12, WindowCenter=1700.5, WindowWidth=900, VOILUTFunction=function,
                  RescaleSlope="0.5", RescaleIntercept="30")  # fmt: skip
    pixels = read(written(one)).pixels
    theirs = apply_voi_lut(apply_modality_lut(TWELVE_BIT, one), one)
    assert np.allclose(pixels, (theirs - 30) / (4095 * 0.5), atol=2e-5)


@pytest.mark.parametrize("changes", [{"WindowWidth": 0}, {"WindowWidth": -4}, {"WindowWidth": None}])
def test_a_window_without_width_is_passed_over(changes):
    one = dataset(TWELVE_BIT, 12, **{"WindowCenter": 2000, "WindowWidth": 1} | changes)
    assert np.allclose(read(written(one)).pixels, PLAIN, atol=1e-5)


def test_overlay_bits_above_the_stored_ones_do_not_matter():
    assert np.allclose(read(written(dataset(TWELVE_BIT | 0x8000, 12))).pixels, PLAIN, atol=1e-5)


def test_left_justified_samples_are_shifted():
    assert np.allclose(read(written(dataset(TWELVE_BIT << 4, 12, HighBit=15))).pixels, PLAIN, atol=1e-5)


def test_a_monochrome1_film_and_its_inverted_twin_give_identical_pixels():
    for bits, stored in ((8, film(SIDE)), (12, TWELVE_BIT), (15, TWELVE_BIT * 8), (16, TWELVE_BIT * 16)):
        top = 2**bits - 1
        twin = (top - stored.astype(np.int64)).astype(stored.dtype)
        window = {"WindowCenter": 0.4 * top, "WindowWidth": 0.6 * top}
        mirrored = window | {"WindowCenter": top + 1 - 0.4 * top}
        for ours, theirs in (({}, {}), (window, mirrored)):
            inverted = read(written(dataset(stored, bits, "MONOCHROME1", **ours)))
            straight = read(written(dataset(twin, bits, **theirs)))
            assert np.array_equal(inverted.pixels, straight.pixels)


# ---- transfer syntaxes

TWINS = [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless]
TWINS += [uid.JPEGLSLossless]


@pytest.mark.parametrize("syntax", TWINS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(("stored", "bits"), [(film(SIDE), 8), (TWELVE_BIT, 12), (TWELVE_BIT * 16, 16)])
def test_a_compressed_twin_gives_identical_pixels(stored, bits, syntax):
    plain = read(written(dataset(stored, bits, "MONOCHROME1"))).pixels
    assert np.array_equal(read(written(dataset(stored, bits, "MONOCHROME1"), syntax)).pixels, plain)


@pytest.mark.parametrize(("stored", "bits"), [(film(SIDE), 8), (TWELVE_BIT, 12), (TWELVE_BIT * 16, 16)])
def test_a_lossless_jpeg_twin_gives_identical_pixels(stored, bits, tmp_path):
    plain = written(dataset(stored, bits))
    assert np.array_equal(read(jpeg_lossless(plain, tmp_path)).pixels, read(plain).pixels)


def test_a_big_endian_twin_gives_identical_pixels():
    swapped = dataset(TWELVE_BIT, 12, PixelData=TWELVE_BIT.byteswap().tobytes())
    twin = written(swapped, uid.ExplicitVRBigEndian)
    assert np.array_equal(read(twin).pixels, read(written(dataset(TWELVE_BIT, 12))).pixels)


def test_compressed_twins_of_a_real_film_give_identical_pixels(data_root, tmp_path):
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
    Image.fromarray(film(SIDE)).save(jpeg, "JPEG", quality=95)
    whole = carrying(jpeg.getvalue(), uid.JPEGBaseline8Bit, film(SIDE), 8)
    split = pydicom.dcmread(io.BytesIO(whole), force=True)
    split.PixelData = encapsulate([jpeg.getvalue()], fragments_per_frame=3)
    file = io.BytesIO()
    split.save_as(file, implicit_vr=False, little_endian=True)
    assert np.array_equal(read(file.getvalue()).pixels, read(whole).pixels)
    assert np.abs(read(whole).pixels - film(SIDE) / 255).mean() < 0.02


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


def test_a_grey_film_stored_in_colour_reads_as_grey():
    colour = np.dstack([film(SIDE)] * 3)
    one = dataset(film(SIDE), 8, "RGB", SamplesPerPixel=3, PlanarConfiguration=0, PixelData=colour.tobytes())
    assert np.array_equal(read(written(one)).pixels, film(SIDE) / np.float32(255))
    planes = dataset(film(SIDE), 8, "RGB", SamplesPerPixel=3, PlanarConfiguration=1, PixelData=3 * film(SIDE).tobytes())
    assert np.array_equal(read(written(planes)).pixels, film(SIDE) / np.float32(255))


def test_an_unknown_transfer_syntax_lacks_a_decoder():
    data = carrying(b"\xff\x0a" + bytes(64), uid.MPEG2MPML, film(SIDE), 8)
    assert reason_of(data.replace(uid.MPEG2MPML.encode(), b"1.2.840.10008.1.2.4.110")) is Reason.MISSING_DECODER


def test_a_codestream_larger_than_the_header_is_not_decoded():
    large = pydicom.dcmread(io.BytesIO(written(dataset(film(4 * SIDE), 8), uid.JPEG2000Lossless)))
    frame = get_frame(large.PixelData, 0, number_of_frames=1)
    assert reason_of(carrying(frame, uid.JPEG2000Lossless, film(SIDE), 8)) is Reason.CORRUPT


# ---- scope, header, privacy


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Modality": "MG"}, Reason.NOT_RADIOGRAPH),
        ({"Modality": "MR"}, Reason.NOT_RADIOGRAPH),
        ({"Modality": None, "SOPClassUID": uid.CTImageStorage}, Reason.NOT_RADIOGRAPH),
        ({"Modality": "PR", "Rows": None, "PixelData": None}, Reason.NOT_AN_IMAGE),
        ({"NumberOfFrames": 2}, Reason.MULTI_FRAME),
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN_ANNOTATION),
        ({"PresentationIntentType": "FOR PROCESSING"}, Reason.UNSUPPORTED_MODE),
        ({"VOILUTFunction": "CUBIC", "WindowCenter": 9, "WindowWidth": 9}, Reason.UNSUPPORTED_MODE),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, Reason.UNSUPPORTED_MODE),
        ({"BitsStored": 17}, Reason.UNSUPPORTED_MODE),
        ({"BitsStored": None}, Reason.CORRUPT),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, Reason.CORRUPT),
        ({"Rows": 60_000, "Columns": 60_000}, Reason.TOO_LARGE),
        ({"Rows": 2 * SIDE}, Reason.TRUNCATED),
        ({"WindowCenter": 60_000, "WindowWidth": 10}, Reason.NO_CONTRAST),
    ],
)
def test_what_is_no_readable_film_is_refused_with_its_reason(changes, reason):
    assert reason_of(written(dataset(TWELVE_BIT, 12, **changes))) is reason


@pytest.mark.parametrize(
    "changes", [{"Modality": "DX"}, {"Modality": None}, {"BurnedInAnnotation": "NO"}, {"NumberOfFrames": 1}]
)
def test_films_of_other_makers_are_read(changes):
    assert read(written(dataset(TWELVE_BIT, 12, **changes))).kind == "dicom"


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.JPEGLSLossless])
def test_every_cut_of_a_film_is_truncated(syntax):
    data = written(dataset(TWELVE_BIT, 12), syntax)
    end = len(data) - (10 if syntax.is_encapsulated else 1)
    lengths = [*range(133, 700, 13), *range(700, end, 997), end]
    assert {reason_of(data[:length]) for length in lengths} == {Reason.TRUNCATED}


@pytest.mark.parametrize(
    ("changes", "spacing"),
    [
        ({"ImagerPixelSpacing": [0.143, 0.143], "PixelSpacing": [0.2, 0.2]}, 0.143),
        ({"PixelSpacing": [0.168, 0.168]}, 0.168),
        ({"PixelSpacing": [0.1, 0.1005]}, 0.10025),
        ({"PixelSpacing": [0.1, 0.2]}, None),
        ({"PixelSpacing": [0.0, 0.0]}, None),
        ({"ImagerPixelSpacing": [0.0, 0.0], "PixelSpacing": [0.2, 0.2]}, 0.2),
        ({}, None),
    ],
)
def test_spacing_is_known_only_where_it_is_positive_and_square(changes, spacing):
    found = read(written(dataset(TWELVE_BIT, 12, **changes))).pixel_spacing_mm
    assert found == pytest.approx(spacing) if spacing else found is None


@pytest.mark.parametrize(("written_view", "view"), [("PA", "PA"), ("ll", "LL"), ("", None), ("DOE JOHN", None)])
def test_only_the_standards_views_pass(written_view, view):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom, about the lower case
        data = written(dataset(TWELVE_BIT, 12, ViewPosition=written_view))
    assert read(data).view_position == view


def test_only_allowed_elements_are_taken_up():
    elements = read_elements(written(dataset(TWELVE_BIT, 12)))
    assert set(elements.raw) <= set(ALLOWED.values())
    names = " ".join(pydicom.datadict.dictionary_description(tag) for tag in ALLOWED.values())
    assert not any(word in names for word in ("Patient", "Name", "Date", "Time", "Instance", "Institution"))


def test_no_refusal_quotes_the_patient():
    for changes in ({"Modality": "MG"}, {"BitsStored": None}, {"PixelData": None}, {"RescaleSlope": "0"}, {"Rows": 9}):
        with pytest.raises(RadiographRefused) as refused:
            read(written(dataset(TWELVE_BIT, 12, **changes)))
        assert "CANARY" not in f"{refused.value}{refused.value.detail}{refused.value.__cause__!r}"


# ---- real films


@pytest.mark.parametrize(
    ("name", "view", "spacing", "shape"),
    [
        ("nih_test1_DX_PA", None, None, (1024, 1024)),
        ("rsna_CR_PA_MONO2_jpegbaseline", "PA", 0.168, (1024, 1024)),
        ("wg04_RG1_CR_PA_MONO1_15bit_j2k", "PA", None, (1955, 1841)),
        ("wg04_RG3_CR_EXTREMITY_MONO1_j2k", "AP", None, (1760, 1760)),
    ],
)
def test_real_films_read_with_their_header(data_root, name, view, spacing, shape):
    radiograph = read((data_root / "dicom" / f"{name}.dcm").read_bytes())
    assert (radiograph.view_position, radiograph.pixel_spacing_mm) == (view, spacing)
    assert radiograph.pixels.shape == shape


@pytest.mark.parametrize("name", ["nih_test1_DX_PA", "rsna_CR_PA_MONO2_jpegbaseline", "wg04_RG1_CR_PA_MONO1_15bit_j2k"])
def test_real_chest_films_come_out_with_bone_bright(data_root, name):
    pixels = read((data_root / "dicom" / f"{name}.dcm").read_bytes()).pixels
    height, width = pixels.shape
    spine = pixels[height // 3 : height * 2 // 3, width * 47 // 100 : width * 53 // 100].mean()
    lungs = [pixels[height // 4 : height // 2, int(width * x) : int(width * (x + 0.08))].mean() for x in (0.25, 0.68)]
    assert spine > max(lungs) + 0.1


# ---- damage

SEEDS = {syntax.name: written(dataset(TWELVE_BIT, 12), syntax) for syntax in (uid.ExplicitVRLittleEndian, *TWINS)}


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(SEEDS)), st.booleans(), st.data())
def test_a_damaged_film_is_read_or_refused_and_nothing_else_happens(name, in_header, draw):
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
