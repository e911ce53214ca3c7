"""Where a study is kept: Optuna's storage, SQLite in the study's folder or a server by its URL."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple

from ftlab.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from sqlalchemy.engine import URL, Connection

DATABASE = "study.db"
_BUSY = 60.0
"""Seconds that one process waits while others write to the same file."""
_REACHED = 10
"""Seconds that a server has to answer."""
_TRIES = 5
"""Of making the tables, which two processes may do at once, and of whatever a server that restarts breaks off."""
_DRIVERS = {"postgresql": "postgresql+psycopg"}
"""SQLAlchemy before 2.1 takes a driver for this name that ftlab does not install."""

_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Lease:
    """For how long a trial belongs to a runner that is not heard of.

    Args:
        interval: Seconds between heartbeats.
        grace: Seconds without one after which another runner may take the trial over; both by the clock of the database.
    """

    interval: int = 10
    grace: int = 60


@dataclass(frozen=True, kw_only=True)
class Store:
    """An open storage.

    Args:
        rdb: Optuna's storage.
        place: Its URL without a password, for messages.
        lease: For how long a trial belongs to a silent runner.
    """

    rdb: RDBStorage
    place: str
    lease: Lease

    def study(self, name: str, direction: Literal["minimize", "maximize"]) -> Study:
        """One of Optuna's studies, made where it is not there yet."""
        import optuna

        return self.patiently(partial(optuna.create_study, storage=self.rdb, study_name=name, direction=direction, load_if_exists=True))

    def close(self) -> None:
        """Close its connections."""
        self.rdb.remove_session()
        self.rdb.engine.dispose()

    def names(self, study: str) -> list[str]:
        """Optuna's studies that belong to a study of ftlab, that of its compared trials last."""
        found = [frozen.study_name for frozen in self.patiently(self.rdb.get_all_studies)]
        return [name for name in found if name.startswith(f"{study}/tune/")] + [name for name in found if name == f"{study}/seeds"]

    def patiently(self, call: Callable[[*_Ts], _T], *values: *_Ts) -> _T:
        """What a call returns; made again for some seconds where the database does not answer.

        Raises:
            StorageError: It still does not.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        for attempt in range(_TRIES):
            try:
                return call(*values)
            except (StorageInternalError, SQLAlchemyError) as error:
                if attempt + 1 == _TRIES:
                    raise _fault(self.place, error) from error
                time.sleep(2**attempt / 4)
        raise AssertionError


def connect(url: str | None, folder: Path, lease: Lease = Lease()) -> Store:
    """Open a storage, or make it.

    Args:
        url: SQLAlchemy's name of a database; None for a file in the study's folder.
        folder: The study's.
        lease: For how long a trial belongs to a silent runner.

    Raises:
        ConfigError: The URL names no database that can be used.
        StorageError: It cannot be reached or written.
    """
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    target = _parsed(url if url is not None else f"sqlite:///{(folder / DATABASE).resolve()}")
    place = target.render_as_string(hide_password=True)
    try:
        _check_reached(target)
        return Store(rdb=_opened(target, lease), place=place, lease=lease)
    except ImportError as error:
        raise ConfigError(f"--storage {place} needs the package {error.name}; install it, or leave --storage out for SQLite.") from error
    except NoSuchModuleError as error:
        raise ConfigError(f"--storage names a driver {target.drivername} that SQLAlchemy does not know; write postgresql://…") from error
    except (SQLAlchemyError, RuntimeError) as error:  # RuntimeError: tables of another version of Optuna, which says how to mend it
        raise _fault(place, error) from error


def is_unmade(url: str) -> bool:
    """Whether a URL names a file of SQLite that `connect` would make in a folder that is there.

    Raises:
        ConfigError: The URL names no database that can be used.
    """
    target = _parsed(url)
    file = Path(target.database or "")
    return target.get_backend_name() == "sqlite" and not file.exists() and file.parent.is_dir()


def jsonable(value: object) -> Any:
    """Plain values as JSON gives them back; YAML has dates besides."""
    return json.loads(json.dumps(value, default=str))


def _parsed(text: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise ConfigError("--storage is no URL of a database; write postgresql://user@host/name, or leave it out for SQLite.") from error
    known = ("sqlite", "postgresql", "mysql")
    if url.get_backend_name() not in known:
        raise ConfigError(f"--storage names {url.get_backend_name()}; allowed: {', '.join(known)}.")
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _BUSY}}
    return {"connect_args": {"connect_timeout": _REACHED}, "pool_pre_ping": True}


def _check_reached(url: URL) -> None:
    """Ask once: Optuna would try for long, and say less."""
    from sqlalchemy import create_engine

    engine = create_engine(url, **_options(url))
    with engine.connect():
        pass
    engine.dispose()


def _opened(url: URL, lease: Lease) -> RDBStorage:
    import optuna
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna takes it for a template
    for attempt in range(_TRIES):
        try:
            with _experimental():
                rdb = optuna.storages.RDBStorage(
                    text, engine_kwargs=_options(url), heartbeat_interval=lease.interval, grace_period=lease.grace
                )  # fmt: skip
            break
        except (IntegrityError, OperationalError, ProgrammingError, optuna.exceptions.StorageInternalError):  # another makes the tables
            if attempt + 1 == _TRIES:
                raise
            time.sleep(2**attempt / 4)
    if url.get_backend_name() == "sqlite":
        _lock_at_once(rdb)
    return rdb


def _lock_at_once(rdb: RDBStorage) -> None:
    """Let every transaction begin with SQLite's lock: Optuna reads that a trial waits, then takes it, and two may read the same."""
    from sqlalchemy import event

    def by_hand(connection: Any, record: object) -> None:
        connection.isolation_level = None  # Python would begin a transaction at the first write only

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    rdb.engine.dispose()  # connections that are open already
    event.listen(rdb.engine, "connect", by_hand)
    event.listen(rdb.engine, "begin", begin)


def fail_stale(study: Study) -> None:
    """End the trials of runners that are not heard of."""
    from optuna.storages import fail_stale_trials

    with _experimental():
        fail_stale_trials(study)


@contextmanager
def _experimental() -> Iterator[None]:
    """Optuna calls its heartbeats experimental, with a warning each time."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _fault(place: str, error: Exception) -> StorageError:
    cause = getattr(error.__cause__, "orig", None) or getattr(error, "orig", None) or error
    reason = " ".join((str(cause).strip() or type(cause).__name__).split())
    return StorageError(f"the study's storage {place} does not answer ({reason[:200]}); mend it, then start the same command again.")
