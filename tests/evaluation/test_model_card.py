"""The model card: what it says, what it refuses to say, and what never stands in it."""

import json
import re

import numpy as np
import pytest

from covseg.errors import ModelRefused, UsageError
from covseg.evaluation.document import read_back
from covseg.evaluation.evaluate import evaluate
from covseg.evaluation.examples import MISSED, Shelves
from covseg.evaluation.failures import failures
from covseg.metrics.image_results import Cases, judge, refused
from covseg.model_folder.folder import open_folder
from covseg.records import Masks, Truth
from covseg.release.card import evidence, render, write
from covseg.settings.evaluate import EvaluateSettings
from flows.cli import app as cli


@pytest.fixture(scope="module")
def judged(made_set, tmp_path_factory):
    """An evaluation of the default model on made films."""
    output = tmp_path_factory.mktemp("evaluation")
    return output, evaluate(
        EvaluateSettings(model="default", data=made_set, split="Val", output=output, backend="torch", draws=100)
    )


@pytest.fixture(scope="module")
def page(judged, model_folder):
    return render(model_folder, evidence(model_folder, judged[0]))


def rewrite(folder, **changes):
    card = json.loads((folder / "covseg.json").read_text())
    (folder / "covseg.json").write_text(json.dumps(card | changes))


def test_the_card_says_research_use_whatever_the_json_says(model_copy):
    rewrite(model_copy, intended_use="Anything.")
    assert "Research use only, never a diagnosis" in render(open_folder(model_copy))


def test_licence_and_citation_are_those_of_the_json_and_never_guessed(model_copy):
    rewrite(model_copy, licence="Only on Tuesdays.", citation="Nobody 2026.")
    page = render(open_folder(model_copy))
    assert "- Licence: Only on Tuesdays.\n" in page and "- Citation: Nobody 2026.\n" in page
    assert not re.search(r"\bmit\b", page, re.IGNORECASE)
    for name in ("licence", "citation"):
        rewrite(model_copy, licence="L", citation="C")
        rewrite(model_copy, **{name: " "})
        with pytest.raises(ModelRefused, match=f"empty {name}"):
            render(open_folder(model_copy))


def test_the_card_holds_every_threshold_and_training_fact(model_folder):
    page, card = render(model_folder), model_folder.card
    for name, value in card.thresholds.model_dump().items():
        assert f"| {name} | {value:.6g} |" in page
    assert f"| gate refuse_above | {card.gate.refuse_above:.6g} |" in page
    assert f"| epochs | {card.training['epochs']} |" in page
    assert f"| run.seed | {card.training['run']['seed']} |" in page
    head = card.metrics["headline"]["covid_dice"]
    assert re.search(rf"\| headline.covid_dice \| \.\d+ \[\.\d+, \.\d+\], n {head['n']} \|", page)


def test_every_stratum_and_convention_stands_in_it_with_interval_and_n(judged, page):
    value = r"(?:-?\d?\.\d+|-) \[(?:-?\d?\.\d+|-), (?:-?\d?\.\d+|-)\]"
    for stratum in ("COVID-19", "Non-COVID", "Normal", "negatives", "all"):
        for reduction in ("image", "batch(8)", "dataset"):
            for empty in ("one", "zero", "skip"):
                row = rf"\| {stratum} \| {re.escape(reduction)} \| {empty} \| {value} \| {value} \| \d+ \|"
                assert len(re.findall(row, page)) == 1, (stratum, reduction, empty)
    assert "split Val" in page and judged[1]["data"]["digest"] in page
    assert re.search(rf"\| all \| lung dice \| {value} \| 16 \|", page)


def test_no_film_is_named_and_no_picture_is_in_it(made_set, judged, page):
    _, cases = read_back(judged[0])
    for key in cases.keys:
        assert key not in page and key.rpartition("/")[2] not in page
    assert "data:image" not in page and "![" not in page and "<img" not in page
    assert str(made_set) not in page and str(judged[0]) not in page


