"""Whether scoring can work from here: each part asked as a run would ask it, and what to do where it does not answer.

In: a model, and a destination if there is one. Out: one `Check` a part; nothing is changed but a sentinel in the
destination, which is removed.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

from covseg.errors import CovsegError
from covseg.settings.environment import cache_folder, code_version

State = Literal["ok", "warn", "fail"]
INSTALL = "pip install --upgrade 'covseg[flow,ray,s3]'"
OF_THE_SERVER = ("pool", "worker", "deployment")
LEAST_BYTES, ENOUGH_BYTES = 2**30, 10 * 2**30  # of a disk; one run's scratch and cache, and a month of them
SKEW_WARN_S, SKEW_FAIL_S = 5.0, 300.0  # S3 refuses signatures that are 15 minutes off, leases lapse after 10


class Check(NamedTuple):
    """One part: how it is, what was found, and what to do, empty where nothing is to do."""

    name: str
    state: State
    found: str
    do: str = ""


def checks(model: str, dest: str | None, pool: str) -> Iterator[Check]:
    """Ask one part after the other; none stops the next."""
    look = "look at the server's log"
    parts: list[tuple[str, Callable[[], Check], str]] = [
        ("versions", _versions, INSTALL),
        ("model", lambda: _model(model), "give a model that is there: default, a folder, NAME@TAG"),
        ("disk", lambda: _disk(dest), "set COVSEG_CACHE to a folder that can be written"),
        ("server", _server, look),
        ("pool", lambda: _pool(pool), look),
        ("worker", lambda: _worker(pool), look),
        ("deployment", _deployment, look),
        ("ray", _ray, "check RAY_ADDRESS and the token"),
        ("storage", lambda: _storage(dest), "check the URL, the cloud's settings, or owner and mode of the folder"),
        ("clock", lambda: _clock(dest), "check the URL and the cloud's settings"),
    ]
    answers = True  # the server
    for name, ask, otherwise in parts:
        if name in OF_THE_SERVER and not answers:
            yield Check(name, "warn", "not asked, for no server answers", "mend the server first")
            continue
        check = _asked(name, ask, otherwise)
        answers = answers and not (name == "server" and check.state == "fail")
        yield check


def _asked(name: str, ask: Callable[[], Check], otherwise: str) -> Check:
    try:
        return ask()
    except CovsegError as error:
        found, _, do = str(error).partition(": ")
        return Check(name, "fail", found, do or otherwise)
    except ModuleNotFoundError as error:
        return Check(name, "fail", f"{error.name} is not installed", INSTALL)
    except Exception as error:  # noqa: BLE001 - a check that breaks is an answer too
        return Check(name, "fail", f"{type(error).__name__}: {error}", otherwise)


def _versions() -> Check:
    from packaging.requirements import Requirement

    found, wrong = [f"covseg {code_version()}, Python {sys.version_info.major}.{sys.version_info.minor}"], []
    for line in requires("covseg") or []:
        wanted = Requirement(line)
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in ("", "flow", "ray", "s3")):
            continue
        try:
            have = version(wanted.name)
        except PackageNotFoundError:
            continue  # an extra that nobody asked for
        if not wanted.specifier.contains(have, prereleases=True):
            wrong.append(f"{wanted.name} {have}, wanted {wanted.specifier}")
        if wanted.name in ("prefect", "ray"):
            found.append(f"{wanted.name} {have}")
    if wrong:
        return Check("versions", "fail", "; ".join(wrong), INSTALL)
    return Check("versions", "ok", ", ".join(found))


def _model(reference: str) -> Check:
    from covseg.model_folder.backends import open_backend
    from covseg.registry import open_model

    folder = open_model(reference)
    backend = open_backend(folder)
    return Check("model", "ok", f"{folder.config.id} from {folder.path} can be opened ({type(backend).__name__})")


def _disk(dest: str | None) -> Check:
    from covseg.storage import local_path

    folders = [cache_folder()] + [path for path in [dest and local_path(dest)] if path]
    free = min((shutil.disk_usage(_there(folder)).free, str(folder)) for folder in folders)
    state: State = "fail" if free[0] < LEAST_BYTES else "warn" if free[0] < ENOUGH_BYTES else "ok"
    do = "" if state == "ok" else "free some, or set COVSEG_CACHE to another disk"
    return Check("disk", state, f"{free[0] / 2**30:.1f} GiB free for {free[1]}", do)


def _there(folder: Path) -> Path:
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def _server() -> Check:
    from flows.deployment import server

    with server() as client:
        theirs, ours = client.api_version(), version("prefect")
    if theirs != ours:
        do = "install the same Prefect on both sides"
        return Check("server", "warn", f"the server has Prefect {theirs}, this machine {ours}", do)
    return Check("server", "ok", f"{client.api_url} answers, Prefect {theirs}")


def _pool(name: str) -> Check:
    from prefect.exceptions import ObjectNotFound

    from flows.deployment import server

    with server() as client:
        try:
            pool = client.read_work_pool(name)
        except ObjectNotFound:
            return Check("pool", "fail", f"no work pool {name!r}", f"covseg deploy --pool {name}")
    if pool.is_paused:
        return Check("pool", "fail", f"work pool {name!r} is paused", f"prefect work-pool resume {name}")
    return Check("pool", "ok", f"work pool {name!r}, type {pool.type}")


def _worker(pool: str) -> Check:
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.exceptions import ObjectNotFound

    from flows.deployment import server

    with server() as client:
        try:
            workers = client.read_workers_for_work_pool(pool)
        except ObjectNotFound:
            workers = []
    online = [one for one in workers if one.status == WorkerStatus.ONLINE]
    if not online:
        do = f"prefect worker start --pool {pool} --limit 1"
        return Check("worker", "fail", f"no worker polls {pool!r}, {len(workers)} did before", do)
    return Check("worker", "ok", f"{len(online)} online")


def _deployment() -> Check:
    from prefect.exceptions import ObjectNotFound

    from flows.deployment import server

    with server() as client:
        try:
            deployment = client.read_deployment_by_name("score/archive")
        except ObjectNotFound:
            return Check("deployment", "fail", "score/archive is not registered", "covseg deploy")
    if deployment.paused:
        do = f"prefect deployment schedule resume score/archive, or unpause {deployment.id} in the UI"
        return Check("deployment", "warn", "score/archive is paused", do)
    active = sum(schedule.active for schedule in deployment.schedules)
    return Check("deployment", "ok", f"score/archive, {active} active schedules")


def _ray() -> Check:
    from workers.head import cores_of

    if not (address := os.environ.get("RAY_ADDRESS")):
        return Check("ray", "ok", "RAY_ADDRESS is not set: a run starts Ray on its own machine")
    return Check("ray", "ok", f"{address} can be joined, {cores_of(address)} cores")


def _storage(dest: str | None) -> Check:
    from covseg.storage import open_store
    from covseg.storage.conditional_writes import refuse_overwriting, refuse_unfit

    if dest is None:
        return Check("storage", "warn", "not asked", "covseg doctor DEST")
    store = open_store(dest)
    store.check()
    refuse_overwriting(store, "Give covseg score --commits URL, a store that keeps them")
    refuse_unfit(store)
    return Check("storage", "ok", f"{store.url} can be written, create-only holds, what is replaced is seen whole")


def _clock(dest: str | None) -> Check:
    """Compare this clock with the server's, and with that of the store behind DEST."""
    skews = [skew for skew in (_server_skew(), _store_skew(dest)) if skew is not None]
    if not skews:
        return Check("clock", "warn", "nobody to compare with", "covseg doctor DEST, or set PREFECT_API_URL")
    worst = max(skews, key=lambda one: abs(one[0]))
    state: State = "fail" if abs(worst[0]) > SKEW_FAIL_S else "warn" if abs(worst[0]) > SKEW_WARN_S else "ok"
    do = "" if state == "ok" else "set this clock, or that one, by NTP"
    return Check("clock", state, f"{abs(worst[0]):.0f} s {'before' if worst[0] > 0 else 'behind'} {worst[1]}", do)


def _server_skew() -> tuple[float, str] | None:
    import httpx
    from prefect.settings import get_current_settings

    if not (url := get_current_settings().api.url):
        return None
    try:
        stamp = httpx.get(f"{url}/health", timeout=5).headers.get("date")
    except httpx.HTTPError:
        return None
    return ((datetime.now(UTC) - parsedate_to_datetime(stamp)).total_seconds(), "the Prefect server") if stamp else None


def _store_skew(dest: str | None) -> tuple[float, str] | None:
    from covseg.storage import local_path, open_store

    if dest is None or local_path(dest) is not None:
        return None
    store, key = open_store(dest), f"probe/clock-{os.urandom(8).hex()}"
    store.write(key, b"1")
    written = time.time()
    there = store.modified(key)
    store.delete(key)
    return (written - there, store.url) if there else None
