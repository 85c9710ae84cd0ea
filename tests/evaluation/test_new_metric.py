"""A metric is one function and one entry in a table: files, page, screen and comparison follow by themselves."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from covseg.errors import UsageError
from covseg.evaluation import evaluate as evaluate_module
from covseg.evaluation.compare import compare, open_evaluations
from covseg.evaluation.document import read_back
from covseg.evaluation.evaluate import evaluate
from covseg.evaluation.text import screen
from covseg.metrics.convention import RATIOS
from covseg.metrics.mask_metrics import MASK_METRICS, MaskMetric, MaskPair
from covseg.metrics.measures import Name
from covseg.settings.evaluate import EvaluateSettings
from flows.cli.app import run as covseg

WORDS = "source pixels, found less true"


def area_error(pair: MaskPair) -> float:
    """Marked minus true pixels, of images with infection."""
    return float(pair.guess.sum()) - float(pair.truth.sum()) if pair.truth.any() else float("nan")


def evaluated(data, output):
    settings = EvaluateSettings(model="default", data=data, output=output, backend="torch", draws=100, limit=8)
    return evaluate(settings)


@pytest.fixture
def with_metrics(made_set, tmp_path, monkeypatch):
    """An evaluation with one ratio of counts and one metric of masks that covseg does not ship."""
    monkeypatch.setitem(RATIOS, "distance", ((0, 1, 1, 0), (1, 1, 1, 0)))
    monkeypatch.setitem(MASK_METRICS, "area_error", MaskMetric(area_error, "area", "Area error, px", WORDS, digits=1))
    return tmp_path, evaluated(made_set, tmp_path)


def test_a_new_ratio_stands_in_every_table(with_metrics):
    output, evaluation = with_metrics
    iou = evaluation.line("COVID-19", "infection", "iou", "image", "skip").value
    new = evaluation.line("COVID-19", "infection", "distance", "image", "skip")
    assert new.value == pytest.approx(1 - iou, abs=1e-5)
    rows = pq.read_table(output / "cases.parquet").to_pylist()
    assert all(row["distance"] is None or row["distance"] == pytest.approx(1 - row["iou"]) for row in rows)
    assert sum(line.split("|")[0].split()[-1] == "distance" for line in screen(evaluation) if "|" in line) == 4
    assert b"<td>distance</td>" in (output / "evaluation.html").read_bytes()
    assert Name("infection", "distance", "image", "skip") in {row.name for row in compare_with_itself(output)}


def test_a_new_metric_of_masks_stands_in_every_table(with_metrics):
    output, evaluation = with_metrics
    rows = pq.read_table(output / "cases.parquet").to_pylist()
    expected = [row["fp"] - row["fn"] for row in rows if row["tp"] + row["fn"]]
    line = evaluation.line("all", "area", "area_error")
    assert (line.value, line.n) == (pytest.approx(np.mean(expected)), len(expected))
    assert read_back(output)[1].column("area_error")[: len(expected)].tolist() == expected
    assert any("Area error" in text for text in screen(evaluation))
    page = (output / "evaluation.html").read_bytes()
    assert b"Area error, px" in page and WORDS.encode() in page
    assert Name("area", "area_error") in {row.name for row in compare_with_itself(output)}


def compare_with_itself(output):
    return compare(open_evaluations([output, output]), draws=100)


def test_an_evaluation_older_than_a_metric_is_read_without_it(made_set, tmp_path, monkeypatch):
    evaluated(made_set, tmp_path)
    monkeypatch.setitem(MASK_METRICS, "area_error", MaskMetric(area_error, "area", "Area error, px", WORDS))
    assert np.isnan(read_back(tmp_path)[1].column("area_error")).all()
    assert all(row.name.metric != "area_error" for row in compare_with_itself(tmp_path))


def test_metrics_of_another_version_are_refused_by_name(made_set, tmp_path):
    evaluated(made_set, tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps(content | {"schema": 2}))
    with pytest.raises(UsageError, match=r"metrics\.json: schema: .* again"):
        read_back(tmp_path)


def test_without_torch_parameters_are_counted_and_operations_are_a_dash(made_set, tmp_path, monkeypatch, capsys):
    counted = evaluated(made_set, tmp_path / "torch").cost
    monkeypatch.setattr(evaluate_module, "find_spec", lambda name: None)
    evaluation = evaluated(made_set, tmp_path / "bare")
    assert counted.gflop > 0 and evaluation.cost.parameters == counted.parameters
    assert json.loads((tmp_path / "bare" / "metrics.json").read_text())["cost"]["gflop"] is None
    assert "M parameters, - GFLOP" in screen(evaluation)[-1]
    assert b"parameters, - GFLOP an image" in (tmp_path / "bare" / "evaluation.html").read_bytes()
    assert covseg(["compare", str(tmp_path / "bare"), str(tmp_path / "torch"), "--draws", "100"]) == 0
    assert re.search(rf"{counted.parameters / 1e6:.2f} M +- ", capsys.readouterr().out)
