"""What a PACS or a bucket holds beside radiographs: a reasoned refusal each, or the image, and never a hang."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset

from covseg.dicom import read_metadata, read_source
from covseg.errors import RadiographRefused, Reason
from covseg.settings.dicom import COLUMNS, DICOM_KINDS, DicomSettings
from covseg.stages.read import read
from tests.dicom_images import TWELVE_BIT, dataset, reason_of, written

ALL = DicomSettings(kinds=DICOM_KINDS, link_patient=True, columns=tuple(COLUMNS))
NO_IMAGE = {"Rows": None, "Columns": None, "BitsAllocated": None, "PixelData": None}
PLAIN = written(dataset(TWELVE_BIT, 12))
BEGINS = PLAIN.index(b"\x08\x00\x16\x00")  # the data set, behind the file meta


def with_element(tag: int, vr: str, value: bytes) -> bytes:
    """Put an element, as it would be stored, before all others of the data set."""
    head = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value))
    return PLAIN[:BEGINS] + head + value + PLAIN[BEGINS:]


def nested(depth: int, *, defined: bool) -> bytes:
    """Put a sequence in a sequence in a sequence before the image's elements."""
    if defined:
        value = b""
        for _ in range(depth):
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
            value = struct.pack("<HH2sHI", 0x0008, 0x0006, b"SQ", 0, len(item)) + item
        return PLAIN[:BEGINS] + value + PLAIN[BEGINS:]
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    opening = struct.pack("<HH2sHI", 0x0008, 0x0006, b"SQ", 0, 0xFFFFFFFF) + item
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return PLAIN[:BEGINS] + opening * depth + closing * depth + PLAIN[BEGINS:]


def private(count: int) -> bytes:
    one = dataset(TWELVE_BIT, 12)
    block = one.private_block(0x0009, "SOME MAKER", create=True)
    for number in range(count):
        block.add_new(number % 256, "LO", "x" * 60)
    for group in range(0x0011, 0x0011 + 2 * count, 2):
        one.private_block(group, "SOME MAKER", create=True).add_new(1, "UN", bytes(1000))
    return written(one)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"NumberOfFrames": 2}, Reason.MULTI_FRAME),
        ({"NumberOfFrames": 10_000_000}, Reason.MULTI_FRAME),
        ({"SOPClassUID": uid.EnhancedXAImageStorage, "Modality": "XA", "NumberOfFrames": 9}, Reason.NOT_RADIOGRAPH),
        ({"SOPClassUID": uid.BasicTextSRStorage, "Modality": "SR", **NO_IMAGE}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": uid.EncapsulatedPDFStorage, "Modality": "DOC", **NO_IMAGE}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": uid.EncapsulatedPDFStorage, "Modality": "OT", **NO_IMAGE}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": uid.SegmentationStorage, "Modality": "SEG"}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": uid.CTImageStorage, "Modality": "CT"}, Reason.NOT_RADIOGRAPH),
        (
            {"SOPClassUID": uid.DigitalMammographyXRayImageStorageForPresentation, "Modality": "MG"},
            Reason.NOT_RADIOGRAPH,
        ),
        ({"Modality": "US"}, Reason.NOT_RADIOGRAPH),
    ],
)
def test_other_objects_of_a_pacs_are_refused_with_their_reason(changes, reason):
    assert reason_of(written(dataset(TWELVE_BIT, 12, **changes))) is reason


def test_a_bare_pdf_and_an_index_of_a_folder_are_no_images():
    assert reason_of(b"%PDF-1.7\n" + bytes(100)) is Reason.NOT_AN_IMAGE
    indexes = [path for path in (Path(pydicom.__file__).parent / "data").rglob("DICOMDIR*") if path.is_file()]
    assert len(indexes) >= 5
    assert {reason_of(path.read_bytes()) for path in indexes} == {Reason.NOT_AN_IMAGE}


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_cut_object_is_truncated(share):
    assert reason_of(PLAIN[: int(len(PLAIN) * share)]) is Reason.TRUNCATED


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(with_element(0x00080005, "UN", bytes(64 * 2**20)), id="64 MiB before the image"),
        pytest.param(with_element(0x00080015, "UT", b"x" * 2**24), id="16 MiB of text"),
        pytest.param(private(100), id="private elements"),
        pytest.param(private(5000), id="thousands of private groups"),
        pytest.param(nested(50, defined=True), id="sequences in sequences"),
        pytest.param(nested(50, defined=False), id="sequences of unknown length"),
        pytest.param(nested(20_000, defined=True), id="20,000 deep"),
        pytest.param(nested(20_000, defined=False), id="20,000 deep, of unknown length"),
        pytest.param(with_element(0x00080005, "CS", b"")[:-1], id="a byte short"),
    ],
)
def test_huge_headers_nested_sequences_and_private_elements_are_passed_or_refused_in_time(data):
    start = time.process_time()
    try:
        assert read(data).shape == TWELVE_BIT.shape
    except RadiographRefused as refused:
        assert refused.reason in (Reason.CORRUPT, Reason.TRUNCATED, Reason.TOO_LARGE)
        assert "x" * 50 not in str(refused)
    read_source(data, b"a key for tests", ALL)
    read_metadata(data, b"a key for tests", ALL)
    assert time.process_time() - start < 5


def test_what_private_and_nested_elements_hold_is_not_taken_up():
    assert read(private(100)).shape == TWELVE_BIT.shape
    assert read(nested(50, defined=True)).shape == TWELVE_BIT.shape
    item = Dataset()
    item.Modality, item.Rows, item.PatientID = "CT", 5, "CANARY"
    image = dataset(TWELVE_BIT, 12, ReferencedImageSequence=[item])
    assert read(written(image)).shape == TWELVE_BIT.shape


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("value", ["", "DOE^JANE", "1.2..3", None])
def test_without_its_uids_an_image_is_read_and_linked_to_nothing(keyword, value):
    uids = {name: f"1.2.{n}" for n, name in enumerate(("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"))}
    one = dcmread(io.BytesIO(written(dataset(TWELVE_BIT, 12, **uids))))
    if value is None:
        delattr(one, keyword)
    else:
        one.add_new(keyword, "LO", value)  # unchecked
    file = io.BytesIO()
    one.save_as(file, implicit_vr=False, little_endian=True)
    data = file.getvalue()
    assert read(data).shape == TWELVE_BIT.shape
    assert read_source(data, b"a key for tests", ALL) is None
    unlinked = read_source(data, b"a key for tests", DicomSettings(kinds=DICOM_KINDS))
    assert (unlinked is None) == (keyword == "SOPClassUID")
