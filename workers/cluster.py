"""Ray: started on this machine, or joined where ``RAY_ADDRESS`` says; nothing else in the project starts it.

A local cluster lives and dies with the calling process. It listens on loopback only, and asks for a
token that this process and its children know.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from covseg.errors import EnvironmentFailed, UsageError
from covseg.settings.environment import QUIET

OBJECT_STORE_BYTES = 512 * 1024**2  # batches in flight take some MB; Ray would take 30 % of the memory
Handle = Any  # of a Ray actor; its type does not survive options()
STARTS = 3  # a loaded machine misses Ray's fixed 30 s
_init = functools.partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)


@dataclass(frozen=True)
class Node:
    """A live machine of the cluster: Ray's id, and what Ray may use there."""

    id: str
    cpus: int
    gpus: int


@contextlib.contextmanager
def connect(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Join the cluster at `address`, else at ``RAY_ADDRESS``, else start one here; leave it at the end.

    A cluster is joined with the token that Ray finds, unless ``RAY_AUTH_MODE`` says otherwise.

    Inside another `connect` this does nothing. Signal handlers stay the caller's: Ray would put its own in
    the place of Prefect's, and a cancelled flow run would not know that it was cancelled. A cluster that is started
    here gets `cpus` cores; None takes all that this process may use. `EnvironmentFailed` when it does not answer.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith(("http://", "https://")):
        raise UsageError(
            f"RAY_ADDRESS is {address}, where scorings are submitted as jobs; wanted HOST:PORT, where this joins"
        )
    with _own_signals():
        _start(address, cpus or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Put SIGTERM's handler back, and hand it the signal that came in between."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = signal.getsignal(signal.SIGTERM)
    came = False
    try:
        yield
    except SystemExit:  # what Ray's handler makes of it
        came = True
        raise
    finally:
        signal.signal(signal.SIGTERM, kept)
        if came:
            signal.raise_signal(signal.SIGTERM)


def _start(address: str, cpus: int) -> None:
    os.environ.update(QUIET)
    for remaining in reversed(range(STARTS if address == "local" else 1)):
        before = ray_children()
        try:
            with _loopback_kept(address):
                _start_here(cpus) if address == "local" else _join(address)
        except Exception as error:  # a start that took too long is a bare Exception of Ray
            ray.shutdown()
            _end(ray_children() - before)
            if not remaining:
                raise EnvironmentFailed(
                    f"no Ray cluster at {address!r} ({error}): check RAY_ADDRESS, RAY_AUTH_MODE and the "
                    "token, or unset them to start one here"
                ) from error
        else:
            return


@contextlib.contextmanager
def _loopback_kept(address: str) -> Iterator[None]:
    """Let 127.0.0.1 be loopback: Ray takes it for the outer address, and then listens on every interface."""
    kept = ray_constants.ENABLE_RAY_CLUSTER
    if address.startswith(("local", "127.")):
        ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = kept


def ray_children() -> set[int]:
    """Return Ray's processes that this process is the parent of; empty where there is no ``/proc``."""
    children = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"/ray/" in (folder / "cmdline").read_bytes():
                children.add(int(folder.name))
    return children


def _end(left: set[int]) -> None:
    """Stop what a start that failed leaves running until this process ends: the next try would compete with it."""
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in left:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _start_here(cpus: int) -> None:
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: anything else that runs would come first
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        Config.initialize("")  # Ray read the mode when it was imported
    _init(
        address="local",
        num_cpus=cpus,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
    )


def _join(address: str) -> None:
    # Ray itself uses a token that is there only for a cluster that it finds without an address.
    if "RAY_AUTH_MODE" not in os.environ and AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")
    _init(address=address)


def nodes() -> list[Node]:
    """Return the live machines that have cores, in a stable order; `EnvironmentFailed` when there are none."""
    alive = [
        Node(node["NodeID"], int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    if working := sorted((node for node in alive if node.cpus), key=lambda node: node.id):
        return working
    raise EnvironmentFailed("the Ray cluster has no machine with a CPU: start one with ray start --num-cpus")


def cores_each(count: int, gpus: float = 0, least: int | None = None, what: str = "ranks") -> int:
    """Return the most cores that each of `count` processes of `gpus` GPUs can have on the machines that there are.

    `EnvironmentFailed` when not all, or not `least` of them, find a place; `what` is their name there.
    """
    there = nodes()

    def places(cores: int) -> int:
        return sum(min(node.cpus // cores, int(node.gpus // gpus) if gpus else node.cpus) for node in there)

    if places(1) < (least or count):
        wanted = f"{count} {what}" + (f" with {gpus:g} GPUs each" if gpus else "")
        have = ", ".join(f"{node.cpus} cores and {node.gpus} GPUs" for node in there)
        raise EnvironmentFailed(f"{wanted} do not fit: the cluster has {have}. Take fewer, or another RAY_ADDRESS")
    fitting = [cores for cores in range(1, max(node.cpus for node in there) + 1) if places(cores) >= count]
    return max(fitting, default=1)
