"""The study on a real PostgreSQL server: what is refused, who drives, and that a killed server loses nothing."""

from __future__ import annotations

import contextlib
import csv
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna", reason="the search extra is not installed")
pytest.importorskip("psycopg", reason="the search-postgresql extra is not installed")

from covseg.errors import UsageError
from covseg.settings.search import SearchSettings
from tests.search.postgresql import PASSWORD, Server
from workers.search.index import Index, Shared
from workers.search.leases import claim, lease, turn
from workers.search.plan import METRIC
from workers.search.records import TrialRecord, trial_folder, write_trial
from workers.search.run import plan_of, run, search_of
from workers.search.storage import check_storage, has_password, shown

pytestmark = pytest.mark.service
VALUES = [0.5, 0.6, 0.4, 0.7, 0.55]
SPACE = """title = "a test"
recipe = "unet-small"
[[parameter]]
kind = "log"
field = "optimiser.lr"
low = 1e-4
high = 1e-1
"""


OPENED: list[Index] = []


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.remove()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def settings(out: Path, **changes: object) -> SearchSettings:
    given = {"space": "unet-small-sweeps", "data": "nowhere", "out": str(out)} | changes
    return SearchSettings.model_validate(given)


def index(server: Server, out: Path, name: str, **changes: object) -> Index:
    given = settings(out, **changes)
    out.mkdir(exist_ok=True)
    plan = plan_of(given)
    OPENED.append(Index(out, plan, 1, METRIC, pruning=True, shared=Shared(server.url, name, search_of(given, plan))))
    return OPENED[-1]


def end_one(index: Index, out: Path, value: float) -> int:
    """Do what a driver does of one trial."""
    number = index.ask()
    point = index.point(number)
    record = TrialRecord(number=number, state="running", point=point, epochs=2, gflop=1.0)
    write_trial(out, record, plan_of(settings(out)).at(point))
    with (trial_folder(out, number) / "metrics.csv").open("w") as file:
        csv.writer(file).writerows([["epoch", METRIC], [1, value / 2], [2, value]])
    index.report(record)
    record = record.model_copy(update={"state": "complete", "value": value})
    write_trial(out, record)
    index.tell(record)
    return number


def kept(index: Index) -> list[tuple[object, ...]]:
    trials = index.study.get_trials()
    return [(one.number, one.state, one.params, one.value, one.intermediate_values) for one in trials]


def test_a_storage_that_cannot_be_used_is_refused_before_anything_is_made(server: Server, tmp_path: Path) -> None:
    out, place = tmp_path / "out", f"127.0.0.1:{server.port}"
    for wrong, words in (
        (f"postgresql://searcher:{PASSWORD}@127.0.0.1:1/postgres", "cannot be reached: .*refused"),
        (f"postgresql://searcher:{PASSWORD}x@{place}/postgres", "cannot be reached: .*authentication failed"),
        (f"postgresql://searcher:{PASSWORD}@{place}/nothing", 'cannot be reached: .*"nothing" does not exist'),
        ("sqlite:///here.db", "wanted postgresql://"),
        ("no url", "is no URL"),
        (f"postgresql+asyncpg://searcher:{PASSWORD}@{place}/postgres", "wanted postgresql://"),
    ):
        with pytest.raises(UsageError, match=words) as refused:
            run(settings(out, storage=wrong))
        assert PASSWORD not in str(refused.value) and not refused.value.__cause__
    assert not out.exists()
    check_storage(server.url)
    assert shown(server.url, out) == f"postgresql://searcher:***@{place}/postgres"
    assert has_password(server.url) and not has_password("postgresql://searcher@host/postgres")


