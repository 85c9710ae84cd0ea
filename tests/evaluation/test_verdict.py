"""The sentences that the evaluation's page and a comparison begin with, and what is drawn."""

from dataclasses import replace

import pytest

from covseg.evaluation.compare import Contrast
from covseg.evaluation.compare_words import direction, verdicts, words_of, worth_showing
from covseg.evaluation.evaluate import evaluate
from covseg.evaluation.figures import EVERY, infected_dice
from covseg.evaluation.records import Measured, Robustness, ShiftLine
from covseg.evaluation.text import screen
from covseg.evaluation.verdict import verdict
from covseg.metrics.image_results import ImageResults
from covseg.metrics.intervals import Difference
from covseg.metrics.measures import Name
from covseg.settings.evaluate import EvaluateSettings
from tests.evaluation.test_cases import make, square

NONE = Measured(value=float("nan"), low=float("nan"), high=float("nan"), n=0)


def measured(value, n=20):
    return Measured(value=value, low=value - 0.1, high=value + 0.1, n=n)


def shift(words, dice_lost, specificity_lost, by_design=""):
    return ShiftLine(
        name=words, words=words, seen=True, by_design=by_design, images=20,
        covid_dice=measured(0.7 - dice_lost), covid_dice_as_it_is=0.7, covid_dice_lost=measured(dice_lost),
        specificity=measured(0.9 - specificity_lost), specificity_as_it_is=0.9,
        specificity_lost=measured(specificity_lost), marked=1, marked_as_it_is=1, lung_dice=measured(0.9),
        fraction_r=measured(0.9), refused=0, flagged=0, agreement=1, kept=1, unflagged=20,
    )  # fmt: skip


@pytest.fixture(scope="module")
def judged(made_set, tmp_path_factory):
    output = tmp_path_factory.mktemp("verdict")
    content = evaluate(EvaluateSettings(model="default", data=made_set, output=output, draws=100))
    return output, content


def test_the_sentence_names_the_worst_shift_that_is_not_refused_by_design(judged):
    lines = (shift("blur", 0.1, 0.0), shift("haze", 0.05, 0.3), shift("inverted", 0.7, 0.9, "refused"))
    said = verdict(judged[1].model_copy(update={"robustness": Robustness(shifts=lines)}), NONE)
    assert said.endswith("of 2 shifts haze costs most, specificity .900 to .600.")
    harmless = Robustness(shifts=(shift("blur", 0.001, -0.1),))
    assert verdict(judged[1].model_copy(update={"robustness": harmless}), NONE).endswith(
        "none costs Dice or specificity."
    )


def test_a_set_without_covid_is_judged_by_all_its_images_with_infection(judged):
    own = judged[1].model_copy(update={"headline": judged[1].headline | {"covid_dice": NONE}})
    assert verdict(own, measured(0.5)).startswith("Mean Dice .500 [.400, .600] on 20 images with infection; ")
    assert verdict(judged[1], NONE).startswith(f"Mean Dice {judged[1].headline['covid_dice']} on 8 COVID-19 images; ")


def test_the_page_begins_with_the_sentence_then_the_table_then_the_charts_then_images_and_details(judged):
    page = (judged[0] / "evaluation.html").read_text()
    order = ("class=\"verdict\"", "<h2>Headline", "<table>", "Dice by stratum and severity", "Reliability curve",
             "<h2>The same image", "<h2>Images: best", "<h2>Image level", "<h2>The whole table")  # fmt: skip
    places = [page.index(part) for part in order]
    assert places == sorted(places)


def test_dice_by_severity_takes_images_with_infection_alone():
    results = ImageResults()
    for key, guess, real in (("a", square(10), square(10)), ("b", square(0), square(10)), ("c", square(4), square(0))):
        results.add(make(guess, real, key))
    found = infected_dice(results)
    assert (found[EVERY].value, found[EVERY].n) == (0.5, 2)  # the false alarm on an empty image has no part in it
    assert sum(line.n for name, line in found.items() if name != EVERY) == 2


def test_a_set_of_ones_own_is_not_told_what_holds_of_covid_qu_ex(set_without_lungs, tmp_path):
    folder = set_without_lungs
    lines = (folder / "labels.csv").read_text().replace("COVID-19", "infected").replace("Non-COVID", "clear")
    (folder / "labels.csv").write_text(lines.replace("Normal", "clear"))
    content = evaluate(EvaluateSettings(model="default", data=folder, output=tmp_path / "own", draws=100))
    page = (tmp_path / "own" / "evaluation.html").read_text()
    for words in (
        "Beside published numbers",
        "pneumonia is labelled empty",
        "COVID-19 only",
        "second reader",
        "truth unknown",
    ):
        assert words not in page
    assert "Dice per image with infection" in page and "which images show one patient" in page.lower()
    assert [line for line in screen(content)[:4] if line.startswith("infected, per image: Dice .")]
    assert not any("COVID-19" in line for line in screen(content)[:4])


def contrast(stratum, name, value, low, high, first=0.5):
    return Contrast("new", stratum, name, first, first + value, Difference(value, low, high, 0.01, 50))


def test_a_comparison_says_what_is_better_and_worse_and_what_cannot_be_told():
    dice, clean = Name("infection", "dice", "image", "skip"), Name("image level", "specificity")
    rows = [
        contrast("COVID-19", dice, 0.03, 0.01, 0.05),
        contrast("Normal", dice, 0.0, 0.0, 0.0, first=0.0),  # nothing to overlap with: says nothing
        contrast("Normal", clean, 0.0, -0.1, 0.1),
        contrast("Non-COVID", clean, -0.2, -0.3, -0.1),
        contrast("all", clean, -0.1, -0.2, -0.05),
    ]
    [said] = verdicts(rows, "old")
    assert said == (
        "new beside old: better in COVID-19 Dice +0.030; worse in Non-COVID specificity -0.200; "
        "no clear difference in Normal specificity."
    )
    assert not worth_showing(rows[1]) and worth_showing(rows[2])


def test_an_error_that_grows_is_worse_and_a_measure_without_words_has_no_direction():
    error, unknown = Name("fraction", "mae"), Name("area", "area_error")
    row = contrast("all", error, 0.1, 0.05, 0.2)
    assert direction(row) == -1 and direction(replace(row, name=unknown)) == 0
    assert words_of(unknown) == "area area_error image"
