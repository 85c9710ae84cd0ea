"""The codes of covseg's DICOM objects: SNOMED and DICOM where they have one, a private scheme for the rest.

The code value of a private concept is the name that the severity table gives it: a column, a flag, a grade.
"""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

SCHEME = "99COVSEG"
SCHEME_UID = "2.25.53816198640119390067664834236947512381"
LUNG = codes.SCT.Lung
INFECTION = Code("40733004", "SCT", "Infectious disease")  # what pydicom calls so is the code of a hospital department
ANATOMY, ABNORMALITY = codes.SCT.AnatomicalStructure, codes.SCT.MorphologicallyAbnormalStructure
SIDES = {"right": codes.SCT.Right, "left": codes.SCT.Left}
LEVELS = {
    "upper": codes.SCT.UpperZoneOfLung,
    "middle": codes.SCT.MiddleZoneOfLung,
    "lower": codes.SCT.LowerZoneOfLung,
}
RATIO, MM2 = codes.UCUM.NoUnits, codes.UCUM.SquareMillimeter
PIXELS = Code("{pixels}", "UCUM", "pixels")
# Column of the table to meaning and unit; a column of a side or a zone has the same concept, at another site.
MEASURES = {
    "infected_fraction": ("Infected fraction of lung area", RATIO),
    "infected_fraction_of_image": ("Infected fraction of image area", RATIO),
    "fraction_low": ("Infected fraction, lower end of interval", RATIO),
    "fraction_high": ("Infected fraction, upper end of interval", RATIO),
    "lung_area_px": ("Lung area", PIXELS),
    "lung_area_fraction": ("Lung fraction of image area", RATIO),
    "infected_area_px": ("Infected area", PIXELS),
    "infected_area_mm2": ("Infected area at the detector", MM2),
    "extent_0_8": ("Extent score of both lungs, 0 to 8", RATIO),
    "zones_extent_0_24": ("Extent score of six zones, 0 to 24", RATIO),
    "zones_affected_0_6": ("Zones with any infection, 0 to 6", RATIO),
    "infection_probability": ("Probability of any infection", RATIO),
    "threshold": ("Threshold on the infection probability of a pixel", RATIO),
}


def private(name: str, meaning: str | None = None) -> CodedConcept:
    """Return a concept of the private scheme; its meaning is its name in words unless given."""
    return CodedConcept(name, SCHEME, (meaning or name.replace("_", " "))[:64])


def scheme() -> CodingSchemeIdentificationItem:
    """Declare the private scheme, as an object that uses it must."""
    return CodingSchemeIdentificationItem(
        designator=SCHEME,
        name="covseg severity table",
        responsible_organization="covseg",
        uid=SCHEME_UID,
    )
