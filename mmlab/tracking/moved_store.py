"""Artifact locations of SQLite stores whose folder was moved or copied.

MLflow makes every artifact location absolute before it stores it, so that a database in another
folder still points to the old one. The database is updated before anything else reads it.
"""

from __future__ import annotations

import logging
import shutil
import socket
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from mmlab.errors import UserError
from mmlab.tracking.local_state import OUTBOX, state_folder
from mmlab.tracking.run_owner import HEARTBEAT, owner_is_alive, owner_name
from mmlab.tracking.tracking_uri import SQLITE

#: Folder of the artifacts, next to an SQLite database.
ARTIFACT_FOLDER = "mlartifacts"
#: Columns of MLflow's tables that contain artifact locations.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_TIMEOUT = 8

_log = logging.getLogger(__name__)


def artifact_location(folder: Path, experiment: str) -> str:
    """Return the URI of the artifacts of an experiment, in the folder of an SQLite database."""
    return (folder / ARTIFACT_FOLDER / quote(experiment, safe="")).as_uri()


def update_artifact_locations(file: Path) -> None:
    """Let the artifact locations of a moved or copied SQLite store point to its present folder.

    Results of the old store that are still to be sent are copied to this one's local folder.
    Nothing is done if the old folder is this one under another name.

    Raises
    ------
    UserError
        Artifacts are only in the old folder, a driver on another machine uses the store there, or
        the database cannot be written.
    sqlite3.Error
        The database cannot be read.
    """
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        moved = _old_folders(connection, file.parent)
    for old in moved:
        try:
            with closing(sqlite3.connect(file, timeout=_TIMEOUT, isolation_level=None)) as writer:
                writer.execute("BEGIN IMMEDIATE")
                changed = _update(writer, file, old)
                writer.execute("COMMIT")
        except sqlite3.Error as error:
            raise UserError(
                f"{_was_moved(file, old)}, and its artifact locations cannot be updated: {error}. "
                "Make the file and its folder writable."
            ) from error
        if changed:
            found_in = file.parent / ARTIFACT_FOLDER
            _log.warning("%s: its artifacts are now those in %s", _was_moved(file, old), found_in)


def _was_moved(file: Path, old: Path) -> str:
    return f"tracking store {file} was moved or copied here from {old}"


def _old_folders(connection: sqlite3.Connection, folder: Path) -> list[Path]:
    """Return the other folders in which mmlab created experiments of a database."""
    if not connection.execute("PRAGMA table_info(experiments)").fetchall():
        return []
    found = set()
    for name, location in connection.execute("SELECT name, artifact_location FROM experiments"):
        if str(location).startswith("file:"):
            old = _path(location).parent.parent
            if artifact_location(old, name) == location and not _is_same(old, folder):
                found.add(old)
    return sorted(found)


def _is_same(old: Path, folder: Path) -> bool:
    """Return whether two paths are of one folder, for example through a symbolic link."""
    return old == folder or (_exists(old) and old.samefile(folder))


def _update(connection: sqlite3.Connection, file: Path, old: Path) -> int:
    """Replace the old folder in all locations of a database; return how many were changed."""
    _require_unused(connection, file, old)
    before, after = (f"{(f / ARTIFACT_FOLDER).as_uri()}/" for f in (old, file.parent))
    _require_artifacts(connection, file, (before, after), old)
    waiting = state_folder(f"{SQLITE}{old / file.name}")
    for outbox in waiting.glob(f"*/{OUTBOX}"):
        here = state_folder(f"{SQLITE}{file}") / outbox.relative_to(waiting)
        shutil.copytree(outbox, here, dirs_exist_ok=True)
    changed = 0
    for table, column in _LOCATIONS:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if column in columns:
            changed += connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ?",
                (after, len(before) + 1, len(before), before),
            ).rowcount
    return changed


def _require_unused(connection: sqlite3.Connection, file: Path, old: Path) -> None:
    """Check that no driver on another machine or in a container uses the store under its old path.

    A driver without heartbeats may have died long ago, and is not considered.
    """
    runs: dict[str, dict[str, str]] = defaultdict(dict)
    query = "SELECT run_uuid, key, value FROM tags JOIN runs USING (run_uuid) WHERE status = ?"
    for run_id, key, value in connection.execute(query, ("RUNNING",)):
        runs[run_id][key] = value
    for tags in runs.values():
        elsewhere = HEARTBEAT in tags and tags.get("mmlab.host") != socket.gethostname()
        if elsewhere and owner_is_alive(tags):
            raise UserError(
                f"{_was_moved(file, old)}, where {owner_name(tags)} is writing to it. Wait until "
                f"that process ends, or make the folder available as {old} here, too."
            )


def _require_artifacts(
    connection: sqlite3.Connection, file: Path, prefixes: tuple[str, str], old: Path
) -> None:
    """Check that no run has its artifacts in the old folder alone."""
    before, after = prefixes
    query = "SELECT artifact_uri FROM runs WHERE substr(artifact_uri, 1, ?) = ?"
    uris = [uri for (uri,) in connection.execute(query, (len(before), before))]
    left = [
        uri
        for uri in uris
        if _exists(_path(uri)) and not _exists(_path(after + uri.removeprefix(before)))
    ]
    if left:
        raise UserError(
            f"{_was_moved(file, old)}, but the artifacts of {len(left)} of its runs are in "
            f"{old / ARTIFACT_FOLDER} alone. Copy the contents of that folder to "
            f"{file.parent / ARTIFACT_FOLDER}, then run the command again."
        )


def _exists(path: Path) -> bool:
    """Return whether a path exists; False below a folder of another user that is closed to us."""
    try:
        return path.exists()
    except PermissionError:
        return False


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))
