"""Where the study of a search lies: ``study.db`` in its folder, or a PostgreSQL server that several drivers share.

In: the URL that a person gave. Out: Optuna's storage. No message of this file has the URL's password.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from covseg.errors import StorageUnreachable, UsageError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
INDEX = "study.db"
DIALECT, DRIVER = "postgresql", "psycopg"
ANSWER_S = 10  # of a connection
PATIENCE_S, FIRST_S, LONGEST_S = 300.0, 0.2, 5.0  # of a server that went away: in all, and between two tries
log = logging.getLogger(__name__)


def shown(storage: str | None, out: Path) -> str:
    """Return the URL of a search's storage as it may be printed: without its password."""
    return _parsed(storage).render_as_string(hide_password=True) if storage else f"sqlite:///{out / INDEX}"


def has_password(storage: str) -> bool:
    """Tell whether a URL holds a password."""
    url = _parsed(storage)
    return url.password is not None or "password" in url.query


def check_storage(storage: str) -> None:
    """Connect once.

    Raises
    ------
    UsageError
        When this is no PostgreSQL URL, its client is not installed, or the server does not answer or does not let us
        in.
    """
    url = _parsed(storage)
    engine = sqlalchemy.create_engine(_with_driver(url), connect_args={"connect_timeout": ANSWER_S})
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        message = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        if url.password:
            message = message.replace(str(url.password), "***")
        raise UsageError(
            f"--storage {shown(storage, Path())} cannot be reached: {message}. Check host, port, user, database and "
            "password (PGPASSWORD or ~/.pgpass), or leave --storage out: the study then lies in --out"
        ) from None
    finally:
        engine.dispose()


def open_storage(out: Path, storage: str | None) -> RDBStorage:
    """Open the storage of a search, made if need be."""
    if storage is None:
        opened = RDBStorage(f"sqlite:///{out / INDEX}")
        sqlalchemy.event.listen(opened.engine, "connect", _unsynced)
        opened.engine.dispose()  # connections from before
        return opened
    url = _with_driver(_parsed(storage)).render_as_string(hide_password=False)
    return RDBStorage(url, {"pool_pre_ping": True, "connect_args": {"connect_timeout": ANSWER_S}})


def patient(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Call again while the study's server is away; what it wraps has to bear being done twice.

    Raises
    ------
    StorageUnreachable
        When it has not come back for `PATIENCE_S`.
    """

    @functools.wraps(method)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        until, pause = time.monotonic() + PATIENCE_S, FIRST_S
        while True:
            try:
                return method(*args, **kwargs)
            except (StorageInternalError, DBAPIError):
                if time.monotonic() + pause > until:
                    raise StorageUnreachable(
                        f"the study's storage did not answer for {PATIENCE_S:g} s; the trials' folders have all that "
                        "was trained: mend it, and the same command goes on"
                    ) from None
                log.warning("the study's storage does not answer; trying again in %.1f s", pause)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_S)

    return call


def _parsed(storage: str) -> URL:
    try:
        url = make_url(storage)
    except ArgumentError:
        raise UsageError("--storage is no URL: wanted postgresql://USER@HOST:PORT/DATABASE") from None
    if url.get_backend_name() != DIALECT or url.drivername not in (DIALECT, f"{DIALECT}+{DRIVER}"):
        raise UsageError(
            f"--storage {url.drivername}://...: wanted postgresql://USER@HOST:PORT/DATABASE; SQLite is what a search "
            "without --storage takes, for one driver"
        )
    return url


def _with_driver(url: URL) -> URL:
    if importlib.util.find_spec(DRIVER) is None:
        raise UsageError(f"--storage wants {DRIVER}, which is not installed: pip install 'covseg[search-postgresql]'")
    return url.set(drivername=f"{DIALECT}+{DRIVER}")


def _unsynced(connection: sqlite3.Connection, _: object) -> None:
    """Do not wait for the disk at every commit, most of a trial's cost: the folders make a lost index again."""
    connection.execute("PRAGMA synchronous=OFF")
