"""Two scored destinations beside each other: what is counted, shown and refused."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covseg import table
from covseg.archive import write_table
from covseg.difference import compare, draw_changed, render_difference
from covseg.difference.join import BINS
from covseg.difference.records import Difference
from covseg.errors import Reason, Status, UsageError
from covseg.records import RESEARCH_ONLY, Row
from covseg.stages.severity import GRADES, step
from covseg.storage import LocalStore, MemoryStore
from flows.cli import app as cli
from tests.archives import images, make_run, score

Made = dict[int, float | Reason | None]  # image: its fraction, None without a lung, or why it was refused


def row(number: int, found: float | Reason | None, model: str = "one") -> Row:
    same = Row(f"{number:032x}", f"patient-{number}.png", "etag", "sha", 10, Status.SCORED, model_id=model)
    if isinstance(found, Reason):
        return replace(same, status=found.status, reason=found)
    return same if found is None else replace(same, infected_fraction=found, grade=GRADES[step(found)])


def store(made: Made, name: str = "before") -> MemoryStore:
    rows = [row(number, found, name) for number, found in made.items()]
    return MemoryStore({"severity.parquet": table.to_parquet(table.to_arrow(rows))}, name)


BEFORE: Made = {1: 0.0, 2: 0.3, 3: 0.8, 4: None, 5: Reason.EMPTY, 6: 0.1, 7: Reason.CORRUPT, 8: 0.5, 9: Reason.EMPTY}
AFTER: Made = {
    1: 0.0,
    2: 0.1,
    3: 0.9,
    4: 0.2,
    5: 0.4,
    6: Reason.NOT_FRONTAL_CHEST,
    7: Reason.TRUNCATED,
    10: 0.2,
    9: Reason.EMPTY,
}


@pytest.fixture(scope="module")
def known() -> Difference:
    return compare(store(BEFORE), store(AFTER, "after"))


def test_images_are_joined_and_counted(known: Difference) -> None:
    assert (known.common, known.gone, known.new) == (8, 1, 1)
    assert (known.same, known.newly_refused, known.newly_scored) == (2, 1, 1)  # the same: 1 and 9
    assert known.before.models == ("before",) and known.after.models == ("after",)
    assert known.before.statuses == {"quarantined": 3, "scored": 6}


def test_grades_make_a_matrix_of_images_scored_on_both_sides(known: Difference) -> None:
    grades = {(cell.before, cell.after): cell.images for cell in known.grades}
    assert grades == {
        ("none", "none"): 1, ("moderate", "mild"): 1, ("critical", "critical"): 1, ("no lung", "mild"): 1,
    }  # fmt: skip


def test_refusals_that_changed_are_counted_by_reason(known: Difference) -> None:
    refusals = {(cell.before, cell.after): cell.images for cell in known.refusals}
    assert refusals == {("empty", "scored"): 1, ("scored", "not_frontal_chest"): 1, ("corrupt", "truncated"): 1}


def test_fractions_differ_by_what_they_differ_by(known: Difference) -> None:
    assert known.fractions.images == 3
    assert known.fractions.mean == pytest.approx((0 - 0.2 + 0.1) / 3, abs=1e-6)
    assert known.fractions.mean_absolute == pytest.approx(0.1, abs=1e-6)
    assert [(one.input_id, one.before, one.after) for one in known.changed] == [
        (f"{2:032x}", 0.3, 0.1), (f"{3:032x}", 0.8, 0.9),
    ]  # fmt: skip
    assert known.changed[0].grade_before == "moderate"


fraction = st.one_of(st.none(), st.floats(0, 1).map(lambda value: round(value, 6)), st.sampled_from([*Reason]))


@given(st.dictionaries(st.integers(0, 30), st.tuples(fraction, fraction), min_size=1))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_what_duckdb_counts_is_what_a_plain_loop_counts(both: dict[int, tuple[float | Reason | None, ...]]) -> None:
    found = compare(
        store({n: pair[0] for n, pair in both.items()}), store({n: pair[1] for n, pair in both.items()}, "b")
    )
    pairs = [(row(0, before), row(0, after)) for before, after in both.values()]
    scored = [pair for pair in pairs if pair[0].status == pair[1].status == Status.SCORED]
    grades = Counter((before.grade or "no lung", after.grade or "no lung") for before, after in scored)
    assert {(cell.before, cell.after): cell.images for cell in found.grades} == grades
    numbers = [
        (before.infected_fraction, after.infected_fraction)
        for before, after in pairs
        if before.infected_fraction is not None and after.infected_fraction is not None
    ]
    assert found.fractions.images == len(numbers) == sum(one.images for one in found.bins)
    assert all(0 <= one.before < BINS and 0 <= one.after < BINS for one in found.bins)
    if numbers:
        assert found.fractions.mean_absolute == pytest.approx(np.abs(np.diff(numbers)).mean(), abs=2e-6)
    lost = sum(before.status == Status.SCORED != after.status for before, after in pairs)
    assert found.newly_refused == lost
    assert b"difference" in render_difference(found)


def test_the_page_is_offline_and_names_no_source_file(known: Difference) -> None:
    page = render_difference(known).decode()
    assert RESEARCH_ONLY in page and "default-src &#39;none&#39;" in page
    assert "patient-" not in page and not re.search(r"(src|href)=[\"']?(?!data:|#)", page)
    assert " style=" not in page  # the policy would drop it
    assert page == render_difference(known).decode()
    assert f"{2:032x}" in page and "-20.0" in page


def test_the_order_of_rows_moves_nothing() -> None:
    turned = dict(reversed(AFTER.items()))
    assert compare(store(BEFORE), store(AFTER, "after")) == compare(store(BEFORE), store(turned, "after"))


def folder(path: Path, made: Made, name: str) -> str:
    LocalStore(path / name).write("severity.parquet", store(made, name).objects["severity.parquet"])
    return str(path / name)


def test_the_command_leaves_page_and_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, out = folder(tmp_path, BEFORE, "a"), folder(tmp_path, AFTER, "b"), tmp_path / "out"
    assert cli.run(["diff", before, after, "-o", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == json.loads((out / "difference.json").read_text())
    assert answer["intended_use"] == RESEARCH_ONLY and answer["common"] == 8
    assert Difference.decode((out / "difference.json").read_bytes(), "it").newly_refused == 1
    assert "What changed from a to b" in (out / "difference.html").read_text()
    assert cli.run(["diff", before, after, "-o", str(out)]) == 0
    assert "in both 8, the same 2, newly refused 1, newly scored 1, gone 1, new 1" in capsys.readouterr().out


def test_what_is_no_destination_or_none_of_the_same_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = folder(tmp_path, BEFORE, "good")
    other = folder(tmp_path, {77: 0.5}, "other")
    broken, foreign, twice = (tmp_path / name for name in ("broken", "foreign", "twice"))
    LocalStore(broken).write("severity.parquet", b"no table")
    LocalStore(foreign).write("severity.parquet", table.to_parquet(table.to_arrow([]).select(["key", "status"])))
    repeated = table.to_parquet(table.to_arrow([row(1, 0.5), row(1, 0.5)]))
    LocalStore(twice).write("severity.parquet", repeated)
    for wrong, said in (
        (str(tmp_path / "nowhere"), "has no severity.parquet: wanted the -o of covseg predict"),
        (str(broken), "is no table of covseg's: "),
        (str(foreign), "it lacks input_id, reason, grade"),
        (str(twice), "has 2 rows for 1 images"),
        (other, "no image of "),
        (good, "is given twice"),
    ):
        assert cli.run(["diff", good, wrong, "-o", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(UsageError, match="project key"):
        compare(store(BEFORE), store({77: 0.5}, "other"))
    assert not (tmp_path / "out").exists()


def shown(page: bytes) -> list[np.ndarray]:
    """The pictures of a page, in order."""
    found = re.findall(rb"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR) for one in found]


def test_the_images_that_changed_most_are_drawn_from_what_lies_there(known: Difference) -> None:
    before, after = store(BEFORE), store(AFTER, "after")
    assert draw_changed(known, before, after) == []  # neither side keeps anything of them
    first, second = (one.input_id for one in known.changed[:2])
    labels = np.zeros((640, 320), np.uint8)
    labels[100:200, 100:200], labels[300:400, 100:200] = 1, 2
    before.write(f"masks/{first}-0123.png", cv2.imencode(".png", labels)[1].tobytes())  # as a destination names it
    grey = np.full((64, 64), 200, np.uint8)
    after.write(f"overlays/{first}.jpg", cv2.imencode(".jpg", grey)[1].tobytes())  # as predict does
    after.write(f"masks/{first}.png", b"not looked at: there is an overlay")
    after.write(f"masks/{second}.png", b"damaged")
    pairs = draw_changed(known, before, after)
    assert [pair.changed.input_id for pair in pairs] == [first]
    drawn, overlay = shown(render_difference(known, pairs))
    assert drawn.shape == (320, 160, 3) and overlay.shape == (64, 64, 3)
    blue, _, red = drawn[175, 75].astype(int)
    assert red > blue + 150 and drawn[75, 75].astype(int)[0] > drawn[75, 75].astype(int)[2] + 30  # mark, then lung
    assert drawn[10, 10].max() < 20 and overlay[30, 30].min() > 180


def test_a_table_that_names_no_id_asks_no_store_for_it(known: Difference) -> None:
    hostile = known.changed[0].model_copy(update={"input_id": "../../run"})
    asked = known.model_copy(update={"changed": (hostile,)})
    assert draw_changed(asked, store(BEFORE), store(AFTER, "after")) == []


def test_an_older_snapshot_is_made_again_and_compared_with_the_newest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest, source = LocalStore(tmp_path / "scored"), MemoryStore(images(5) | {"z.txt": b"text"}, "source")
    run = make_run(dest)
    score(run, source)
    first = dest.read("severity.parquet")
    source.write("new.png", b"new")
    score(run, source)
    write_table(run, 1, tmp_path / "first.parquet")
    assert (tmp_path / "first.parquet").read_bytes() == first != dest.read("severity.parquet")
    words = ["diff", str(dest.root), str(dest.root), "-o", str(tmp_path / "out")]
    assert cli.run([*words, "--snapshot", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["common"], answer["same"], answer["new"], answer["gone"]) == (6, 6, 1, 0)
    assert answer["before"]["snapshot"] == 1 and "snapshot" not in answer["after"]
    assert "What changed from snapshot 1 of scored to scored" in (tmp_path / "out" / "difference.html").read_text()
    assert cli.run([*words, "--snapshot", "3"]) == 2
    assert "has no snapshot 3" in capsys.readouterr().err
    assert cli.run(words) == 2
    assert "or --snapshot" in capsys.readouterr().err
