"""Every file that pydicom brings, and NEMA's WG-04 images: what becomes of each stands in the documentation."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from covseg.pipeline import Pipeline
from covseg.stages.read import read
from tests.dicom_corpus import files, folders, outcomes, table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "dicom-corpus.md"


@pytest.mark.parametrize("collection", ["pydicom", "pydicom-data"])
def test_what_becomes_of_every_file_is_what_the_page_says(collection, pipeline: Pipeline, backend):
    place = folders()[collection]
    if place is None:
        pytest.skip(f"no {collection}: it is in the group dev")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of a file is warned about
        found = outcomes(files(place), pipeline, backend)
    assert len(found) > 60
    page = PAGE.read_text()
    assert [line for line in table(found) if line not in page] == []


def test_wg04_radiographs_are_the_same_pixels_in_every_lossless_syntax():
    place = folders()["pydicom-data"]
    if place is None:
        pytest.skip("no pydicom-data: it is in the group dev")
    plain = read((place / "RG1_UNCR.dcm").read_bytes()).samples
    assert np.array_equal(read((place / "RG1_J2KR.dcm").read_bytes()).samples, plain)
    assert np.abs(read((place / "RG1_J2KI.dcm").read_bytes()).samples - plain).mean() < 0.01
