"""A search of another one's configurations, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna", reason="the search extra is not installed")

from covseg.errors import UsageError
from covseg.settings.search import SearchSettings
from tests.search.trivial import drive
from workers.search.driver import SearchHooks
from workers.search.records import read_trials
from workers.search.run import plan_of

OF_RAY = r"ignore::DeprecationWarning:ray\.data"


def settings(out: Path, **changes: object) -> SearchSettings:
    return SearchSettings.model_validate({"space": "fast-space", "data": "nowhere", "out": str(out)} | changes)


@pytest.mark.ray
@pytest.mark.filterwarnings(OF_RAY)
def test_a_list_that_was_recorded_is_tried_again_in_its_order_and_nothing_is_drawn(
    ray_cluster: str, tmp_path: Path
) -> None:
    first, second = settings(tmp_path / "first", trials=14), settings(tmp_path / "second", trials=99, pruning=False)
    second = second.model_copy(update={"like": first.out, "seed": 7})
    drive(first, SearchHooks())
    plan = plan_of(second)
    assert plan.count(99) == 14 and plan.count(5) == 5
    drive(second.model_copy(update={"trials": 14}), SearchHooks())
    one, other = read_trials(Path(first.out)), read_trials(Path(second.out))
    assert [trial.point for trial in one] == [trial.point for trial in other]
    assert [trial.epochs for trial in one] == [trial.epochs for trial in other]
    (tmp_path / "first" / "trials" / "0013" / "trial.json").unlink()
    with pytest.raises(UsageError, match="whose listed is"):
        drive(second, SearchHooks())
    with pytest.raises(UsageError, match=r"is of another space: parameter 1 is .* there"):
        plan_of(second.model_copy(update={"space": "accurate-space"}))


def test_what_holds_no_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no search"):
        plan_of(settings(tmp_path / "out", like=str(tmp_path)))
