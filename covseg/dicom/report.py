"""SR: the numbers, the grade and the flags of one row as a TID 1500 measurement report."""

from __future__ import annotations

from collections.abc import Iterator

from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from covseg.dicom.codes import INFECTION, LEVELS, LUNG, MEASURES, SIDES, private, scheme
from covseg.dicom.file import MAKER, encode, identity, model_version, parameters, source_image
from covseg.dicom.identity import Source
from covseg.records import RESEARCH_ONLY, Row
from covseg.table import cells

CHOICES = ("grade", "grade_table", "zone_method")  # columns that hold a word, not a number


def make_report(source: Source, row: Row) -> bytes:
    """Return a TID 1500 report with one image-level group (TID 1501).

    A number that the row does not have is not in the report; without a lung there is no fraction, and the flag
    ``lungs_not_found`` says why.
    """
    image = source_image(source, row)
    made = ComprehensiveSR(
        evidence=[image],
        content=_content(source, row, image),
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[scheme()],
        **identity(source, row, "sr"),
    )
    return encode(made, source)


def _content(source: Source, row: Row, image: Dataset) -> MeasurementReport:
    device = DeviceObserverIdentifyingAttributes(
        uid=source.uid("device", row.config_sha256), name=MAKER, manufacturer_name=MAKER, model_name=row.model_id
    )
    return MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(codes.DCM.Device, device),
        ),
        procedure_reported=codes.SCT.PlainRadiography,
        imaging_measurements=[_group(source, row, image)],
        title=codes.DCM.ImagingMeasurementReport,
    )


def _group(source: Source, row: Row, image: Dataset) -> MeasurementsAndQualitativeEvaluations:
    """Return the one group: everything in it is said of the whole image."""
    tracked = TrackingIdentifier(source.uid("group", row.input_id, row.config_sha256), row.input_id)
    algorithm = AlgorithmIdentification(
        MAKER, model_version(row), [f"{name}={value}" for name, value in parameters(row).items()]
    )
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked,
        finding_type=INFECTION,
        finding_sites=[FindingSite(LUNG)],
        algorithm_id=algorithm,
        measurements=list(_measurements(row)),
        qualitative_evaluations=list(_evaluations(row)),
        source_images=[SourceImageForMeasurementGroup.from_source_image(image)],
    )


def _measurements(row: Row) -> Iterator[Measurement]:
    """Yield the row's numbers as its table shows them, to six decimals."""
    for column, value in cells(row).items():
        concept, sites = _concept(column)
        if isinstance(value, int | float) and concept in MEASURES:
            meaning, unit = MEASURES[concept]
            yield Measurement(name=private(concept, meaning), value=value, unit=unit, finding_sites=sites)


def _concept(column: str) -> tuple[str, list[FindingSite] | None]:
    """Return a column's concept and, of a side or zone, where it is."""
    if column in MEASURES:
        return column, None
    words = column.removeprefix("infected_fraction_").split("_")
    if words[0] not in SIDES or len(words) > 2:
        return column, None
    zone = LEVELS[words[1]] if len(words) == 2 else None
    return "infected_fraction", [FindingSite(LUNG, laterality=SIDES[words[0]], topographical_modifier=zone)]


def _evaluations(row: Row) -> Iterator[QualitativeEvaluation]:
    """Yield what the row says in words: each a code of the private scheme, under the name of its column."""
    yield QualitativeEvaluation(private("intended_use"), private("research_only", RESEARCH_ONLY))
    for column in CHOICES:
        if value := getattr(row, column):
            yield QualitativeEvaluation(private(column), private(value))
    for flag in row.qc_flags:
        yield QualitativeEvaluation(private("qc_flags", "Quality flag"), private(flag))
