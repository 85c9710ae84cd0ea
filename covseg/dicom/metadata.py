"""What of a DICOM header goes into the severity table, and only where a run asks for it by name.

In: the bytes of a DICOM source. Out: cells. Identifiers of patient and study leave as keyed hashes alone; of dates,
`days_since_first` leaves as days of a calendar that a keyed hash shifts, one for each patient, until publishing makes
them days since the patient's first study.
"""

from __future__ import annotations

import re
from datetime import date

from covseg.dicom.identity import IDENTIFIERS, LINKED, digest, hashed_uid, is_uid, patient_of, patient_pseudonym
from covseg.errors import RadiographRefused
from covseg.settings.dicom import COLUMNS, DicomSettings
from covseg.stages.read.elements import Elements, is_dicom, read_elements

ELEMENTS = {
    **{name: LINKED[name] for name in ("StudyDate", "PatientSex", "PatientAge")},
    **{name: IDENTIFIERS[name] for name in ("PatientID", "StudyInstanceUID")},
    "Modality": 0x00080060,
    "Manufacturer": 0x00080070,
    "ManufacturerModelName": 0x00081090,
    "BodyPartExamined": 0x00180015,
}
LONGEST = 64  # characters of a text; a longer one is no name of these elements
YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
SHIFT_DAYS = 100_000  # the shifted calendars begin within so many days
MetadataCell = str | float | int | None


def read_metadata(data: bytes, key: bytes, dicom: DicomSettings) -> dict[str, MetadataCell]:
    """Return the cells that a run asks for; None where the header has no value of the element's form.

    Parameters
    ----------
    data : bytes
        The whole source, of any format; what is no DICOM has no cell.
    key : bytes
        The project key.
    """
    if not dicom.columns or not is_dicom(data):
        return {}
    wanted = {name: tag for name, tag in ELEMENTS.items() if name in _elements(dicom)}
    try:
        elements = read_elements(data, wanted)
    except RadiographRefused:
        return {}
    return {COLUMNS[name]: _cell(name, elements, key) for name in dicom.columns}


def _elements(dicom: DicomSettings) -> set[str]:
    """Return the elements that the columns are made of."""
    made_of = {
        "patient_pseudonym": {"PatientID"},
        "study_pseudonym": {"StudyInstanceUID"},
        "days_since_first": {"PatientID", "StudyDate"},
    }
    return set[str]().union(*(made_of.get(name, {name}) for name in dicom.columns))


def _cell(name: str, elements: Elements, key: bytes) -> MetadataCell:
    if name == "patient_pseudonym":
        patient = patient_of(elements)
        return patient_pseudonym(key, patient) if patient else None
    if name == "study_pseudonym":
        uid = elements.text("StudyInstanceUID")
        return hashed_uid(key, "StudyInstanceUID", uid) if is_uid(uid) else None
    if name == "days_since_first":
        return _shifted_days(elements, key)
    if name == "StudyDate":
        day = _date(elements)
        return day.isoformat() if day else None
    text = elements.data(name).split(b"\\")[0].strip(b" \0").decode("ascii", "replace")
    if name == "PatientAge":
        age = re.fullmatch(r"([0-9]{3})([DWMY])", text)
        return round(int(age[1]) * YEARS[age[2]], 3) if age else None
    if name == "PatientSex":
        return text if text in ("M", "F", "O") else None
    return text if 0 < len(text) <= LONGEST and text.isprintable() else None


def _date(elements: Elements) -> date | None:
    text = elements.data("StudyDate").strip(b" \0")
    try:
        return date.fromisoformat(text.decode()) if re.fullmatch(rb"[0-9]{8}", text) else None
    except ValueError:
        return None


def _shifted_days(elements: Elements, key: bytes) -> int | None:
    patient, day = patient_of(elements), _date(elements)
    if not patient or day is None:
        return None
    return day.toordinal() + int.from_bytes(digest(key, ("days", patient))[:8], "big") % SHIFT_DAYS
