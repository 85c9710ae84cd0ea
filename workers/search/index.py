"""Optuna's study of a search: an index, which the trials' folders make again when it is lost.

It lies in ``study.db``, which one driver writes, or on a PostgreSQL server (`Shared`), where several drivers of the
same folder do. Optuna lives here and in `workers.search.storage` and nowhere else. What is called on a study bears
being called twice: a server may go away between its work and its answer.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.exceptions import StorageInternalError
from optuna.importance import get_param_importances
from optuna.storages import RDBStorage
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState, create_trial

from covseg.errors import UsageError
from covseg.training.run_folder import differences, replace
from workers.search.parameters import Point
from workers.search.plan import SearchPlan, draw
from workers.search.records import WHOLE, TrialRecord, progress_of, read_trials
from workers.search.storage import INDEX, open_storage, patient, shown

NAME, SHARED = "search", "study.json"
RUNGS = {WHOLE // 9: 2, WHOLE // 3: 3}  # one in so many goes on; the first look is the noisiest
STATES = {
    "running": TrialState.RUNNING, "complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}  # fmt: skip
RANDOM = optuna.samplers.RandomSampler(seed=0)  # of a trial that begins; what it draws is sampled by its own number
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Halving(optuna.pruners.BasePruner):
    """Asynchronous successive halving on the reported values alone.

    At a ninth of its budget a trial goes on when it is in the best half of all that came so far, at a third when it is
    in the best third; the first always does. Optuna's own keeps its rungs in attributes of the trials, which an index
    that is made again from folders would not have.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Tell whether the newest report passed a rung and is not good enough there."""
        steps = sorted(trial.intermediate_values)
        before = steps[-2] if len(steps) > 1 else 0
        passed = [rung for rung in RUNGS if steps and before < rung <= steps[-1]]
        others = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        return any(not _promoted(trial, others, rung, RUNGS[rung]) for rung in passed)


def where(out: Path) -> str:
    """Return the URL of the storage that holds the study of the search in `out`, without a password."""
    path = out / SHARED
    return str(json.loads(path.read_text())["storage"]) if path.exists() else shown(None, out)


def _promoted(trial: FrozenTrial, others: Sequence[FrozenTrial], rung: int, reduction: int) -> bool:
    there = [value for one in others if (value := _at(one, rung)) is not None]
    own = _at(trial, rung)
    if own is None or own != own:
        return False
    better = sum(value > own for value in there)
    return better < max(1, (len(there) + 1) // reduction)


def _at(trial: FrozenTrial, rung: int) -> float | None:
    """Return what a trial had reached when it passed a rung."""
    return next((trial.intermediate_values[step] for step in sorted(trial.intermediate_values) if step >= rung), None)


@dataclass(frozen=True)
class Shared:
    """A study that several drivers share: the server's URL, the study's name, and what decides its trials."""

    url: str
    name: str
    search: Mapping[str, object]


class Stand(NamedTuple):
    """How many trials have begun, and the numbers of those that have not ended."""

    begun: int
    running: list[int]


class Index:
    """The study of the search in `out`; made of the folders where it is lost or lags behind them."""

    def __init__(
        self, out: Path, plan: SearchPlan, seed: int, metric: str, pruning: bool, shared: Shared | None = None
    ) -> None:
        self._out, self._plan, self._seed, self._metric, self._shared = out, plan, seed, metric, shared
        self._pruner = Halving() if pruning else optuna.pruners.NopPruner()
        self._storage: RDBStorage | None = None
        self._handles: dict[int, Trial] = {}  # of running trials: to make one looks at the whole study
        self._ids: dict[int, int] = {}  # in the storage, of trials by number
        records = read_trials(out)
        study = self._owned(shared) if shared else self._opened()
        if study is None or len(study.get_trials(deepcopy=False)) < len(records):
            study = self._made(records)
        self.study = study

    def _study(self) -> optuna.Study:
        shared = self._shared
        self.close()
        storage = open_storage(self._out, shared.url if shared else None)
        self._storage = storage
        return optuna.create_study(
            storage=storage, study_name=shared.name if shared else NAME, direction="maximize", pruner=self._pruner,
            load_if_exists=True,
        )  # fmt: skip

    def close(self) -> None:
        """Leave the storage."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()

    def _opened(self) -> optuna.Study | None:
        if not (self._out / INDEX).exists():
            return None
        try:
            study = self._study()
            study.get_trials(deepcopy=False)
        except Exception:  # noqa: BLE001 - a damaged file raises what its library likes; the folders have all of it
            return None
        return study

    @patient
    def _owned(self, shared: Shared) -> optuna.Study:
        """Open the study on the server, or make it this folder's; `UsageError` when it is another one's."""
        study = self._study()
        path, name = self._out / SHARED, shared.name
        folder = json.loads(path.read_text())["folder"] if path.exists() else secrets.token_hex(8)
        wanted = json.loads(json.dumps({"search": shared.search, "folder": folder}))
        there = study.user_attrs.get(NAME)
        if there is None and not study.get_trials(deepcopy=False):
            here = {"study": name, "folder": folder, "storage": shown(shared.url, self._out)}
            replace(path, lambda staged: staged.write_text(json.dumps(here)))
            study.set_user_attr(NAME, wanted)
            return study
        found = "no search of covseg"
        for field, theirs, ours in differences(there["search"], wanted["search"]) if there else ():
            found = f"a search whose {field} is {theirs!r}, here it is {ours!r}"
            break
        else:
            if there and there["folder"] == folder:
                return study
            found = "the same search in another folder" if there else found
        raise UsageError(
            f"the study {name!r} in --storage holds {found}: drive it from its own --out, or choose another --study"
        )

    @patient
    def _made(self, records: Sequence[TrialRecord]) -> optuna.Study:
        if self._shared:
            study = self._study()
            optuna.delete_study(study_name=self._shared.name, storage=study._storage)
        else:
            for left in self._out.glob(f"{INDEX}*"):
                left.unlink()
        study = self._owned(self._shared) if self._shared else self._study()
        for record in records:
            study.add_trial(self._frozen(record))
        return study

    def _frozen(self, record: TrialRecord) -> FrozenTrial:
        drawn = FixedTrial(dict(record.point))
        draw(self._plan.space, drawn)
        reported = {
            step: value for step, value in progress_of(self._out, record, self._metric).items() if value == value
        }
        trial = create_trial(
            state=STATES[record.state], value=record.value if record.state in ("complete", "pruned") else None,
            params=dict(record.point), distributions=drawn.distributions, intermediate_values=reported,
        )  # fmt: skip
        trial.datetime_start = trial.datetime_start or datetime.now(UTC).replace(tzinfo=None)
        return trial

    @patient
    def ask(self) -> int:
        """Begin the next trial, one of the plan's first points or one to be sampled; return its number."""
        first, trials = self._plan.first, self.study.get_trials(deepcopy=False)
        left = any(one.state is TrialState.WAITING for one in trials)  # by a driver that was killed before it began it
        if not left and len(trials) < len(first):
            self.study.enqueue_trial(dict(first[len(trials)]))
        self.study.sampler = RANDOM
        trial = self.study.ask()
        self._ids[trial.number] = trial._trial_id
        return trial.number

    @patient
    def stand(self) -> Stand:
        """Return how many trials have begun, and which of them run: one look at the study."""
        trials = self.study.get_trials(deepcopy=False)
        running = [one.number for one in trials if one.state is TrialState.RUNNING]
        return Stand(sum(one.state is not TrialState.WAITING for one in trials), running)

    @patient
    def point(self, number: int) -> Point:
        """Return what a running trial draws, the same however often: by the seed, its number and the trials before."""
        self.study.sampler = optuna.samplers.TPESampler(seed=hash((self._seed, number)) % 2**32)
        self._handles[number] = Trial(self.study, self._frozen_of(number)._trial_id)
        return draw(self._plan.space, self._handles[number])

    @patient
    def report(self, record: TrialRecord) -> None:
        """Report the epochs of a running trial's folder that were not reported yet."""
        trial = self._trial(record.number)
        known = self._frozen_of(record.number).intermediate_values
        for step, value in progress_of(self._out, record, self._metric).items():
            if step not in known and value == value:
                trial.report(value, step)

    @patient
    def lags(self, number: int) -> bool:
        """Tell whether a running trial should be stopped at its newest report."""
        return self._trial(number).should_prune()

    @patient
    def tell(self, record: TrialRecord) -> None:
        """End a trial as its record says; one that has ended stays as it is."""
        value = record.value if record.state == "complete" else None
        self.study.tell(record.number, value, state=STATES[record.state], skip_if_finished=True)
        self._handles.pop(record.number, None)

    def importances(self) -> dict[str, float]:
        """Return how much each parameter decided (PED-ANOVA), highest first; {} where too few trials tell."""
        too_few = (ValueError, RuntimeError, UserWarning)
        with contextlib.suppress(StorageInternalError, *too_few), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # that the best trials and all are the same ones
            return dict(get_param_importances(self.study))
        return {}

    def _trial(self, number: int) -> Trial:
        if number not in self._handles:
            self._handles[number] = Trial(self.study, self._frozen_of(number)._trial_id)
        return self._handles[number]

    def _frozen_of(self, number: int) -> FrozenTrial:
        if number not in self._ids:
            self._ids[number] = self.study.get_trials(deepcopy=False)[number]._trial_id
        return self.study._storage.get_trial(self._ids[number])
