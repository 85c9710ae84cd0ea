"""Whose image it is, as DICOM objects say it: by keyed hash, or linked to the source's patient and study.

In: the bytes of a DICOM source. Out: a `Source`. Which elements are read is a list in this module. Without
`link_patient` four identifiers are read, and leave only as keyed hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from dataclasses import dataclass

from pydicom import charset

from covseg.errors import RadiographRefused
from covseg.settings.dicom import DicomSettings
from covseg.stages.read.elements import Elements, is_dicom, read_elements

IDENTIFIERS = {
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "PatientID": 0x00100020,
    "PatientOrientation": 0x00200020,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
}
# The Patient and General Study modules; what a worklist or a viewer files an object by, and no more.
LINKED = {
    "StudyDate": 0x00080020,
    "StudyTime": 0x00080030,
    "AccessionNumber": 0x00080050,
    "ReferringPhysicianName": 0x00080090,
    "StudyDescription": 0x00081030,
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "IssuerOfPatientID": 0x00100021,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "PatientAge": 0x00101010,
    "StudyID": 0x00200010,
}
CHARACTER_SET = {"SpecificCharacterSet": 0x00080005}
MAX_TEXT = 1024  # bytes; a longer value is no name or number of these modules
# What archives write into them is often something else: such a value is left out.
DATE, TIME = rb"[0-9]{8}", rb"([0-9]{2}){1,2}|[0-9]{6}(\.[0-9]{1,6})?"
FORMS = {
    "StudyDate": DATE,
    "StudyTime": TIME,
    "PatientBirthDate": DATE,
    "PatientSex": rb"[MFO]",
    "PatientAge": rb"[0-9]{3}[DWMY]",
}
NO_DATE, NO_TIME = "20000101", "000000"  # where an object must have one and may not have the source's
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")


@dataclass(frozen=True)
class Source:
    """What the objects of one image say about where it comes from.

    Parameters
    ----------
    key : bytes
        Of the keyed hash.
    sop_class_uid : str
        Of the source.
    sop_instance_uid, series_uid, study_uid, patient_id : str
        The source's own when linked (the patient's then stands in `linked`), else their keyed hashes.
    orientation : tuple of str
        PatientOrientation; empty where the source does not say it.
    date, time : str
        Of the content: the study's when linked, else `NO_DATE` and `NO_TIME`.
    linked : tuple of (keyword, bytes) or None
        Elements of the source's patient and study modules, as they are stored; None when not linked.
    character_set : tuple of str
        How `linked` is encoded.
    """

    key: bytes
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    patient_id: str
    orientation: tuple[str, ...]
    date: str = NO_DATE
    time: str = NO_TIME
    linked: tuple[tuple[str, bytes], ...] | None = None
    character_set: tuple[str, ...] = ()

    def uid(self, *parts: str) -> str:
        """Return a UID by keyed hash; a linked object never has that of one that is not."""
        return hashed_uid(self.key, "object", str(self.linked is not None), *parts)


def hashed_uid(key: bytes, *parts: str) -> str:
    """Return a UID under the root of UUIDs, from a keyed hash of `parts`.

    Examples
    --------
    >>> hashed_uid(b"k", "study", "1.2") == hashed_uid(b"l", "study", "1.2")
    False
    >>> len(hashed_uid(b"k", "study", "1.2")) <= 64
    True
    """
    return f"2.25.{uuid.UUID(bytes=digest(key, parts)[:16], version=5).int}"


def digest(key: bytes, parts: tuple[str, ...]) -> bytes:
    """Return the keyed hash of some texts, 32 bytes."""
    encoded = (part.encode("utf-8", "surrogateescape") for part in parts)
    message = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
    return hmac.new(key, b"covseg dicom" + message, hashlib.sha256).digest()


def patient_pseudonym(key: bytes, patient: str) -> str:
    """Return what stands for a patient in table and objects: the same for all images of one PatientID."""
    return digest(key, ("PatientID", patient)).hex()[:16]


def patient_of(elements: Elements) -> str:
    """Return the PatientID as text; empty where there is none."""
    return elements.data("PatientID").strip(b" \0").decode("latin-1")


def read_source(data: bytes, key: bytes, dicom: DicomSettings) -> Source | None:
    """Read what DICOM objects of this image refer to.

    Parameters
    ----------
    data : bytes
        The whole source, found readable, of any format.
    key : bytes
        The project key.
    dicom : DicomSettings
        Whether objects are asked for, and keep patient and study as they are.

    Returns
    -------
    Source or None
        None when no objects are asked for, or they cannot refer to it: it is no DICOM, its class is no UID, or
        patient and study are to be kept and one of instance, series and study is no UID.
    """
    if not dicom.kinds or not is_dicom(data):
        return None
    link_patient = dicom.link_patient
    wanted = {**IDENTIFIERS, **CHARACTER_SET, **LINKED} if link_patient else IDENTIFIERS
    try:
        elements = read_elements(data, wanted)
    except RadiographRefused:
        return None
    levels = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    sop_class, *uids = (_uid(elements, level) for level in ("SOPClassUID", *levels))
    orientation = _orientation(elements)
    if link_patient:
        return None if not (sop_class and all(uids)) else _linked(elements, key, sop_class, uids, orientation)
    if not sop_class:
        return None
    content = hashlib.sha256(data).hexdigest()  # stands in for an identifier that is missing
    instance, series, study = (hashed_uid(key, level, uid or content) for level, uid in zip(levels, uids, strict=True))
    return Source(
        key,
        sop_class,
        instance,
        series,
        study,
        patient_id=patient_pseudonym(key, patient_of(elements) or content),
        orientation=orientation,
    )


def _linked(elements: Elements, key: bytes, sop_class: str, uids: list[str], orientation: tuple[str, ...]) -> Source:
    values = {keyword: value for keyword in LINKED if (value := elements.data(keyword).rstrip(b" \0"))}
    values = {keyword: value for keyword, value in values.items() if _fits(keyword, value)}
    terms = elements.texts("SpecificCharacterSet")
    known = all(term in charset.python_encoding for term in terms)
    instance, series, study = uids
    return Source(
        key,
        sop_class,
        instance,
        series,
        study,
        patient_id="",
        orientation=orientation,
        date=values["StudyDate"].decode() if "StudyDate" in values else NO_DATE,
        time=values["StudyTime"].decode() if len(values.get("StudyTime", b"")) >= len(NO_TIME) else NO_TIME,
        linked=tuple(values.items()),
        character_set=terms if known else (),
    )


def _fits(keyword: str, value: bytes) -> bool:
    """Tell whether a value has its element's form, so that other systems take the object."""
    return bool(re.fullmatch(FORMS[keyword], value)) if keyword in FORMS else len(value) <= MAX_TEXT


def _uid(elements: Elements, keyword: str) -> str:
    """Return a UID, or nothing where there is none that another system would take."""
    text = elements.text(keyword)
    return text if is_uid(text) else ""


def instance_uid(data: bytes) -> str:
    """Return the SOPInstanceUID of a DICOM object; empty where it has none that other systems would take."""
    return _uid(read_elements(data, IDENTIFIERS), "SOPInstanceUID")


def is_uid(text: str) -> bool:
    """Tell whether other systems take a text for a UID."""
    return len(text) <= 64 and bool(_UID.fullmatch(text))


def _orientation(elements: Elements) -> tuple[str, ...]:
    values = elements.texts("PatientOrientation")
    return values if len(values) == 2 and all(re.fullmatch("[APRLHF]{1,3}", value) for value in values) else ()
