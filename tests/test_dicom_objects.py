"""SEG, SR and SC of one image: read back by others, and whose image they say it is."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from covseg import dicom
from covseg.dicom import make_objects, read_source
from covseg.dicom.codes import MEASURES, SCHEME
from covseg.dicom.identity import LINKED, NO_DATE, NO_TIME
from covseg.errors import UsageError
from covseg.outcome import Scored
from covseg.pipeline import Pipeline, score_batch
from covseg.records import RESEARCH_ONLY
from covseg.settings.dicom import DICOM_KINDS, DicomSettings
from covseg.settings.score import ScoreSettings
from covseg.stages.severity import measure
from covseg.storage import LocalStore, MemoryStore, entries
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.dicom import encode_dicom
from covseg.table import cells

hd = pytest.importorskip("highdicom", reason="the extra dicom is not installed")

ALL, LINK = DicomSettings(kinds=DICOM_KINDS), DicomSettings(kinds=DICOM_KINDS, link_patient=True)
KEY = b"a key for tests"
PATIENT = {
    "PatientName": "Yamada^Tarou=山田^太郎", "PatientID": "P-77", "PatientBirthDate": "19501224", "PatientSex": "F",
    "StudyDate": "20260131", "StudyTime": "101500", "AccessionNumber": "A-1", "StudyDescription": "Thorax",
    "StudyID": "7", "ReferringPhysicianName": "Müller^A", "OtherPatientNames": "Secret^Name",
}  # fmt: skip


def source_bytes(charset: str = "ISO_IR 192", **changes: object) -> bytes:
    image = dcmread(io.BytesIO(encode_dicom(make_phantom(0))))
    image.SpecificCharacterSet = charset
    for keyword, value in (PATIENT | changes).items():
        setattr(image, keyword, value)
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def scored(pipeline: Pipeline, backend) -> Scored:
    ours = Pipeline(pipeline.model, pipeline.config, key=KEY, dicom=ALL)
    store = MemoryStore({"a.dcm": source_bytes()})
    (entry,) = entries(store)
    (result,) = ours.score(backend, [ours.open_image(store, entry)])
    assert isinstance(result, Scored)
    assert result.masks.infection.any()
    return result


def objects(scored: Scored, data: bytes | None = None, settings: DicomSettings = ALL, **changes):
    scored = replace(scored, **changes)
    source = read_source(source_bytes() if data is None else data, KEY, settings)
    return make_objects(settings.kinds, source, scored.row, scored.image.radiograph.pixels, scored.masks)


def opened(data: bytes) -> Dataset:
    return dcmread(io.BytesIO(data))


def without_lungs(scored: Scored) -> dict[str, object]:
    empty = np.zeros_like(scored.masks.lung)
    masks = replace(
        scored.masks, lung=empty, infection=empty, side=empty, component_count=0, largest_component_share=None
    )
    row = replace(scored.row, **measure(masks).cells(None), qc_flags=("lungs_not_found",), fraction_low=None)
    return {"masks": masks, "row": replace(row, fraction_high=None)}


def test_the_pipeline_makes_the_objects_that_the_functions_make(scored):
    assert scored.objects == objects(scored)


def test_seg_pixels_equal_our_masks_for_pydicom_and_highdicom(scored):
    data = scored.objects["seg"]
    frames = pixel_array(io.BytesIO(data))
    assert frames.shape == (2, *scored.masks.lung.shape)
    assert np.array_equal(frames[0], scored.masks.lung)
    assert np.array_equal(frames[1], scored.masks.infection)
    seg = hd.seg.segread(io.BytesIO(data))
    (reference,) = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    stacked = seg.get_pixels_by_source_instance([reference.ReferencedSOPInstanceUID], segment_numbers=[1, 2])
    assert np.array_equal(stacked[0], np.stack([scored.masks.lung, scored.masks.infection], axis=-1))


def test_a_seg_says_what_is_segmented_and_what_did_it(scored):
    seg = hd.seg.segread(io.BytesIO(scored.objects["seg"]))
    lung, infection = (seg.get_segment_description(number) for number in (1, 2))
    assert (lung.segment_label, lung.segmented_property_type.value) == ("lung", "39607008")
    assert (infection.segment_label, infection.segmented_property_type.value) == ("infection", "40733004")
    assert infection.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    algorithm = infection.algorithm_identification
    assert algorithm.version == f"{scored.row.model_id}@{scored.row.weights_sha256[:12]}"
    assert scored.row.weights_sha256 in algorithm.parameters["weights_sha256"]
    assert infection.RecommendedDisplayCIELabValue != lung.RecommendedDisplayCIELabValue
    assert list(seg.PatientOrientation) == ["L", "F"]
    assert seg.ContentDescription == RESEARCH_ONLY


def test_an_image_without_infection_keeps_its_segment_and_has_no_frame_of_it(scored):
    masks = replace(scored.masks, infection=np.zeros_like(scored.masks.infection))
    seg = opened(objects(scored, masks=masks)["seg"])
    assert len(seg.SegmentSequence) == 2
    assert seg.NumberOfFrames == 1
    assert np.array_equal(seg.pixel_array, masks.lung)


def measured(report: Dataset) -> dict[str, float]:
    """Read a report's numbers back, by the table's columns."""
    groups = hd.sr.srread(report).content.get_image_measurement_groups()
    found = {}
    for measurement in groups[0].get_measurements():
        name, sites = measurement.name.value, measurement.finding_sites
        if sites:
            zone = sites[0].topographical_modifier
            level = [zone.meaning.split()[0].lower()] if zone else []
            name = "_".join([name, sites[0].laterality.meaning.lower(), *level])
        assert name not in found
        found[name] = measurement.value
    return found


def evaluated(report: Dataset) -> dict[str, list[str]]:
    groups = hd.sr.srread(report).content.get_image_measurement_groups()
    found: dict[str, list[str]] = {}
    for evaluation in groups[0].get_qualitative_evaluations():
        assert evaluation.value.scheme_designator == SCHEME
        found.setdefault(evaluation.name.value, []).append(evaluation.value.value)
    return found


def test_sr_numbers_equal_the_row(scored):
    numbers = {
        name: value
        for name, value in cells(scored.row).items()
        if value is not None
        and (name in MEASURES or name.startswith(("infected_fraction_right", "infected_fraction_left")))
    }
    assert len(numbers) >= 18
    assert measured(io.BytesIO(scored.objects["sr"])) == numbers


def test_sr_words_equal_the_row_and_their_scheme_is_declared(scored):
    words = evaluated(io.BytesIO(scored.objects["sr"]))
    assert words["grade"] == [scored.row.grade]
    assert words["grade_table"] == [scored.row.grade_table]
    assert words["qc_flags"] == list(scored.row.qc_flags)
    assert words["intended_use"] == ["research_only"]
    (scheme,) = opened(scored.objects["sr"]).CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == SCHEME


def test_without_lungs_there_is_no_seg_and_the_sr_says_so(scored):
    made = objects(scored, **without_lungs(scored))
    assert set(made) == {"sr", "sc"}
    assert evaluated(io.BytesIO(made["sr"]))["qc_flags"] == ["lungs_not_found"]
    assert not any("fraction" in name and name != "lung_area_fraction" for name in measured(io.BytesIO(made["sr"])))


def test_sc_is_the_image_in_colour_with_the_words_burnt_in(scored):
    capture = opened(scored.objects["sc"])
    drawn, pixels = capture.pixel_array, scored.image.radiograph.pixels
    assert drawn.shape == (*pixels.shape, 3)
    grey = cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY)
    lower = slice(pixels.shape[0] // 2, None)
    assert np.abs(grey[lower] / 255 - pixels[lower]).mean() < 0.05
    corner = grey[:12, : pixels.shape[1] // 2]
    assert corner.min() < 30
    assert corner.max() > 200
    assert capture.LossyImageCompression == "01"
    assert capture.BurnedInAnnotation == "NO"


def test_the_same_image_gives_the_same_bytes_and_another_key_other_uids(scored):
    assert objects(scored) == objects(scored)
    theirs = make_objects(
        ("sr",), read_source(source_bytes(), b"another key", ALL), scored.row, np.zeros((9, 9)), scored.masks
    )
    ours, other = opened(scored.objects["sr"]), opened(theirs["sr"])
    for level in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID"):
        assert ours[level].value != other[level].value


def test_no_object_has_another_s_uid_unless_it_is_the_same_object(scored):
    made = [opened(data) for settings in (ALL, LINK) for data in objects(scored, settings=settings).values()]
    other = replace(scored.row, config_sha256="f" * 64)
    made += [opened(data) for data in objects(scored, row=other).values()]
    assert len({one.SOPInstanceUID for one in made}) == len(made) == 9


def test_unlinked_objects_share_a_study_of_their_own_that_names_nobody(scored):
    source = opened(source_bytes())
    made = [opened(data) for data in scored.objects.values()]
    assert len({one.StudyInstanceUID for one in made}) == 1
    for one in made:
        assert one.StudyInstanceUID != source.StudyInstanceUID
        assert str(one.PatientName) == one.PatientBirthDate == one.StudyDate == one.AccessionNumber == ""
        assert one.PatientID != source.PatientID
        assert one.ContentDate == NO_DATE
    seg = opened(scored.objects["seg"])
    assert seg.SourceImageSequence[0].ReferencedSOPInstanceUID != source.SOPInstanceUID


def test_images_of_one_study_and_patient_stay_together_under_their_pseudonyms():
    one, two, other = (
        read_source(source_bytes(SOPInstanceUID=instance, StudyInstanceUID=study), KEY, ALL)
        for instance, study in (("1.2.1", "1.2.9"), ("1.2.2", "1.2.9"), ("1.2.1", "1.2.8"))
    )
    assert one.study_uid == two.study_uid != other.study_uid
    assert one.sop_instance_uid != two.sop_instance_uid
    assert one.patient_id == two.patient_id == other.patient_id


@pytest.mark.parametrize("charset", ["ISO_IR 192", "GB18030"])
def test_linked_objects_lie_in_the_source_s_study(scored, charset):
    data = source_bytes(charset, ReferringPhysicianName="Lee^A")
    source = opened(data)
    for made in objects(scored, data, LINK).values():
        one = opened(made)
        assert one.StudyInstanceUID == source.StudyInstanceUID
        assert one.SeriesInstanceUID != source.SeriesInstanceUID
        assert {name: one.get(name) for name in LINKED} == {name: source.get(name) for name in LINKED}
        assert "OtherPatientNames" not in one
        assert (one.ContentDate, one.ContentTime) == ("20260131", "101500")
    reference = opened(objects(scored, data, LINK)["seg"]).SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_values_that_are_no_date_age_or_sex_are_left_out_of_linked_objects(scored):
    image = opened(source_bytes())
    with config.disable_value_validation():
        image.PatientAge, image.StudyDate, image.PatientSex, image.StudyTime = "81", "2026.01.31", "female", "1015"
        file = io.BytesIO()
        image.save_as(file)
    one = opened(objects(scored, file.getvalue(), LINK)["sr"])
    assert "PatientAge" not in one
    assert (one.StudyDate, one.PatientSex, one.StudyTime) == ("", "", "1015")
    assert (one.ContentDate, one.ContentTime, one.PatientID) == (NO_DATE, NO_TIME, "P-77")


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_source_without_its_uids_is_linked_to_nothing_and_still_gets_a_pseudonym(keyword):
    image = dcmread(io.BytesIO(source_bytes()))
    delattr(image, keyword)
    if keyword != "SOPInstanceUID":
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    file = io.BytesIO()
    image.save_as(file)
    assert read_source(file.getvalue(), KEY, LINK) is None
    assert read_source(file.getvalue(), KEY, ALL) is not None


def test_other_formats_and_runs_without_objects_read_no_identifier():
    assert read_source(b"\x89PNG\r\n\x1a\n", KEY, ALL) is None
    assert read_source(source_bytes(), KEY, DicomSettings()) is None


def complaints(data: bytes, path: Path) -> list[str]:
    path.write_bytes(data)
    answer = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    return [line for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="no dciodvfy: apt-get install dicom3tools")
@pytest.mark.parametrize("settings", [ALL, LINK], ids=["pseudonym", "linked"])
def test_dciodvfy_finds_no_error_in_any_kind(scored, settings, tmp_path):
    every = {
        **objects(scored, settings=settings),
        "blind": objects(scored, settings=settings, **without_lungs(scored))["sr"],
    }
    masks = replace(scored.masks, infection=np.zeros_like(scored.masks.infection))
    every["clear"] = objects(scored, settings=settings, masks=masks)["seg"]
    every["unsided"] = objects(scored, source_bytes(PatientOrientation=None), settings)["seg"]
    assert not {kind: found for kind, data in every.items() if (found := complaints(data, tmp_path / f"{kind}.dcm"))}


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="no dciodvfy: apt-get install dicom3tools")
@pytest.mark.parametrize("settings", [ALL, LINK], ids=["pseudonym", "linked"])
def test_dciodvfy_finds_no_error_in_the_objects_of_real_images(data_root, pipeline, backend, settings, tmp_path):
    ours = Pipeline(pipeline.model, pipeline.config, key=KEY, dicom=settings)
    results = score_batch(ours, backend, store := LocalStore(data_root / "dicom"), list(entries(store)))
    made = [data for result in results if isinstance(result, Scored) for data in result.objects.values()]
    assert len(made) == 9
    assert [found for data in made if (found := complaints(data, tmp_path / "one.dcm"))] == []


def test_without_highdicom_the_error_says_which_and_how(monkeypatch):
    monkeypatch.setattr(dicom, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"highdicom.*pip install 'covseg\[dicom\]'"):
        dicom.check_installed()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dicom": "seg,pdf"}, "'pdf': wanted seg, sr, sc"),
        ({"link_patient": True}, "beside --dicom"),
        ({"dicom": "sr", "link_patient": True, "hide_keys": True}, "--hide-keys"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        ScoreSettings(source="a", dest="b", **changes).dicom_settings()
