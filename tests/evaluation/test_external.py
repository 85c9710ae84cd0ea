"""`covseg evaluate` beside readers' scores: the table that people fill in, the numbers, the files."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from covseg.data.scores import open_scores
from covseg.errors import Reason, SetRefused, Status, UsageError
from covseg.evaluation.external.agreement import compare
from covseg.evaluation.external.answers import Answers, raters
from covseg.evaluation.external.document import read_external
from covseg.evaluation.external.run import evaluate_scores
from covseg.evaluation.external.text import screen
from covseg.metrics.intervals import resamples
from covseg.metrics.score_agreement import spearman, yes_no
from covseg.records import Row
from covseg.settings.evaluate import EvaluateSettings
from covseg.storage import LocalStore
from covseg.synthetic.phantom.writer import write_images
from flows.cli.app import run as covseg


def table(root, text, names=("a.png", "b.png", "c.png", "d.png")):
    """A set whose images nobody decodes."""
    (root / "images").mkdir(exist_ok=True)
    for name in names:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).write_bytes(b"no image")
    (root / "scores.csv").write_text(text)
    return root


def row(key, fraction=None, extent=None, zones=None, presence=0.5, area=0, reason=None):
    cells = {} if reason else {"infection_probability": presence, "infected_area_px": area}
    cells |= {"infected_fraction": fraction, "extent_0_8": extent, "zones_extent_0_24": zones}
    return Row("id", key, "e", None, 1, reason.status if reason else Status.SCORED, reason, **cells)


def lines(root, rows, draws=100):
    found = compare(open_scores(root), Answers(rows), draws)
    return {(line.stratum, line.score, line.reader, line.found, line.metric): line for line in found}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=30))
def test_spearman_of_each_resample_is_scipys_of_the_images_that_were_drawn(pairs):
    x, y = np.array(pairs, float).T
    weights = np.vstack([np.ones(len(x)), *resamples(np.zeros(len(x), np.int64), 5, 1)])
    for drawn, value in zip(weights, spearman(x, y)(weights)[:, 0], strict=True):
        first, other = (np.repeat(column, drawn.astype(int)) for column in (x, y))
        if np.ptp(first) and np.ptp(other):
            assert value == pytest.approx(stats.spearmanr(first, other)[0], abs=1e-12)
        else:
            assert np.isnan(value)


def test_kappa_of_a_published_table():
    """Cohen's 2 x 2 of any textbook: 20 both yes, 5 and 10 apart, 15 both no: agreement .7, kappa .4."""
    first = np.repeat([True, True, False, False], [20, 5, 10, 15])
    other = np.repeat([True, False, True, False], [20, 5, 10, 15])
    assert yes_no(first, other)(np.ones((1, 50)))[0] == pytest.approx([0.7, 0.4])
    same = yes_no(first[:20], other[:20])(np.ones((1, 20)))[0]
    assert same[0] == 1 and np.isnan(same[1])  # nothing but yes: chance alone explains it


def test_bias_limits_and_error_of_known_differences(tmp_path):
    root = table(tmp_path, "image,extent\na.png,1\nb.png,3\nc.png,4\nd.png,8\n")
    found = [1, 4, 6, 7]  # differences 0, 1, 2, -1
    named = lines(root, [row(f"images/{key}.png", 0.1, value) for key, value in zip("abcd", found, strict=True)])
    numbers = {metric: line.value for (*_, metric), line in named.items()}
    spread = 1.96 * np.std([0, 1, 2, -1], ddof=1)
    assert numbers["bias"] == pytest.approx(0.5) and numbers["mae"] == pytest.approx(1.0)
    assert (numbers["limit_low"], numbers["limit_high"]) == pytest.approx((0.5 - spread, 0.5 + spread), abs=1e-5)
    assert numbers["pearson_r"] == pytest.approx(stats.pearsonr(found, [1, 3, 4, 8])[0], abs=1e-5)
    assert numbers["spearman_r"] == pytest.approx(1.0)
    assert {line.found for line in named.values()} == {"extent_0_8"} and {line.n for line in named.values()} == {4}
    assert all(line.low <= line.value <= line.high for line in named.values())


