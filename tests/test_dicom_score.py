"""DICOM objects of a bulk scoring on Ray: those of predict, counted and verified, and no name in DEST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from covseg.errors import UsageError
from covseg.pipeline import Pipeline, resolve
from covseg.predict import predict
from covseg.settings.dicom import DICOM_KINDS, DicomSettings
from covseg.settings.score import ScoreSettings
from covseg.storage import LocalStore, MemoryStore, entries
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from covseg.verify import verify
from tests.dicom_images import with_canaries
from tests.test_dicom_runs import traces
from workers.scoring import score_archive

pytest.importorskip("highdicom", reason="the extra dicom is not installed")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("radiographs")
    for seed in range(4):
        (folder / f"{seed}.dcm").write_bytes(with_canaries(encode(make_phantom(seed, 256, 256), "monochrome2")))
    (folder / "4.png").write_bytes(encode(make_phantom(4, 256, 256), "png"))
    return folder


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    return ((str(path.relative_to(folder)), path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def test_score_makes_the_objects_of_predict_and_leaves_no_name(ray_cluster, archive, tmp_path, model_folder, backend):
    wanted = ScoreSettings(source=str(archive), dest=str(tmp_path), dicom="sc,sr,seg", shard_size=2, workers=1)
    summary = score_archive(wanted)
    assert summary.dicom == {"seg": 4, "sr": 4, "sc": 4, "without": 1}
    verdict = verify(LocalStore(tmp_path))
    assert (verdict.breaches, verdict.orphans) == ([], 0)
    objects = dict(files(tmp_path))
    assert traces(objects) == {}
    dicom = DicomSettings(kinds=DICOM_KINDS)
    pipeline = Pipeline(model_folder.config, resolve(model_folder, backend, wanted.batch), dicom=dicom)
    source, here = LocalStore(archive), MemoryStore()
    predict(pipeline, backend, source, entries(source), here)
    rows = {row["input_id"]: row for row in pq.read_table(tmp_path / "severity.parquet").to_pylist()}
    made = {name: data for name, data in here.objects.items() if name.startswith("dicom/")}
    assert len(made) == 12
    for name, data in made.items():
        _, kind, file = name.split("/")
        assert objects[rows[file.removesuffix(".dcm")][f"{kind}_uri"]] == data
    again = score_archive(wanted)
    assert again.finished == 0
    assert dict(files(tmp_path)) == objects


def test_a_destination_without_objects_is_not_continued_with_them(ray_cluster, archive, tmp_path):
    plain = ScoreSettings(source=str(archive), dest=str(tmp_path), limit=1, workers=1)
    assert score_archive(plain).dicom == {}
    with pytest.raises(UsageError, match="dicom"):
        score_archive(plain.model_copy(update={"dicom": "sr"}))
