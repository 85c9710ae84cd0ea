"""Which DICOM objects a run makes, and what they say of the patient: one class for command, flow and core."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field

from covseg.errors import UsageError

DicomKind = Literal["seg", "sr", "sc"]
DICOM_KINDS: tuple[DicomKind, ...] = get_args(DicomKind)


# What --columns takes, elements and what is made of them, and the column of each.
COLUMNS = {
    "StudyDate": "study_date",
    "Modality": "modality",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "manufacturer_model",
    "BodyPartExamined": "body_part",
    "PatientSex": "patient_sex",
    "PatientAge": "patient_age_years",
    "patient_pseudonym": "patient_pseudonym",
    "study_pseudonym": "study_pseudonym",
    "days_since_first": "days_since_first",
}


class DicomSettings(BaseModel):
    """What DICOM objects are made of each DICOM source, and what of its header the table has; nothing by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[DicomKind, ...] = Field((), description="of `DICOM_KINDS`, in that order, each once")
    link_patient: bool = Field(
        False, description="copy patient and study; else the objects are a study of their own under keyed hashes"
    )

    columns: tuple[str, ...] = Field(
        (), exclude_if=lambda names: not names, description="of `COLUMNS`, in that order, each once"
    )

    @classmethod
    def parse(cls, dicom: str, *, link_patient: bool, hide_keys: bool = False, columns: str = "") -> Self:
        """Read what ``--dicom``, ``--link-patient``, ``--hide-keys`` and ``--columns`` say together.

        Raises
        ------
        UsageError
            For an unknown kind or column, for a link without objects, and for a link beside hidden keys.

        Examples
        --------
        >>> DicomSettings.parse("sr, seg", link_patient=False).kinds
        ('seg', 'sr')
        """
        words = [word.strip() for word in dicom.split(",") if word.strip()]
        if unknown := [word for word in words if word not in DICOM_KINDS]:
            raise UsageError(f"--dicom {unknown[0]!r}: wanted {', '.join(DICOM_KINDS)}, with commas between them")
        if link_patient and not words:
            raise UsageError("--link-patient says what DICOM objects hold: give it beside --dicom seg,sr,sc")
        if link_patient and hide_keys:
            raise UsageError(
                "--link-patient writes the patient into every object, --hide-keys keeps the source secret: give one"
            )
        names = {name.strip() for name in columns.split(",") if name.strip()}
        if strange := sorted(names - set(COLUMNS)):
            raise UsageError(f"--columns {strange[0]!r}: wanted {', '.join(COLUMNS)}, with commas between them")
        if "days_since_first" in names:
            names.add("patient_pseudonym")  # which it is counted by
        kinds = tuple(kind for kind in DICOM_KINDS if kind in words)
        return cls(kinds=kinds, link_patient=link_patient, columns=tuple(name for name in COLUMNS if name in names))


NO_DICOM = DicomSettings()
