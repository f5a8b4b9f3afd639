"""Atomic file writes, temporary files and what killed processes left of them, file hashes."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mmlab.errors import UserError

_log = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces ``path`` if the block succeeds.

    After a crash ``path`` is either the old or the new file, flushed to disk, never a part of it.

    Raises
    ------
    OSError
        The file cannot be written; the error names it, also if the disk is full.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path, kind: str = "new") -> Path:
    """Return a hidden path next to ``path`` whose name tells the machine and the process."""
    return path.with_name(f".{path.name}.{kind}.{_machine()}.{os.getpid()}")


def leftovers(path: Path, kind: str = "new") -> list[Path]:
    """Return the temporary paths of ``path`` that dead processes of this machine have left.

    Those of this process count, too: it is not about to use them.
    """
    prefix = f".{path.name}.{kind}.{_machine()}."
    found = {p: p.name.removeprefix(prefix) for p in path.parent.glob(f"{glob.escape(prefix)}*")}
    numbers = {p: int(number) for p, number in found.items() if number.isdecimal()}
    return sorted(p for p, n in numbers.items() if n == os.getpid() or not psutil.pid_exists(n))


def remove_leftovers(path: Path, kind: str = "new") -> None:
    """Remove what :func:`leftovers` returns, as far as the system lets it."""
    for leftover in leftovers(path, kind):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _machine() -> str:
    """Return a short name of this machine: on a shared disk, others' processes are unknown here."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def existing_folder(folder: Path) -> Path:
    """Return the folder itself, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def require_folder(folder: Path, variable: str) -> None:
    """Create a folder of mmlab's own if it does not exist, and check that it can be written.

    Raises
    ------
    UserError
        It cannot be created or written; ``variable`` is the environment variable that moves it.
    """
    reason = "there is no home folder" if not folder.is_absolute() else ""
    try:
        if not reason:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                reason = "it cannot be written"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise UserError(
            f"mmlab's folder {folder} cannot be used: {reason}. Set the environment variable "
            f"{variable} to a folder that you can write."
        )


def set_aside(path: Path, what: str) -> None:
    """Rename a damaged file of mmlab's own, so that its content is computed again, and warn.

    Parameters
    ----------
    what
        What the file is, for the warning.
    """
    aside = path.with_name(aside_name(path.name))
    path.replace(aside)
    _log.warning("the %s %s is damaged: moved to %s", what, path, aside.name)


def aside_name(name: str) -> str:
    """Return the name that a damaged file gets."""
    return f"{name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
