"""DICOM images: grey values and polarity, scope, and what of the header is let in."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from covseg.errors import RadiographRefused, Reason
from covseg.records import Masks
from covseg.settings.model import FlagLimits
from covseg.stages.read import read
from covseg.stages.read.elements import ALLOWED, read_elements
from covseg.stages.severity import measure, qc_flags
from covseg.synthetic.bad_inputs import image
from tests.dicom_images import PLAIN, SIDE, TWELVE_BIT, dataset, reason_of, written


def table_item(table, first=0, bits=16):
    item = Dataset()
    item.LUTDescriptor = [len(table) % 2**16, first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    item.LUTData = np.asarray(table, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return [item]


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
    stored = np.round(image(SIDE) / 255 * top).astype(np.uint8 if bits == 8 else np.uint16)
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
        read(written(dataset(image(SIDE), 8, VOILUTSequence=item))).pixels, 1 - image(SIDE) / 255, atol=1e-5
    )


def test_values_outside_of_a_table_get_its_ends():
    item = table_item(np.linspace(0, 65535, 101).round().astype(int), first=100)
    pixels = read(written(dataset(image(SIDE), 8, VOILUTSequence=item))).pixels
    assert np.allclose(pixels, np.clip((image(SIDE).astype(float) - 100) / 100, 0, 1), atol=1e-4)


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


def test_a_monochrome1_image_and_its_inverted_twin_give_identical_pixels():
    for bits, stored in ((8, image(SIDE)), (12, TWELVE_BIT), (15, TWELVE_BIT * 8), (16, TWELVE_BIT * 16)):
        top = 2**bits - 1
        twin = (top - stored.astype(np.int64)).astype(stored.dtype)
        window = {"WindowCenter": 0.4 * top, "WindowWidth": 0.6 * top}
        mirrored = window | {"WindowCenter": top + 1 - 0.4 * top}
        for ours, theirs in (({}, {}), (window, mirrored)):
            inverted = read(written(dataset(stored, bits, "MONOCHROME1", **ours)))
            straight = read(written(dataset(twin, bits, **theirs)))
            assert np.array_equal(inverted.pixels, straight.pixels)


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
def test_what_is_no_readable_image_is_refused_with_its_reason(changes, reason):
    assert reason_of(written(dataset(TWELVE_BIT, 12, **changes))) is reason


@pytest.mark.parametrize(
    "changes", [{"Modality": "DX"}, {"Modality": None}, {"BurnedInAnnotation": "NO"}, {"NumberOfFrames": 1}]
)
def test_images_of_other_makers_are_read(changes):
    assert read(written(dataset(TWELVE_BIT, 12, **changes))).kind == "dicom"


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.JPEGLSLossless])
def test_every_cut_of_an_image_is_truncated(syntax):
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


@pytest.mark.parametrize(
    ("stored", "orientation", "flagged"),
    [(["L", "F"], "L\\F", False), (["R", "F"], "R\\F", True), (None, None, True), (["DOE", "JOHN"], None, True)],
)
def test_sides_are_verified_only_by_a_header_that_says_so(stored, orientation, flagged):
    radiograph = read(written(dataset(TWELVE_BIT, 12, PatientOrientation=stored)))
    assert radiograph.orientation == orientation
    extent = measure(Masks(*(np.ones(TWELVE_BIT.shape, np.uint8) for _ in range(3)), False, 0.0, 1, 1.0))
    assert ("laterality_unverified" in qc_flags(extent, radiograph, FlagLimits())) is flagged


def test_only_allowed_elements_are_taken_up():
    elements = read_elements(written(dataset(TWELVE_BIT, 12)))
    assert set(elements.raw) <= set(ALLOWED.values())
    named = (tag for keyword, tag in ALLOWED.items() if keyword != "PatientOrientation")  # letters, checked one by one
    names = " ".join(pydicom.datadict.dictionary_description(tag) for tag in named)
    assert not any(word in names for word in ("Patient", "Name", "Date", "Time", "Instance", "Institution"))


def test_no_refusal_quotes_the_patient():
    for changes in ({"Modality": "MG"}, {"BitsStored": None}, {"PixelData": None}, {"RescaleSlope": "0"}, {"Rows": 9}):
        with pytest.raises(RadiographRefused) as refused:
            read(written(dataset(TWELVE_BIT, 12, **changes)))
        assert "CANARY" not in f"{refused.value}{refused.value.detail}{refused.value.__cause__!r}"


@pytest.mark.parametrize("changes", [{"Modality": "CANARY"}, {"PhotometricInterpretation": "CANARY"}])
def test_a_name_in_the_place_of_a_code_is_not_quoted(changes):
    with pytest.raises(RadiographRefused) as refused:
        read(written(dataset(TWELVE_BIT, 12, **changes)))
    assert "unknown" in refused.value.detail
    assert "CANARY" not in refused.value.detail


@pytest.mark.parametrize(
    ("name", "view", "spacing", "shape"),
    [
        ("nih_test1_DX_PA", None, None, (1024, 1024)),
        ("rsna_CR_PA_MONO2_jpegbaseline", "PA", 0.168, (1024, 1024)),
        ("wg04_RG1_CR_PA_MONO1_15bit_j2k", "PA", None, (1955, 1841)),
        ("wg04_RG3_CR_EXTREMITY_MONO1_j2k", "AP", None, (1760, 1760)),
    ],
)
def test_real_images_read_with_their_header(data_root, name, view, spacing, shape):
    radiograph = read((data_root / "dicom" / f"{name}.dcm").read_bytes())
    assert (radiograph.view_position, radiograph.pixel_spacing_mm) == (view, spacing)
    assert radiograph.pixels.shape == shape


@pytest.mark.parametrize("name", ["nih_test1_DX_PA", "rsna_CR_PA_MONO2_jpegbaseline", "wg04_RG1_CR_PA_MONO1_15bit_j2k"])
def test_real_chest_images_come_out_with_bone_bright(data_root, name):
    pixels = read((data_root / "dicom" / f"{name}.dcm").read_bytes()).pixels
    height, width = pixels.shape
    spine = pixels[height // 3 : height * 2 // 3, width * 47 // 100 : width * 53 // 100].mean()
    lungs = [pixels[height // 4 : height // 2, int(width * x) : int(width * (x + 0.08))].mean() for x in (0.25, 0.68)]
    assert spine > max(lungs) + 0.1
