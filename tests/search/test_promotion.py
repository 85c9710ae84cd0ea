"""Finalists of a search: who they are, how they are compared, and one promotion on phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch")
pytest.importorskip("albumentations", reason="the train extra is not installed")
pytest.importorskip("optuna", reason="the search extra is not installed")

from covseg.errors import UsageError
from covseg.evaluation.conditions import SCHEMA
from covseg.evaluation.records import Measured
from covseg.registry import open_model
from covseg.settings.search import SearchSettings
from covseg.training.job import TrainingJob
from covseg.training.shifted import CHOSEN_BY
from tests.search.test_search_ray import FEW, OF_RAY, settings
from workers.search.contest import PARTS, Contestant, Promotion, _difference, _of_conditions
from workers.search.driver import SearchHooks
from workers.search.finalists import UNSEEN, finalists_of, runs_of
from workers.search.promotion import _same, read_promotion
from workers.search.records import TrialRecord
from workers.search.run import plan_of, result_of, run


def test_the_finalists_are_the_recipe_and_the_best_complete_trials_at_the_full_budget_with_new_seeds() -> None:
    plan = plan_of(SearchSettings(space="unet-small-sweeps", data="nowhere", out="nowhere", budget=0.2))
    states = ["complete", "complete", "pruned", "complete", "complete"]
    values = [0.9, 0.5, 0.8, 0.7, 0.7]
    records = [
        TrialRecord(number=number, state=state, point=point, value=value, epochs=1, gflop=1.0)  # type: ignore[arg-type]
        for number, (state, value, point) in enumerate(zip(states, values, plan.first, strict=False))
    ]
    found = finalists_of(plan, records, 2)
    assert [one.name for one in found] == ["recipe", "trial-0003", "trial-0004"], "trial 0 is the recipe itself"
    assert [one.recipe.stop.epochs for one in found] == [30, 30, 20], "the last one's are drawn"
    runs = runs_of(found, TrainingJob("data", Path("out")), 2)
    seeds = [one.recipe.seed for one in runs]
    assert seeds == [plan.base.seed + 1] * 3 + [plan.base.seed + 2] * 3
    assert str(runs[1].job.out) == f"out/finalists/trial-0003/seed-{plan.base.seed + 1}"


def by_image(values: np.ndarray) -> dict[str, float]:
    return {f"{place}.png": float(value) for place, value in enumerate(values)}


def test_a_difference_is_paired_by_image_over_those_that_both_have() -> None:
    base = np.linspace(0, 1, 50)
    found = _difference(by_image(base + 0.01), dict(reversed(by_image(base).items())))
    assert found and (found.value, found.low, found.high, found.n) == pytest.approx((0.01, 0.01, 0.01, 50))
    found = _difference(by_image(base[::-1]), by_image(base[5:45]))
    assert found and found.low < 0 < found.high and found.n == 40
    assert _difference({}, by_image(base)) is None


def answer(key: str, condition: str, tp: int, fn: int, reason: str = "") -> dict[str, object]:
    empty = {"lung_tp": 0, "lung_fp": 0, "lung_fn": 0, "presence": 0.5, "fraction": 0.0, "fraction_truth": 0.0}
    row = {"key": key, "stratum": "COVID-19", "condition": condition, "reason": reason, "flagged": False}
    return row | {"tp": tp, "fp": 0, "fn": fn, "doubt": 0.0, "agreement": 1.0} | empty


def test_a_shifted_image_counts_once_and_one_that_was_refused_has_missed_its_truth() -> None:
    seen, other = CHOSEN_BY[:2]
    rows = [
        answer("a", seen, 10, 0), answer("a", other, 0, 10), answer("b", seen, 0, 5, "no_lung"),
        answer("c", seen, 0, 0), answer("a", UNSEEN[0], 10, 0), answer("b", "real size 1", 10, 0),
        answer("b", "real size 2", 10, 20), answer("a", "as it is", 3, 4),
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    found = {name: _of_conditions(table, wanted) for name, wanted in PARTS.items()}
    assert found == {"shifted": {"a": 0.5, "b": 0.0}, "unseen": {"a": 1.0}, "twins": {"b": 0.75}}


def test_a_finalist_that_gains_on_val_and_loses_under_shifts_has_not_won() -> None:
    up, down = Measured(value=0.02, low=0.01, high=0.03, n=9), Measured(value=-0.02, low=-0.03, high=-0.01, n=9)
    even = Measured(value=0.01, low=-0.01, high=0.03, n=9)
    given = {"name": "trial-0001", "changed": (), "gflop": 1.0, "seeds": (2,), "dice": (0.5,), "specificity": 1.0}
    given |= {"shifted": 0.5, "unseen": 0.5, "twins": 0.5}
    for differences, won in (
        ({"dice": up, "shifted": even}, True),
        ({"dice": even, "shifted": up}, False),
        ({"dice": up, "twins": down}, False),
        ({}, False),
    ):
        one = Contestant.model_validate(given | {"differences": differences})
        assert one.won is won and bool(one.lost) is ("twins" in differences)


def test_what_was_registered_is_not_registered_again_where_nothing_changed() -> None:
    one = Contestant(
        name="recipe", changed=(), gflop=1.0, seeds=(2,), dice=(0.1 + 0.2,), specificity=1.0, shifted=0.5, unseen=0.4,
        twins=float("nan"),
    )  # fmt: skip
    found = Promotion(contestants=(one,), best="recipe", won=False, verdict="-", run="-")
    before = Promotion.model_validate_json(found.model_copy(update={"registered": "here"}).model_dump_json())
    assert _same(before, found)
    assert not _same(before, found.model_copy(update={"won": True}))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings(OF_RAY)
def test_a_search_that_promotes_compares_registers_and_says_so(
    ray_cluster: str,
    space: Path,
    labelled: Path,
    tmp_path: Path,
) -> None:
    changes = {"trials": 2, "pruning": False, "limit": FEW, "promote": 1, "promote_seeds": 2}
    given = settings(space, labelled, registry=str(tmp_path / "registry"), name="searched", **changes)
    with pytest.raises(UsageError, match="name"):
        run(given.model_copy(update={"name": "no name"}))
    notes: list[str] = []
    result = run(given, SearchHooks(note=notes.append))
    assert notes[:2] == ["finalist recipe, seed 2 begins", "finalist trial-0001, seed 2 begins"]
    out = Path(given.out)
    found = read_promotion(out)
    assert found and [one.name for one in found.contestants] == ["recipe", "trial-0001"]
    assert all(one.seeds == (2, 3) and len(one.dice) == 2 for one in found.contestants)
    recipe, other = found.contestants
    assert set(other.differences) == {"dice", "shifted", "unseen"} and not recipe.differences
    assert len({gap.n for gap in other.differences.values()}) == 1, "the same images"
    assert ("does not beat" in found.verdict) == (not found.won) and "Test was not used" in found.verdict
    page = (out / "search.html").read_text()
    assert "The finalists" in page and found.verdict in page
    assert found.registered == f"{tmp_path / 'registry'}/searched@v1" == result.registered
    model = open_model(f"{tmp_path / 'registry'}/searched@candidate")
    assert model.config.training["search"]["space"] == "a test" and model.config.training["search"]["trials"] == 2
    card = (model.path / "card.md").read_text()
    assert ("Test was not used" in card and "training.search" in card) or "search.id" in card
    assert model.config.input_filter is not None
    assert set(CHOSEN_BY) & set(UNSEEN) == set()
    notes.clear()
    again = run(given, SearchHooks(note=notes.append))
    assert again == result == result_of(out)[0] and not notes, "all is done: nothing is trained, judged or made twice"