def test_readers_their_mean_and_each_other_are_compared_and_a_refused_image_is_in_no_number(tmp_path):
    cells = {"a": (0, 2), "b": (2, 4), "c": (5, 7), "d": (8, 8)}
    text = "image,reader,extent\n" + "".join(f"{key}.png,A,{a}\n{key}.png,B,{b}\n" for key, (a, b) in cells.items())
    root = table(tmp_path, text)
    rows = [row(f"images/{key}.png", 0.1, a) for key, (a, _) in list(cells.items())[:3]]
    rows.append(row("images/d.png", reason=Reason.NOT_FRONTAL_CHEST))
    named = lines(root, rows)
    bias = {(reader, found): line for (_, _, reader, found, metric), line in named.items() if metric == "bias"}
    assert {pair: (line.value, line.n) for pair, line in bias.items()} == {
        ("A", "extent_0_8"): (0.0, 3),
        ("B", "extent_0_8"): (-2.0, 3),
        ("mean", "extent_0_8"): (-1.0, 3),
        ("A", "B"): (2.0, 3),
    }


def test_a_mask_has_no_brixia_score_so_it_is_only_correlated_as_is_a_sites_own(tmp_path):
    root = table(tmp_path, "image,brixia,RALE\na.png,0,0\nb.png,4,10\nc.png,9,22\nd.png,18,48\n")
    values = zip("abcd", (0, 0.2, 0.5, 0.9), (0, 6, 12, 24), strict=True)
    named = lines(root, [row(f"images/{key}.png", fraction, 1, zones) for key, fraction, zones in values])
    assert {(score, found, metric) for (_, score, _, found, metric) in named} == {
        ("brixia", "zones_extent_0_24", "pearson_r"), ("brixia", "zones_extent_0_24", "spearman_r"),
        ("brixia", "infected_fraction", "pearson_r"), ("brixia", "infected_fraction", "spearman_r"),
        ("rale", "infected_fraction", "pearson_r"), ("rale", "infected_fraction", "spearman_r"),
    }  # fmt: skip
    assert named["all", "brixia", "reader", "infected_fraction", "spearman_r"].value == 1


def test_presence_is_judged_at_image_level_by_the_majority_and_a_refused_image_is_wrong(tmp_path):
    said = {"a": (1, 1, 1), "b": (1, 1, 0), "c": (0, 0, 0), "d": (0, 0, 1), "e": (1, 0, "")}
    text = "image,reader,present,fraction\n"
    for key, answers in said.items():
        text += "".join(f"{key}.png,{who},{yes},0\n" for who, yes in zip("ABC", answers, strict=True))
    root = table(tmp_path, text, [f"{key}.png" for key in said])
    scores = open_scores(root)
    np.testing.assert_array_equal(raters(scores, "present")["majority"], [1, 1, 0, 0, np.nan])
    rows = [row("images/a.png", 0.2, presence=0.9, area=5), row("images/b.png", reason=Reason.CORRUPT),
            row("images/c.png", 0.0, presence=0.1), row("images/d.png", 0.1, presence=0.95, area=5),
            row("images/e.png", 0.0, presence=0.1)]  # fmt: skip
    named = lines(root, rows)
    whole = {metric: line for (_, _, reader, _, metric), line in named.items() if reader == "majority"}
    assert {name: (line.value, line.n) for name, line in whole.items()} == {
        "sensitivity": (0.5, 2), "specificity": (0.5, 2), "auroc": (0.5, 3),
    }  # fmt: skip
    assert named["all", "present", "A", "B", "agreement"].n == 4  # b was refused


def test_each_stratum_has_its_own_lines_and_three_images_at_least(tmp_path):
    root = table(tmp_path, "image,stratum,fraction\na.png,ward,0\nb.png,ward,.1\nc.png,ward,.3\nd.png,icu,.9\n")
    named = lines(
        root, [row(f"images/{key}.png", value) for key, value in zip("dabc", (0.8, 0, 0.1, 0.4), strict=True)]
    )
    assert named["ward", "fraction", "reader", "infected_fraction", "mae"].n == 3
    alone = named["icu", "fraction", "reader", "infected_fraction", "mae"]
    assert alone.n == 1 and np.isnan(alone.value)


