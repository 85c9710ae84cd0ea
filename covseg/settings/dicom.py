"""Which DICOM objects a run makes, and what they say of the patient: one class for command, flow and core."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field

from covseg.errors import UsageError

DicomKind = Literal["seg", "sr", "sc"]
DICOM_KINDS: tuple[DicomKind, ...] = get_args(DicomKind)


class DicomSettings(BaseModel):
    """What DICOM objects are made of each DICOM source; none by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[DicomKind, ...] = Field((), description="of `DICOM_KINDS`, in that order, each once")
    link_patient: bool = Field(
        False, description="copy patient and study; else the objects are a study of their own under keyed hashes"
    )

    @classmethod
    def parse(cls, dicom: str, *, link_patient: bool, hide_keys: bool = False) -> Self:
        """Read what ``--dicom``, ``--link-patient`` and ``--hide-keys`` say together.

        Raises
        ------
        UsageError
            For an unknown kind, for a link without objects, and for a link beside hidden keys.

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
        return cls(kinds=tuple(kind for kind in DICOM_KINDS if kind in words), link_patient=link_patient)


NO_DICOM = DicomSettings()