def test_another_search_or_folder_under_the_same_name_is_refused_with_the_difference(
    server: Server, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = index(server, out, "one")
    end_one(first, out, 0.5)
    assert kept(index(server, out, "one")) == kept(first), "the same search in the same folder goes on"
    with pytest.raises(UsageError, match=r"'one' .* a search whose budget is 1\.0, here it is 2\.0"):
        index(server, tmp_path / "other", "one", budget=2.0)
    with pytest.raises(UsageError, match="the same search in another folder"):
        index(server, tmp_path / "other", "one")
    assert not list((tmp_path / "other").iterdir())


def test_a_study_that_is_deleted_is_made_of_the_folders_and_equal(server: Server, tmp_path: Path) -> None:
    import optuna

    out = tmp_path / "out"
    first = index(server, out, "lost")
    assert [end_one(first, out, value) for value in VALUES] == list(range(len(VALUES)))
    before = kept(first)
    optuna.delete_study(study_name="lost", storage=first.study._storage)
    assert kept(index(server, out, "lost")) == before
    assert kept(Index(out, plan_of(settings(out)), 1, METRIC, pruning=True)) == before, "in SQLite too"


def test_two_who_ask_at_once_while_the_server_is_killed_twice_lose_and_double_nothing(
    server: Server, tmp_path: Path
) -> None:
    out, numbers, errors = tmp_path / "out", list[int](), list[Exception]()
    many = 40
    index(server, out, "killed")

    def drive() -> None:
        try:
            with contextlib.closing(index(server, out, "killed")) as own:
                while True:
                    with turn(out):  # beginning a trial is one step of a driver
                        if own.stand().begun >= many:
                            return
                        numbers.append(end_one(own, out, 0.5))
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)

    drivers = [threading.Thread(target=drive) for _ in range(2)]
    for thread in drivers:
        thread.start()
    for at in (8, 24):
        while len(numbers) < at and not errors:
            time.sleep(0.01)
        server.kill()
        time.sleep(0.3)
        server.start()
    for thread in drivers:
        thread.join(timeout=120)
    assert not errors
    assert len(set(numbers)) == len(numbers)
    after = index(server, out, "killed")
    trials = after.study.get_trials()
    assert [trial.number for trial in trials] == list(range(many))
    orphans = set(after.stand().running)
    assert set(numbers) | orphans == set(range(many)), "one that was begun without an answer is left to be taken over"
    assert all(trial.value == 0.5 for trial in trials if trial.number not in orphans)


def test_a_trial_has_one_driver_and_a_folder_without_storage_too(tmp_path: Path) -> None:
    held, other = claim(tmp_path, 3), claim(tmp_path, 4)
    assert held and other and claim(tmp_path, 3) is None
    held.close()
    again = claim(tmp_path, 3)
    assert again, "given back with its driver"
    again.close()
    other.close()
    refused = "one driver a search, unless all have the same --storage"
    with lease(tmp_path, True), lease(tmp_path, True), pytest.raises(UsageError, match=refused), lease(tmp_path):
        pass
    with lease(tmp_path), pytest.raises(UsageError, match=refused), lease(tmp_path, shared=True):
        pass


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.data")
def test_two_drivers_share_a_study_through_kills_of_the_server_and_of_a_driver(
    server: Server, ray_cluster: str, tmp_path: Path
) -> None:
    from workers.search.records import read_trials

    (tmp_path / "space.toml").write_text(SPACE)
    given = settings(tmp_path / "out", space=str(tmp_path / "space.toml"), storage=server.url, trials=40, pruning=False)
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "tests.search.trivial", given.model_dump_json(), "0.3"]
    drivers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    def await_trials(count: int) -> None:
        deadline = time.monotonic() + 120
        while len(read_trials(tmp_path / "out")) < count:
            assert time.monotonic() < deadline and any(driver.poll() is None for driver in drivers)
            time.sleep(0.05)

    await_trials(8)
    server.kill()
    time.sleep(1)
    server.start()
    await_trials(16)
    drivers[2].kill()
    told = [[int(line) for line in driver.communicate(timeout=200)[0].split()] for driver in drivers]
    assert [driver.returncode for driver in drivers[:2]] == [0, 0]
    records = read_trials(tmp_path / "out")
    assert [record.number for record in records] == list(range(40))
    assert {record.state for record in records} == {"complete"}
    assert told[0] and told[1] and not set(told[0]) & set(told[1]), "no trial was run by both"
    starts = [len((trial_folder(tmp_path / "out", number) / "starts").read_text().split()) for number in range(40)]
    assert sum(starts) <= 41, "what the killed driver ran was started once more, nothing else"
    after = index(server, tmp_path / "out", "out", space=str(tmp_path / "space.toml"), pruning=False)
    assert [row[:2] for row in kept(after)] == [(record.number, 1) for record in records]
    assert [row[3] for row in kept(after)] == [record.value for record in records]
