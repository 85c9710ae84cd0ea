"""The model card: what it says, what it refuses to say, and what never stands in it."""

import json
import re

import numpy as np
import pytest

from covseg.errors import ModelRefused, UsageError
from covseg.evaluation.document import read_back
from covseg.evaluation.evaluate import evaluate
from covseg.evaluation.examples import MISSED, Examples, failures
from covseg.metrics.image_results import ImageResults, refused, score_masks
from covseg.model_folder.folder import open_folder
from covseg.records import Masks, Truth
from covseg.release.card import read_evidence, render_card, write_card
from covseg.settings.evaluate import EvaluateSettings
from covseg.synthetic.phantom.writer import write_dataset
from flows.cli import app as cli


@pytest.fixture(scope="module")
def made_set(tmp_path_factory):
    """A made data set in the Kaggle layout: Train 12 and Val 16 images of 96 x 96."""
    root = tmp_path_factory.mktemp("made")
    write_dataset(root, {"Train": 12, "Val": 16}, size=96)
    return root


@pytest.fixture(scope="module")
def evaluated(made_set, tmp_path_factory):
    """An evaluation of the default model on made images."""
    output = tmp_path_factory.mktemp("evaluation")
    return output, evaluate(
        EvaluateSettings(model="default", data=made_set, split="Val", output=output, backend="torch", draws=100)
    )


@pytest.fixture(scope="module")
def page(evaluated, model_folder):
    return render_card(model_folder, read_evidence(model_folder, evaluated[0]))


def rewrite(folder, **changes):
    config = json.loads((folder / "covseg.json").read_text())
    (folder / "covseg.json").write_text(json.dumps(config | changes))


def test_the_card_says_research_use_whatever_the_json_says(model_copy):
    rewrite(model_copy, intended_use="Anything.")
    assert "Research use only, never a diagnosis" in render_card(open_folder(model_copy))


def test_licence_and_citation_are_those_of_the_json_and_never_guessed(model_copy):
    rewrite(model_copy, licence="Only on Tuesdays.", citation="Nobody 2026.")
    page = render_card(open_folder(model_copy))
    assert "- Licence: Only on Tuesdays.\n" in page and "- Citation: Nobody 2026.\n" in page
    assert not re.search(r"\bmit\b", page, re.IGNORECASE)
    for name in ("licence", "citation"):
        rewrite(model_copy, licence="L", citation="C")
        rewrite(model_copy, **{name: " "})
        with pytest.raises(ModelRefused, match=f"empty {name}"):
            render_card(open_folder(model_copy))


def test_the_card_holds_every_threshold_and_training_fact(model_folder):
    page, config = render_card(model_folder), model_folder.config
    for name, value in config.thresholds.model_dump().items():
        assert f"| {name} | {value:.6g} |" in page
    assert f"| input filter refuse_above | {config.input_filter.refuse_above:.6g} |" in page
    assert f"| epochs | {config.training['epochs']} |" in page
    assert f"| run.seed | {config.training['run']['seed']} |" in page
    assert f"| run.images.Train | {config.training['run']['films']['Train']} |" in page
    assert f"| input filter.val_images | {config.metrics['gate']['val_films']} |" in page
    assert not re.search(r"^\| [^|]*(film|gate\.)", page, re.MULTILINE)
    head = config.metrics["headline"]["covid_dice"]
    assert re.search(rf"\| headline.covid_dice \| \.\d+ \[\.\d+, \.\d+\], n {head['n']} \|", page)


def test_every_stratum_and_convention_stands_in_it_with_interval_and_n(evaluated, page):
    value = r"(?:-?\d?\.\d+|-) \[(?:-?\d?\.\d+|-), (?:-?\d?\.\d+|-)\]"
    for stratum in ("COVID-19", "Non-COVID", "Normal", "negatives", "all"):
        for reduction in ("image", "batch(8)", "dataset"):
            for empty in ("one", "zero", "skip"):
                row = rf"\| {stratum} \| {re.escape(reduction)} \| {empty} \| {value} \| {value} \| \d+ \|"
                assert len(re.findall(row, page)) == 1, (stratum, reduction, empty)
    assert "split Val" in page and evaluated[1].data.digest in page
    assert re.search(rf"\| all \| lung dice \| {value} \| 16 \|", page)