def test_an_image_is_named_by_its_path_or_its_file_name_and_a_spreadsheets_habits_are_read(tmp_path):
    text = "\ufeffImage;Reader;Fraction\r\nx/a.png;A;0,25\r\nb.png; A ;0,5\r\n;;\r\n"
    scores = open_scores(table(tmp_path, text, ("x/a.png", "y/b.png")))
    assert [image.key for image in scores.images.images] == ["images/x/a.png", "images/y/b.png"]
    assert scores.values("fraction", "A").tolist() == [0.25, 0.5]


GOOD = "image,reader,extent\na.png,A,1\nb.png,A,2\nc.png,A,3\nd.png,A,4\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("d.png,A,4", "ghost.png,A,4", r"line 5, column image: no file 'ghost.png' under images/"),
        ("d.png,A,4\n", "", r"images/d.png has no row in .*scores.csv \(1 of 4 images\)"),
        ("A,4", "A,much", r"line 5, column extent: 'much' is no number"),
        ("A,4", "A,nan", r"line 5, column extent: 'nan' is no number"),
        ("A,4", "A,9", r"line 5, column extent: 9 is out of range: wanted 0 to 8"),
        ("A,4", "A,", r"line 5, column extent: no score in this row"),
        ("d.png,A,4", "d.png,A,4\na.png,A,1", r"line 6, column image: a.png was scored by A above"),
        ("A,4", ",4", r"line 5, column reader: empty"),
        ("A,4", "mean,4", r"line 5, column reader: 'mean' stands for something else"),
        ("A,4", "A", r"line 5: 2 cells; wanted 3"),
        ("extent", "present", r"line 3, column present: 2 is out of range"),
        ("extent", "fraction", r"line 3, column fraction: 2 is out of range: wanted 0 to 1; a percentage"),
        (",extent", ",image", r"two columns image"),
        ("image", "file", r"has columns file, reader, extent: wanted image and a score"),
        (GOOD.partition("\n")[2], "", r"has no row"),
        ("A,1", "A,0.5\nnested/a.png,A,1", r"line 3, column image: no file 'nested/a.png'"),
    ],
)
def test_what_is_wrong_in_the_table_is_named_by_line_and_column(tmp_path, old, new, words):
    with pytest.raises(UsageError, match=words):
        open_scores(table(tmp_path, GOOD.replace(old, new)))


def test_a_file_name_that_is_there_twice_wants_its_path(tmp_path):
    with pytest.raises(SetRefused, match=r"line 2, column image: 'a.png' is images/x/a.png and images/y/a.png"):
        open_scores(table(tmp_path, "image,extent\na.png,1\n", ("x/a.png", "y/a.png")))


