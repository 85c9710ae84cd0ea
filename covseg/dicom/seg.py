"""SEG: lung and infection as a binary segmentation on the source grid."""

from __future__ import annotations

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from covseg.dicom.codes import ABNORMALITY, ANATOMY, INFECTION, LUNG
from covseg.dicom.file import MAKER, encode, identity, model_version, parameters, source_image
from covseg.dicom.identity import Source
from covseg.records import RESEARCH_ONLY, Masks, Row

LABELS = ("lung", "infection")
CONCEPTS: tuple[tuple[Code, Code], ...] = ((ANATOMY, LUNG), (ABNORMALITY, INFECTION))
COLOURS = (CIELabColor(91.1, -48.1, -14.1), CIELabColor(69.5, 36.8, 75.5))  # cyan and orange, as in the overlay


def make_segmentation(source: Source, row: Row, masks: Masks) -> bytes:
    """Return a binary SEG of two segments; infection lies inside lung, so they overlap.

    An infection mask without a pixel has its segment, and no frame.
    """
    algorithm = AlgorithmIdentificationSequence(
        name=MAKER,
        family=codes.cid7162.ArtificialIntelligence,
        version=model_version(row),
        source=MAKER,
        parameters=parameters(row),
    )
    made = Segmentation(
        source_images=[source_image(source, row)],
        pixel_array=np.stack([masks.lung, masks.infection], axis=-1)[None],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(source, row, number, algorithm) for number in (1, 2)],
        content_label="LUNG_INFECTION",
        content_description=RESEARCH_ONLY,
        **identity(source, row, "seg"),
    )
    # The general image module wants it where there is no frame of reference; highdicom leaves it out.
    made.PatientOrientation = list(source.orientation)
    made.ContentCreatorName = None  # of type 2, which highdicom leaves out where it is not known
    organization = source.uid("dimensions", row.input_id, row.config_sha256)
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    return encode(made, source)


def _segment(source: Source, row: Row, number: int, algorithm: AlgorithmIdentificationSequence) -> SegmentDescription:
    label, (category, kind) = LABELS[number - 1], CONCEPTS[number - 1]
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=source.uid("segment", label, row.input_id, row.config_sha256),
        tracking_id=label,
        anatomic_regions=[CodedConcept.from_code(LUNG)],
        display_color=COLOURS[number - 1],
    )
