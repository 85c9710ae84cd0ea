"""What every object has in common: its labels, its patient, and bytes that follow from what is in it alone."""

from __future__ import annotations

import io
from typing import TypedDict

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from covseg.dicom.identity import Source
from covseg.records import RESEARCH_ONLY, Row

MAKER = "covseg"
EMPTY = (
    "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip
# highdicom reads the clock for these, and the standard does not ask for them.
CLOCK = ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture")
SERIES = {"seg": 9001, "sr": 9002, "sc": 9003}  # numbers that no modality gives its own series


class Identity(TypedDict):
    """The arguments that every class of highdicom takes for series and instance."""

    series_instance_uid: str
    series_number: int
    sop_instance_uid: str
    instance_number: int
    manufacturer: str
    manufacturer_model_name: str
    software_versions: str
    device_serial_number: str
    series_description: str
    content_date: str
    content_time: str


def identity(source: Source, row: Row, kind: str) -> Identity:
    """Return series and instance of an object, both by keyed hash of the input and of what was computed for it."""
    made = kind, row.input_id, row.config_sha256
    return Identity(
        series_instance_uid=source.uid("series", *made),
        series_number=SERIES[kind],
        sop_instance_uid=source.uid("instance", *made),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=row.code_version,
        device_serial_number=row.config_sha256[:16],
        series_description=RESEARCH_ONLY,
        content_date=source.date,
        content_time=source.time,
    )


def source_image(source: Source, row: Row) -> Dataset:
    """Return the header that an object takes its references, patient and study from; it has no pixels."""
    image = Dataset()
    for keyword in EMPTY:
        setattr(image, keyword, "")
    image.SOPClassUID, image.SOPInstanceUID = source.sop_class_uid, source.sop_instance_uid
    image.StudyInstanceUID, image.SeriesInstanceUID = source.study_uid, source.series_uid
    image.PatientID = source.patient_id
    image.Modality, image.Rows, image.Columns = "DX", row.height, row.width
    return image


def model_version(row: Row) -> str:
    """Return which model it was: its name, and the first digits of its weights' digest."""
    return f"{row.model_id}@{row.weights_sha256[:12]}"


def parameters(row: Row) -> dict[str, str]:
    """Return what decided the numbers, by digest."""
    return {"weights_sha256": row.weights_sha256, "config_sha256": row.config_sha256, "backend": row.backend}


def encode(made: Dataset, source: Source) -> bytes:
    """Return an object's file, without what only the clock knows, and with the source's patient when linked."""
    for keyword in CLOCK:
        if keyword in made:
            delattr(made, keyword)
    for item in made.get("ContributingEquipmentSequence", ()):
        del item.ContributionDateTime
    if source.linked is not None:
        _link(made, source)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _link(made: Dataset, source: Source) -> None:
    """Put the source's elements in as they are stored, undecoded: covseg's own text is ASCII in any encoding."""
    if source.character_set != ("",):
        made.SpecificCharacterSet = list(source.character_set)
    elif "SpecificCharacterSet" in made:
        del made.SpecificCharacterSet
    for keyword, value in source.linked or ():
        tag = Tag(tag_for_keyword(keyword) or 0)
        padded = value + b" " * (len(value) % 2)
        made[tag] = RawDataElement(tag, dictionary_VR(tag), len(padded), padded, 0, False, True)