def test_an_image_has_one_stratum_and_the_set_no_splits_and_no_masks(tmp_path):
    text = "image,reader,stratum,extent\na.png,A,icu,1\na.png,B,ward,1\n"
    with pytest.raises(SetRefused, match=r"line 3, column stratum: ward, but icu above for a\.png"):
        open_scores(table(tmp_path, text, ("a.png",)))
    with pytest.raises(UsageError, match="no split 'Test'"):
        open_scores(tmp_path, "Test")
    (tmp_path / "labels.csv").touch()
    with pytest.raises(UsageError, match=r"holds labels.csv and scores.csv"):
        open_scores(tmp_path)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """12 drawn images, one that is no radiograph, and two readers: A reads the truth, B a step more on the odd ones."""
    root = tmp_path_factory.mktemp("site")
    rows = ["image,reader,stratum,fraction,extent,present"]
    for number, phantom in enumerate(write_images(LocalStore(root), range(12), (256, 256))):
        name, share = f"phantom-{number:04d}.png", phantom.infected_fractions["total"]
        stratum = "ward" if number % 3 else "icu"
        for reader, step in (("A", 0), ("B", number % 2)):
            extent = min(8, round(8 * share) + step)
            rows.append(f"{name},{reader},{stratum},{share:.4f},{extent},{int(share > 0)}")
    (root / "images" / "text.png").write_text("no image")
    rows.append("text.png,A,ward,0,0,0")
    (root / "scores.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def evaluation(site, tmp_path_factory):
    output = tmp_path_factory.mktemp("external")
    return output, evaluate_scores(EvaluateSettings(data=site, output=output, draws=200))


def test_the_record_is_read_back_as_it_was_written_and_strictly(evaluation):
    output, content = evaluation
    written = json.loads((output / "external.json").read_text())
    assert written == content.model_dump(mode="json") == read_external(output).model_dump(mode="json")
    assert written["schema"] == 1 and written["intended_use"].startswith("Research use only")
    for changed in (written | {"more": 1}, written | {"schema": 2}):
        (output / "other").mkdir(exist_ok=True)
        (output / "other" / "external.json").write_text(json.dumps(changed))
        with pytest.raises(UsageError, match="run covseg evaluate"):
            read_external(output / "other")
    shutil.rmtree(output / "other")
    with pytest.raises(UsageError, match=r"no external.json"):
        read_external(output / "images")


def test_the_refused_image_is_counted_and_said(evaluation):
    _, content = evaluation
    assert content.data.refused == {"ward": {"not_an_image": 1}} and content.data.images == 13
    assert "1 of 13 images were refused and have no number: not_an_image 1" in content.warnings
    assert "not everybody scored all 13 images: B 12" in content.warnings
    assert {line.n for line in content.lines if (line.stratum, line.metric) == ("all", "bias")} == {12}


def test_the_table_has_one_row_an_image_and_the_numbers_follow_from_it(evaluation, site):
    output, content = evaluation
    rows = pq.read_table(output / "scores.parquet").to_pylist()
    assert [row["key"] for row in rows] == [image.key for image in open_scores(site).images.images]
    assert len(rows) == 13 and sum(row["reason"] is not None for row in rows) == 1
    known = [row for row in rows if row["reason"] is None]
    gaps = [row["infected_fraction"] - row["fraction:A"] for row in known]
    assert content.line("all", "fraction", "A", "infected_fraction", "bias").value == pytest.approx(
        np.mean(gaps), abs=1e-5
    )
    pair = [row["extent_0_8"] for row in known], [row["extent:mean"] for row in known]
    spear = content.line("all", "extent", "mean", "extent_0_8", "spearman_r")
    assert spear.value == pytest.approx(stats.spearmanr(*pair)[0], abs=1e-5)
    between = content.line("all", "extent", "A", "B", "bias")
    assert between.value == pytest.approx(np.mean([row["extent:B"] - row["extent:A"] for row in known]), abs=1e-5)


def test_the_page_names_nothing_outside_and_the_screen_fits(evaluation):
    output, content = evaluation
    page = html.unescape((output / "external.html").read_text())
    bare = re.sub(r"data:[a-z/+]+;base64,[A-Za-z0-9+/=]+", "", page)
    assert "http:" not in bare and "https:" not in bare and "<script" not in bare
    assert "default-src 'none'" in page and "Research use only" in page
    assert "Bland-Altman plot" in page and "Scatter plot" in page and "images/text.png" in page
    lines = screen(content)
    assert len(lines) <= 40 and max(map(len, lines)) <= 120
    assert "phantom" not in "\n".join(lines)  # the screen also stands in Prefect


def test_the_command_evaluates_scores_with_any_model_and_refuses_before_the_first_image(site, tmp_path, capsys):
    flags = ["--data", str(site), "--draws", "100", "--limit", "6", "--strata", "icu"]
    assert covseg(["evaluate", "default", *flags, "-o", str(tmp_path / "out")]) == 0
    assert "extent: geographic extent" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"external.json", "external.html", "scores.parquet"}
    assert covseg(["evaluate", *flags, "-o", str(tmp_path / "again"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["counts"] == {"icu": 4}
    assert covseg(["evaluate", *flags, "--lung", "truth"]) == 2
    assert "leave --lung out" in capsys.readouterr().err
    (tmp_path / "bare" / "images").mkdir(parents=True)
    assert covseg(["evaluate", "--data", str(tmp_path / "bare")]) == 2
    assert "images/ and scores.csv" in capsys.readouterr().err


def test_the_guides_commands_run_word_for_word(tmp_path):
    """Every shell block of the page, in one folder, one after the other."""
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs/how-to/validate-on-your-own-images.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    command = tmp_path / "bin" / "covseg"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m flows.cli "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(root)}
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    for name in ("site-evaluation", "site-default", "site-benchmark"):
        content = read_external(tmp_path / name)
        assert content.data.images == 24 and content.data.readers == {"A": 24, "B": 24}
        assert content.line("all", "fraction", "A", "B", "pearson_r").value > 0.95
        assert max(map(len, screen(content))) <= 120
