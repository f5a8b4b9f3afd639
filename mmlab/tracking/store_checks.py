"""Checks that a tracking store can be used, each within ten seconds and before any work."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from mmlab.errors import UserError
from mmlab.system.file_systems import network_file_system
from mmlab.system.redaction import redact
from mmlab.tracking.moved_store import update_artifact_locations
from mmlab.tracking.server_problem import server_problem
from mmlab.tracking.tracking_uri import sqlite_file

_log = logging.getLogger(__name__)

#: Seconds in which a server or database has to answer.
_TIMEOUT = 8
#: Bytes that a new SQLite store, and one that exists, need at least.
_MIN_FREE = {False: 20_000_000, True: 2_000_000}
#: By dialect: name of the driver's argument for the timeout, and how to install a driver.
_DRIVERS = {
    "postgresql": ("connect_timeout", "pip install 'mmlab[cluster]'"),
    "mysql": ("connect_timeout", "pip install pymysql, and write mysql+pymysql://"),
    "mssql": ("timeout", "pip install pyodbc, and write mssql+pyodbc://"),
}


def require_reachable(uri: str, source: str) -> None:
    """Check that the store of a resolved tracking URI answers; ``source`` says who set the URI.

    A missing SQLite file is not an error: a study creates it.

    Raises
    ------
    UserError
        The server or database does not answer, its driver is not installed, or the file is not a
        database or cannot be read and written.
    """
    file = sqlite_file(uri)
    try:
        if file is not None:
            if file.exists():
                _require_sqlite(file)
        elif uri.lower().startswith("http"):
            _require_server(uri)
        else:
            _require_database(uri)
    except _UnusableStoreError as problem:
        raise UserError(
            f"tracking store {redact(uri)} ({source}): {redact(str(problem))}"
        ) from problem


def require_writable(file: Path) -> None:
    """Check that an SQLite file and its folder can be written; see :func:`set_journal_mode`.

    Raises
    ------
    UserError
        The folder does not exist, the folder or the file is read-only, or the disk is full.
    """
    advice = "Run in another folder, or pass the --tracking-uri of a store that can be written."
    if not file.parent.is_dir():
        raise UserError(
            f"tracking store {file}: the folder {file.parent} does not exist. Create it, or pass "
            "another --tracking-uri."
        )
    for path in (file.parent, file):
        if path.exists() and not os.access(path, os.W_OK):
            raise UserError(f"tracking store {file}: {path} cannot be written. {advice}")
    needed, free = _MIN_FREE[file.exists()], shutil.disk_usage(file.parent).free
    if free < needed:
        raise UserError(
            f"tracking store {file}: {free / 1e6:.1f} MB of the disk are free, but it needs "
            f"at least {needed / 1e6:.0f} MB. Free some space, or pass another --tracking-uri."
        )
    # Not later: MLflow's own connections would keep the mode from changing.
    if file.exists():
        set_journal_mode(file)


def set_journal_mode(file: Path) -> None:
    """Let an SQLite database keep a write-ahead log, or none on a network file system.

    With a write-ahead log, readers (the UI) do not block writers. Its index is in memory that
    machines do not share: "WAL does not work over a network filesystem" (sqlite.org/wal.html).
    A missing database is created.
    """
    kind = network_file_system(file)
    with closing(sqlite3.connect(file, timeout=_TIMEOUT)) as connection:
        # While another process has the database open, its mode stays as it is.
        with suppress(sqlite3.OperationalError):
            connection.execute(f"PRAGMA journal_mode={'delete' if kind else 'wal'}")
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if kind:
        _warn_of_network(file, kind, str(mode))


@cache
def _warn_of_network(file: Path, kind: str, mode: str) -> None:
    """Warn, once per process, that a database is on a network file system."""
    still = ", because another process has it open" if mode == "wal" else ""
    _log.warning(
        "tracking store %s is on a network file system (%s), where a write-ahead log is not safe: "
        "its journal mode is %s%s. For commands on several machines, start an MLflow server and "
        "pass its --tracking-uri.",
        file,
        kind,
        mode,
        still,
    )


class _UnusableStoreError(Exception):
    """Why a store cannot be used, and what to do."""


def _require_sqlite(file: Path) -> None:
    if not file.is_file():
        raise _UnusableStoreError(
            f"{file} is not a regular file. Pass the --tracking-uri of a file, new or of MLflow."
        )
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
        update_artifact_locations(file)
    except sqlite3.Error as error:
        raise _UnusableStoreError(
            f"{error}. Move {file} away if it is no database of MLflow, or pass another "
            "--tracking-uri."
        ) from error


def _require_server(uri: str) -> None:
    with _short_requests():
        problem = server_problem(uri)
    if problem:
        raise _UnusableStoreError(problem)


@contextmanager
def _short_requests() -> Iterator[None]:
    """Let MLflow's requests fail after a few seconds, without its retries of four minutes."""
    limits = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_TIMEOUT),
    }
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _require_database(uri: str) -> None:
    try:
        dialect = make_url(uri).get_backend_name()
        timeout, install = _DRIVERS[dialect]
        arguments: dict[str, Any] = {timeout: _TIMEOUT}
        engine = create_engine(uri, connect_args=arguments)
    except ImportError as error:
        raise _UnusableStoreError(f"{error}. Install the driver with: {install}.") from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise _UnusableStoreError(f"{error}. Check --tracking-uri.") from error
    try:
        with engine.connect():
            pass
    except (SQLAlchemyError, OSError) as error:
        reason = " ".join(str(getattr(error, "orig", error)).split())
        raise _UnusableStoreError(
            f"the database cannot be opened: {reason[:300]}. Check host, name and password in "
            "--tracking-uri."
        ) from error
    finally:
        engine.dispose()