def test_no_image_is_named_and_no_picture_is_in_it(made_set, evaluated, page):
    _, results = read_back(evaluated[0])
    for key in results.keys:
        assert key not in page and key.rpartition("/")[2] not in page
    assert "data:image" not in page and "![" not in page and "<img" not in page
    assert str(made_set) not in page and str(evaluated[0]) not in page


def test_the_same_inputs_give_the_same_bytes(evaluated, model_folder, page):
    assert render_card(model_folder, read_evidence(model_folder, evaluated[0])) == page


def test_a_failure_is_found_again_by_its_row(evaluated, page):
    _, results = read_back(evaluated[0])
    found = failures(results)
    assert found
    for one in found:
        tp, fp, fn = (results.column(name)[one.row] for name in ("tp", "fp", "fn"))
        assert results.strata[one.row] == one.stratum and fp + fn > 0
        assert one.dice is None or one.dice == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert f"| {one.group} | {one.stratum} | {one.grade} | {one.row} |" in page


def test_the_failures_are_the_images_that_the_evaluations_page_shows_as_worst():
    """Cards and pages rank by one rule."""
    random, examples, results = np.random.default_rng(0), Examples(), ImageResults()
    lung, pixels = np.ones((32, 32), np.uint8), np.zeros((32, 32), np.float32)
    for number in range(40):
        real = (random.random((32, 32)) < (0, 0.02, 0.2, 0.6)[number % 4]).astype(np.uint8)
        guess = (random.random((32, 32)) < 0.1).astype(np.uint8) & real if number % 3 else real
        masks = Masks(lung, guess, lung, False, 0.0, 1, None)
        truth = Truth(real, lung)
        key, stratum = f"film-{number}", "COVID-19" if number % 4 else "Normal"
        result = score_masks(key, stratum, masks, truth, 0.5, 0.1)
        results.add(result)
        examples.offer(result, pixels, masks, truth)
    results.add(refused("refused", "COVID-19", "not_frontal_chest", truth))
    shown = {(one.group, one.key) for one in examples.strips() if one.group in ("worst", MISSED)}
    flawed = {
        key for key, error in zip(results.keys, results.column("fp") + results.column("fn"), strict=True) if error
    }
    listed = {(one.group, results.keys[one.row]) for one in failures(results)}
    assert listed == {(group, key) for group, key in shown if key in flawed}
    assert {group for group, _ in listed} == {"worst", MISSED}


def test_an_evaluation_of_other_weights_or_thresholds_is_refused(evaluated, model_copy):
    rewrite(model_copy, thresholds={"infection": 0.9})
    with pytest.raises(UsageError, match=r"other thresholds \(.*infection.*\)"):
        read_evidence(open_folder(model_copy), evaluated[0])
    folder = open_folder(model_copy)
    other = folder.model_copy(update={"config": folder.config.model_copy(update={"weights_sha256": "0" * 64})})
    with pytest.raises(UsageError, match="is of weights"):
        read_evidence(other, evaluated[0])
    with pytest.raises(UsageError, match=r"no metrics\.json"):
        read_evidence(folder, model_copy)


def test_text_of_the_json_cannot_leave_its_cell_or_become_html(model_copy):
    rewrite(model_copy, id="a\n\n# Fake", licence="<script>x</script>", training={"a|b": "c | d\n\n## Cleared"})
    page = render_card(open_folder(model_copy))
    assert "# a # Fake\n" in page and "\n# Fake" not in page and "\n## Cleared" not in page
    assert "<script>" not in page
    assert "| a\\|b | c \\| d ## Cleared |" in page


def test_the_command_writes_the_card_and_a_dry_run_prints_it(evaluated, model_copy, capsys):
    (model_copy / "card.md").unlink()
    assert cli.run(["models", "card", str(model_copy), "--dry-run"]) == 0
    assert "# fast-3" in capsys.readouterr().out
    assert not (model_copy / "card.md").exists()
    assert cli.run(["models", "card", str(model_copy)]) == 0
    assert (model_copy / "card.md").read_text() == render_card(open_folder(model_copy))
    assert cli.run(["models", "card", str(model_copy), "--evaluation", str(model_copy)]) == 2
    assert write_card(open_folder(model_copy)) == model_copy / "card.md"