def test_the_same_inputs_give_the_same_bytes(judged, model_folder, page):
    assert render(model_folder, evidence(model_folder, judged[0])) == page


def test_a_failure_is_found_again_by_its_row(judged, page):
    _, cases = read_back(judged[0])
    found = failures(cases)
    assert found
    for one in found:
        tp, fp, fn = (cases.column(name)[one.row] for name in ("tp", "fp", "fn"))
        assert cases.strata[one.row] == one.stratum and fp + fn > 0
        assert one.dice is None or one.dice == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert f"| {one.shelf} | {one.stratum} | {one.grade} | {one.row} |" in page


def test_the_failures_are_the_films_that_the_evaluations_page_shows_as_worst():
    """Cards and pages rank by one rule."""
    random, shelves, cases = np.random.default_rng(0), Shelves(), Cases()
    lung, pixels = np.ones((32, 32), np.uint8), np.zeros((32, 32), np.float32)
    for number in range(40):
        real = (random.random((32, 32)) < (0, 0.02, 0.2, 0.6)[number % 4]).astype(np.uint8)
        guess = (random.random((32, 32)) < 0.1).astype(np.uint8) & real if number % 3 else real
        masks = Masks(lung, guess, lung, False, 0.0, 1, None)
        truth = Truth(real, lung)
        key, stratum = f"film-{number}", "COVID-19" if number % 4 else "Normal"
        case = judge(key, stratum, masks, truth, 0.5, 0.1)
        cases.add(case)
        shelves.offer(case, pixels, masks, truth)
    cases.add(refused("refused", "COVID-19", "not_frontal_chest", truth))
    shown = {(one.shelf, one.key) for one in shelves.strips() if one.shelf in ("worst", MISSED)}
    flawed = {key for key, error in zip(cases.keys, cases.column("fp") + cases.column("fn"), strict=True) if error}
    listed = {(one.shelf, cases.keys[one.row]) for one in failures(cases)}
    assert listed == {(shelf, key) for shelf, key in shown if key in flawed}
    assert {shelf for shelf, _ in listed} == {"worst", MISSED}


def test_an_evaluation_of_other_weights_or_thresholds_is_refused(judged, model_copy):
    rewrite(model_copy, thresholds={"infection": 0.9})
    with pytest.raises(UsageError, match=r"other thresholds \(.*infection.*\)"):
        evidence(open_folder(model_copy), judged[0])
    folder = open_folder(model_copy)
    other = folder.model_copy(update={"card": folder.card.model_copy(update={"weights_sha256": "0" * 64})})
    with pytest.raises(UsageError, match="judged weights"):
        evidence(other, judged[0])
    with pytest.raises(UsageError, match=r"no metrics\.json"):
        evidence(folder, model_copy)


def test_text_of_the_json_cannot_leave_its_cell_or_become_html(model_copy):
    rewrite(model_copy, id="a\n\n# Fake", licence="<script>x</script>", training={"a|b": "c | d\n\n## Cleared"})
    page = render(open_folder(model_copy))
    assert "# a # Fake\n" in page and "\n# Fake" not in page and "\n## Cleared" not in page
    assert "<script>" not in page
    assert "| a\\|b | c \\| d ## Cleared |" in page


def test_the_command_writes_the_card_and_a_dry_run_prints_it(judged, model_copy, capsys):
    (model_copy / "card.md").unlink()
    assert cli.run(["models", "card", str(model_copy), "--dry-run"]) == 0
    assert "# fast-1" in capsys.readouterr().out
    assert not (model_copy / "card.md").exists()
    assert cli.run(["models", "card", str(model_copy)]) == 0
    assert (model_copy / "card.md").read_text() == render(open_folder(model_copy))
    assert cli.run(["models", "card", str(model_copy), "--evaluation", str(model_copy)]) == 2
    assert write(open_folder(model_copy)) == model_copy / "card.md"
