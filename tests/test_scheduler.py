"""What the scheduler makes of lost workers: which loss is an image's, and which the cluster's.

The workers here are made up, and answer at once; the errors are Ray's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from covseg.archive import Outcome, Shard
from covseg.errors import CovsegError, EnvironmentFailed, ModelWorkerLost, StorageUnreachable
from covseg.records import Entry
from workers import pool as pool_module
from workers import scheduler as scheduler_module
from workers.cluster import Node
from workers.pool import Pool, Slot
from workers.scheduler import Scheduler, Tell
from workers.summary import Progress

NODES = [Node("a", 2, 0), Node("b", 2, 0)]
Plan = Callable[[list[str], str, Node], Exception | None]  # keys, kind of call, machine: how it ends


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The machines that live; a test may take one away."""
    live = list(NODES)
    for module in (pool_module, scheduler_module):
        monkeypatch.setattr(module, "nodes", lambda: live)
    monkeypatch.setattr(pool_module.ray, "kill", lambda _: None)
    return live


class Cluster:
    """Workers that end as `plan` says, and a record of what they were asked; an actor that died stays dead."""

    def __init__(self, plan: Plan, places: list[Node]) -> None:
        self.plan = plan
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.held: tuple[tuple[str, tuple[str, ...]], list[Future[Outcome | None]]] = (("", ()), [])
        self.poison: dict[str, frozenset[str]] = {}
        models = [Slot(node, self.model, self.model(node)) for node in places]
        self.pool = Pool(models, "made", [Slot(node, self.decoder, self.decoder(node)) for node in places])

    def model(self, _: Node) -> Any:
        return SimpleNamespace()

    def decoder(self, node: Node) -> Any:
        dead: list[Exception] = []

        def answer(kind: str, keys: list[str], outcome: Outcome | None) -> Any:
            self.calls.append((kind, tuple(keys)))
            error = dead[0] if dead else self.plan(keys, kind, node)
            if error and not isinstance(error, RayTaskError):
                dead.append(error)
            future = Future[Outcome | None]()
            if (kind, tuple(keys)) == self.held[0]:
                self.held[1].append(future)
            elif error:
                future.set_exception(error)
            else:
                future.set_result(outcome)
            return SimpleNamespace(future=lambda: future)

        def score(shard: Shard, _model: Any, _attempt: str, poison: frozenset[str], _missing: float) -> Any:
            self.poison[shard.id] = poison
            keys = [entry.key for entry in shard.entries if entry.key not in poison]
            return answer("score", keys, Outcome(shard.id, True, "a", {"scored": len(keys)}, {}))

        def try_image(entry: Entry, _model: Any) -> Any:
            return answer("try", [entry.key], None)

        return SimpleNamespace(score=SimpleNamespace(remote=score), try_image=SimpleNamespace(remote=try_image))

    def run(self, shards: list[Shard], timeout_s: float = 60, tell: Tell = lambda _: None) -> Progress:
        progress = Progress(sum(len(shard.entries) for shard in shards))
        Scheduler(self.pool, progress, tell, timeout_s).dispatch(iter(shards))
        return progress


def shards(count: int, size: int = 8) -> list[Shard]:
    entries = [Entry(f"{number:03}", 1, "e") for number in range(count * size)]
    return [Shard(f"s{place}", tuple(entries[place * size : (place + 1) * size])) for place in range(count)]


def preempted() -> Exception:
    error = ActorDiedError()
    error._preempted = True
    return error


def unavailable() -> Exception:
    return ActorUnavailableError("lost the connection", None)


def model_lost() -> Exception:
    return raised(ModelWorkerLost("the model worker died"))


def raised(cause: CovsegError) -> Exception:
    return RayTaskError("score", "traceback", cause)


def first(times: int, key: str, error: Callable[[], Exception]) -> Plan:
    """End the first calls that have the image `key` with an error."""
    left = [error() for _ in range(times)]
    return lambda keys, _kind, _node: left.pop() if left and key in keys else None


@pytest.mark.parametrize("places", [NODES, NODES[:1]])
@pytest.mark.parametrize("error", [preempted, unavailable, model_lost])
def test_what_the_cluster_takes_down_is_retried_and_no_evidence(
    live: list[Node], places: list[Node], error: Callable[[], Exception]
) -> None:
    cluster = Cluster(first(9, "003", error), places)
    progress = cluster.run(shards(3))
    assert (progress.finished, progress.shards, progress.retried) == (24, 3, 9)
    assert not any(cluster.poison.values())
    assert {kind for kind, _ in cluster.calls} == {"score"}


