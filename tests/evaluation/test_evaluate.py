"""`covseg evaluate`, `compare` and `data check` on made images, end to end."""

import html
import json
import re
import shutil

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from covseg.data import open_set
from covseg.datacheck.check import check, record
from covseg.datacheck.page import render_check
from covseg.errors import RadiographRefused, Reason, UsageError
from covseg.evaluation import run as run_module
from covseg.evaluation.compare import compare, open_evaluations
from covseg.evaluation.document import read_back
from covseg.evaluation.evaluate import evaluate
from covseg.evaluation.page import render
from covseg.evaluation.text import screen
from covseg.metrics.measures import Name
from covseg.model_folder.test_uses import LEDGER
from covseg.pipeline import Pipeline, resolve
from covseg.predict import predict
from covseg.settings.evaluate import EvaluateSettings
from covseg.storage import LocalStore
from flows.cli.app import run as covseg


def evaluated(data, output, **options):
    options = {"model": "default", "backend": "torch", "draws": 100, **options}
    options["model"] = str(options["model"])
    return evaluate(EvaluateSettings(data=data, output=output, **options))


@pytest.fixture(scope="module")
def evaluation(made_set, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluation")
    content = evaluate(
        EvaluateSettings(model="default", data=made_set, split="Val", output=output, backend="torch", draws=200)
    )
    return output, content


def value(content, stratum, part, metric, reduction="image", empty=""):
    line = content.line(stratum, part, metric, reduction, empty)
    assert line is not None and content.lines.count(line) == 1
    return line


def test_what_is_judged_is_what_predict_writes(made_set, evaluation, model_folder, backend, tmp_path):
    """One pipeline: the masks of `covseg predict` give the same counts."""
    images = open_set(made_set, "Val")
    pipeline = Pipeline(model_folder.config, resolve(model_folder, backend, 4), key=b"k")
    entries = list(run_module.entries_of(images))
    rows = {row.key: row for row in predict(pipeline, backend, LocalStore(made_set), entries, LocalStore(tmp_path))}
    _, results = read_back(evaluation[0])
    for number, image in enumerate(images.images):
        guess = cv2.imread(str(tmp_path / rows[image.key].mask_uri), cv2.IMREAD_UNCHANGED) == 2
        real = cv2.imread(str(made_set / image.infection), cv2.IMREAD_UNCHANGED) > 0
        expected = [(guess & real).sum(), (guess & ~real).sum(), (~guess & real).sum(), (~guess & ~real).sum()]
        assert results.keys[number] == image.key and results.counts()[number].tolist() == expected


def test_every_convention_of_every_stratum_is_in_the_json(evaluation):
    _, content = evaluation
    for stratum in ("COVID-19", "Non-COVID", "Normal", "negatives", "all"):
        for reduction in ("image", "batch(8)", "dataset"):
            for empty in ("one", "zero", "skip"):
                for metric in ("dice", "iou", "precision", "recall", "f1", "specificity", "accuracy"):
                    value(content, stratum, "infection", metric, reduction, empty)
    assert content.lung_mask == "predicted" and content.data.counts["COVID-19"] == 8
    written = json.loads((evaluation[0] / "metrics.json").read_text())
    assert written == content.model_dump(mode="json") == read_back(evaluation[0])[0].model_dump(mode="json")
    assert written["schema"] == 1 and written["data"]["films"] == 16 and "test_use" not in written


def test_dice_on_negatives_is_their_image_level_specificity(evaluation):
    _, content = evaluation
    dice = value(content, "negatives", "infection", "dice", "image", "one")
    assert dice.value == value(content, "negatives", "image level", "specificity").value


def test_all_is_the_mixture_of_the_strata(evaluation):
    _, content = evaluation
    parts = [
        (count, value(content, name, "infection", "dice", "image", "one").value)
        for name, count in content.data.counts.items()
    ]
    mixed = sum(count * score for count, score in parts) / sum(count for count, _ in parts)
    assert value(content, "all", "infection", "dice", "image", "one").value == pytest.approx(mixed, abs=1e-5)


def test_cases_have_one_row_an_image_with_its_own_dice(evaluation):
    table = pq.read_table(evaluation[0] / "cases.parquet")
    assert table.num_rows == 16 and len(set(table["key"].to_pylist())) == 16
    for row in table.to_pylist():
        total = 2 * row["tp"] + row["fp"] + row["fn"]
        assert row["dice"] == (pytest.approx(2 * row["tp"] / total) if total else None)


def test_the_screen_begins_with_the_headline_and_fits(evaluation):
    lines = screen(evaluation[1])
    assert "COVID-19 only" in lines[1] and "negative specificity" in lines[2] and "lung mask: predicted" in lines[3]
    assert len(lines) <= 50 and max(map(len, lines)) <= 120


def test_the_page_is_a_pure_function_and_names_nothing_outside(evaluation):
    output, content = evaluation
    _, results = read_back(output)
    page = html.unescape((output / "evaluation.html").read_text())
    bare = re.sub(r"data:[a-z/+]+;base64,[A-Za-z0-9+/=]+", "", page)
    assert "http:" not in bare and "https:" not in bare and "<script" not in bare
    assert "default-src 'none'" in page and "Research use only" in page and "predicted" in page
    assert render(content, results, []) == render(content, results, [])


def test_names_are_escaped_in_the_page(evaluation):
    output, content = evaluation
    _, results = read_back(output)
    model = content.model.model_copy(update={"id": "<img src=x onerror=alert(1)>"})
    evil = content.model_copy(update={"model": model})
    assert b"<img src=x" not in render(evil, results, [])


def test_the_true_lung_is_declared_and_used(made_set, tmp_path):
    content = evaluate(
        EvaluateSettings(
            model="default",
            data=made_set,
            split="Val",
            output=tmp_path,
            lung="truth",
            limit=8,
            backend="torch",
            draws=100,
        )
    )
    assert content.lung_mask == "truth"
    assert value(content, "all", "lung", "dice", "image", "one").value > 0.95
    assert "lung mask: truth" in "\n".join(screen(content))


def test_the_true_lung_is_no_matter_of_the_gate_and_a_bad_one_is_left_out(made_set, tmp_path):
    root = shutil.copytree(made_set, tmp_path / "set")
    bad = open_set(root, "Val").images[0]
    cv2.imwrite(str(root / bad.lung), np.full((96, 96), 9, np.uint8))
    content = {
        lung: evaluate(
            EvaluateSettings(
                model="default", data=root, split="Val", output=tmp_path / lung, lung=lung, backend="torch", draws=100
            )
        )
        for lung in ("predicted", "truth")
    }
    for one in content.values():
        assert [left.detail.startswith(str(root / bad.lung)) for left in one.data.excluded] == [True]
    assert content["truth"].data.refused == content["predicted"].data.refused


def test_bad_truth_is_left_out_and_counted_by_name(made_set, tmp_path):
    root = shutil.copytree(made_set, tmp_path / "set")
    images = open_set(root, "Val").images
    cv2.imwrite(str(root / images[0].infection), np.full((96, 96), 9, np.uint8))
    (root / images[1].lung).unlink()
    content = evaluate(
        EvaluateSettings(model="default", data=root, split="Val", output=tmp_path / "out", backend="torch", draws=100)
    )
    assert content.data.excluded_counts == {"missing_lung_mask": 1, "mask_not_binary": 1}
    assert images[0].infection in " ".join(image.detail for image in content.data.excluded)
    assert any("2 images were left out" in warning for warning in content.warnings)
    assert value(content, "COVID-19", "infection", "dice", "image", "one").n == 6


def test_a_refused_image_stays_in_the_table_as_a_failure(made_set, tmp_path, monkeypatch):
    lost = open_set(made_set, "Val").images[0].key
    finish = Pipeline.finish

    def refusing(self, image, prediction):
        if image.entry.key == lost:
            return self.refuse(image.entry, RadiographRefused(Reason.NOT_FRONTAL_CHEST, "gate", "test"), "0" * 64)
        return finish(self, image, prediction)

    monkeypatch.setattr(Pipeline, "finish", refusing)
    content = evaluate(
        EvaluateSettings(model="default", data=made_set, split="Val", output=tmp_path, backend="torch", draws=100)
    )
    assert content.data.refused == {"COVID-19": {"not_frontal_chest": 1}}
    assert value(content, "COVID-19", "infection", "dice", "image", "skip").n == 8
    assert content.surface_status["COVID-19"]["refused"] == 1
    assert any("count as failures" in warning for warning in content.warnings)


def test_each_use_of_test_is_written_beside_the_model(made_set, model_copy, tmp_path):
    shutil.copytree(made_set / "Val", tmp_path / "set" / "Test")
    request = EvaluateSettings(
        model=str(model_copy),
        data=tmp_path / "set",
        split="Test",
        output=tmp_path / "out",
        limit=8,
        backend="torch",
        draws=100,
    )
    uses = [evaluate(request).test_use for _ in range(2)]
    lines = [json.loads(line) for line in (model_copy / LEDGER).read_text().splitlines()]
    assert uses == [1, 2] and len(lines) == 2
    assert lines[0]["counts"]["COVID-19"] == 4 and "covid_dice" in lines[0]["headline"] and lines[0]["time"]


def test_val_is_not_written_into_the_ledger(evaluation, model_folder):
    assert not (model_folder.path / LEDGER).exists()


def test_a_model_compared_with_itself_differs_by_nothing(evaluation):
    rows = compare(open_evaluations([evaluation[0], evaluation[0]]), draws=100)
    assert rows and all(row.difference.value == 0 == row.difference.low == row.difference.high for row in rows)
    assert {row.stratum for row in rows} == {"COVID-19", "Non-COVID", "Normal", "negatives", "all"}


def test_an_emptied_model_gains_specificity_and_loses_dice(evaluation, made_set, model_folder, tmp_path):
    strict = shutil.copytree(model_folder.path, tmp_path / "strict")
    config = json.loads((strict / "covseg.json").read_text())
    config["thresholds"] = {"presence": 1.0}
    (strict / "covseg.json").write_text(json.dumps(config))
    evaluate(
        EvaluateSettings(
            model=str(strict), data=made_set, split="Val", output=tmp_path / "out", backend="torch", draws=100
        )
    )
    rows = {(row.stratum, row.name): row for row in compare(open_evaluations([evaluation[0], tmp_path / "out"]), 200)}
    assert rows["negatives", Name("image level", "specificity")].other == 1.0
    assert rows["COVID-19", Name("infection", "dice", "image", "skip")].other == 0.0


def test_a_model_does_not_win_by_leaving_hard_images_empty(evaluation, made_set, model_folder, tmp_path):
    """Distances and fractions are compared over the images that both have, and n says how many."""
    timid = shutil.copytree(model_folder.path, tmp_path / "timid")
    config = json.loads((timid / "covseg.json").read_text())
    _, results = read_back(evaluation[0])
    config["thresholds"]["presence"] = float(
        np.median(results.column("presence")[results.positive])
    )  # half are left empty
    (timid / "covseg.json").write_text(json.dumps(config))
    evaluate(
        EvaluateSettings(
            model=str(timid), data=made_set, split="Val", output=tmp_path / "out", backend="torch", draws=100
        )
    )
    read = open_evaluations([evaluation[0], tmp_path / "out"])
    both = ~np.isnan(read[0].results.column("nsd")) & ~np.isnan(read[1].results.column("nsd"))
    assert both.sum() < (~np.isnan(read[0].results.column("nsd"))).sum(), "the timid model leaves some empty"
    row = next((one for one in compare(read, 200) if one.name.metric == "nsd" and one.stratum == "all"), None)
    if row:
        assert row.difference.n == both.sum()
        assert row.first == pytest.approx(read[0].results.column("nsd")[both].mean())
    else:
        assert not both.any()


def test_evaluations_of_other_images_are_not_compared(evaluation, made_set, tmp_path):
    evaluate(
        EvaluateSettings(
            model="default", data=made_set, split="Val", output=tmp_path, limit=8, backend="torch", draws=100
        )
    )
    with pytest.raises(UsageError, match="judge other images"):
        open_evaluations([evaluation[0], tmp_path])
    with pytest.raises(UsageError, match=r"no metrics\.json"):
        open_evaluations([evaluation[0], made_set])


def test_the_commands_work_from_the_command_line(made_set, evaluation, tmp_path, capsys):
    flags = ["--data", str(made_set), "--limit", "8", "--backend", "torch", "--draws", "100"]
    assert covseg(["evaluate", "default", *flags, "-o", str(tmp_path / "a")]) == 0
    assert "negative specificity" in capsys.readouterr().out
    assert covseg(["compare", str(tmp_path / "a"), str(tmp_path / "a"), "-o", str(tmp_path / "rows.json")]) == 0
    assert "GFLOP" in capsys.readouterr().out and json.loads((tmp_path / "rows.json").read_text())
    assert covseg(["evaluate", "default", "--data", str(made_set), "--split", "Test"]) == 2
    assert "it has Train, Val" in capsys.readouterr().err


def test_a_data_check_finds_what_is_wrong_and_what_is_twice(made_set, tmp_path, capsys):
    root = shutil.copytree(made_set, tmp_path / "set")
    train, val = open_set(root, "Train").images, open_set(root, "Val").images
    shutil.copy(root / train[0].key, root / val[0].key)  # the same image on both sides
    dimmed = cv2.imread(str(root / train[1].key), cv2.IMREAD_GRAYSCALE) // 2
    cv2.imwrite(str(root / val[1].key), dimmed)  # and one under another exposure
    cv2.imwrite(str(root / val[2].infection), np.full((96, 96), 3, np.uint8))
    assert covseg(["data", "check", str(root), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "data.json").read_text())
    pairs = {(pair["first"], pair["second"]): pair["exact"] for pair in content["duplicates_across"]}
    assert pairs[train[0].key, val[0].key] is True and pairs[train[1].key, val[1].key] is False
    assert [one["reason"] for one in content["splits"][1]["excluded"]] == ["mask_not_binary"]
    assert "OFFICIAL" in said and "equal pixels" in said
    assert "<script" not in (tmp_path / "out" / "data.html").read_text()


def test_a_set_is_checked_against_another(made_set, tmp_path):
    other = shutil.copytree(made_set, tmp_path / "other")
    content = record(check(made_set, other))
    across = {(pair.first_split, pair.other_split) for pair in content.duplicates_across if pair.exact}
    assert (f"{made_set.name}/Val", "other/Val") in across and len(content.splits) == 4
    namesake = tmp_path / "deeper" / made_set.name
    shutil.copytree(made_set, namesake)
    found = check(made_set, namesake)
    labels = [split.split for split in record(found).splits]
    assert len(set(labels)) == 4 and f"deeper/{made_set.name}/Val" in labels
    assert all(label in render_check(found, "set").decode() for label in labels if label.endswith("Val"))


@pytest.mark.slow
def test_the_known_near_duplicates_of_the_real_set_are_found(val_root):
    known = {(3465, 2356), (4020, 667), (3977, 804), (444, 686), (1380, 3926), (1438, 3551)}
    found = check(val_root.parent)
    numbers = {
        frozenset(int(re.search(r"covid_(\d+)", key).group(1)) for key in (pair.first, pair.second))
        for _, _, pair in [*found.across, *found.inside]
    }
    assert {frozenset(pair) for pair in known} <= numbers
    assert len(found.across) == 6 and not any(split.excluded for split in found.splits)
    assert b"same image twice" in render_check(found, "COVID-QU-Ex")