def test_a_machine_that_goes_with_its_workers_blames_no_image_and_takes_its_slots_with_it(live: list[Node]) -> None:
    def plan(keys: list[str], _kind: str, node: Node) -> Exception | None:
        if node is NODES[0] and "008" in keys:
            live[:] = NODES[1:]
        return ActorDiedError() if node not in live else None

    cluster = Cluster(plan, [*NODES[:1] * 5, *NODES[1:]])
    progress = cluster.run(shards(9))
    assert progress.finished == 72
    assert {kind for kind, _ in cluster.calls} == {"score"}
    assert [slot.node for slot in cluster.pool.decoders] == NODES[1:]


def test_the_last_worker_moves_to_a_machine_that_lives(live: list[Node]) -> None:
    def plan(_keys: list[str], _kind: str, node: Node) -> Exception | None:
        live[:] = NODES[1:]
        return ActorDiedError() if node not in live else None

    cluster = Cluster(plan, NODES[:1])
    assert cluster.run(shards(3)).finished == 24
    assert [slot.node for slot in cluster.pool.decoders] == NODES[1:]


def test_a_cluster_that_always_gives_way_ends_the_run_by_its_deadline(live: list[Node]) -> None:
    cluster = Cluster(lambda *_: preempted(), NODES)
    with pytest.raises(EnvironmentFailed, match=r"no shard finished for 0 s, .* retried: look at the machines"):
        cluster.run(shards(3), timeout_s=0.3)


def test_a_worker_that_cannot_start_ends_the_run_at_once(live: list[Node]) -> None:
    def plan(*_: Any) -> Exception:
        error = ActorDiedError()
        error._actor_init_failed = True
        return error

    with pytest.raises(EnvironmentFailed, match="a worker cannot start"):
        Cluster(plan, NODES).run(shards(1))


def test_a_store_that_does_not_answer_ends_the_run_after_three_times(live: list[Node]) -> None:
    def error() -> Exception:
        return raised(StorageUnreachable("no answer"))

    assert Cluster(first(2, "003", error), NODES).run(shards(3)).finished == 24
    with pytest.raises(StorageUnreachable):
        Cluster(first(3, "003", error), NODES).run(shards(3))


@pytest.mark.parametrize("deadly", [{"003"}, {"000", "001", "007"}, {f"{number:03}" for number in range(8)}])
def test_poison_images_are_found_exactly_each_by_two_deaths(live: list[Node], deadly: set[str]) -> None:
    deaths = Counter[str]()

    def plan(keys: list[str], kind: str, _node: Node) -> Exception | None:
        if not deadly & set(keys):
            return None
        deaths.update(keys if kind == "try" else [])
        return ActorDiedError()

    cluster = Cluster(plan, NODES)
    progress = cluster.run(shards(4))
    assert cluster.poison["s0"] == deadly
    assert deaths == dict.fromkeys(deadly, 2)
    assert (progress.shards, progress.finished, progress.retried) == (4, 32 - len(deadly), 2)


def test_a_machine_that_dies_under_an_image_tried_alone_does_not_make_it_poison(live: list[Node]) -> None:
    tries = Counter[str]()

    def plan(keys: list[str], kind: str, node: Node) -> Exception | None:
        tries.update(keys if kind == "try" else [])
        if kind == "score" and "003" in keys and tries["003"] < 3:
            return ActorDiedError()
        if keys == ["003"] and tries["003"] < 3:
            live[:] = [node for node in NODES if node is not live[0]]  # one after the other goes, and comes back
            return ActorDiedError()
        return None

    cluster = Cluster(plan, NODES[:1])
    cluster.run(shards(1))
    assert not cluster.poison["s0"]


def test_other_shards_go_on_while_an_image_is_tried(live: list[Node]) -> None:
    held: list[Future[Outcome | None]] = []

    def plan(keys: list[str], kind: str, _node: Node) -> Exception | None:
        return ActorDiedError() if kind == "score" and "001" in keys and not held else None

    def tell(progress: Progress) -> None:
        if progress.shards == 29:
            held[0].set_result(None)

    cluster = Cluster(plan, [*NODES, NODES[0]])
    cluster.held = ("try", ("001",)), held
    progress = cluster.run(shards(30, size=2), tell=tell)
    assert (progress.shards, len(held)) == (30, 1)
