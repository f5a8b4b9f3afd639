"""Temporary folders of drivers: Ray's session, and what drivers that were killed left behind.

Ray's raylet ends with a driver that is killed, but its agents and workers go on. A worker of a
search even writes to the tracking store. The next command finds and ends them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

_PREFIX = "mmray-"
#: Longest path of the parent folder: the paths of Ray's sockets have at most 107 characters.
_MAX_LENGTH = 30


@contextmanager
def driver_folder() -> Iterator[Path]:
    """Create the temporary folder of this driver, locked while the driver lives.

    At the end of the block the processes that write to the folder are killed, and it is removed.
    """
    new = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=_parent()))
    with FileLock(new / "lock"):
        # Only now do other commands see the folder: they never find it without a lock.
        folder = new.rename(new.with_name(new.name.removeprefix(".")))
        try:
            yield folder
        finally:
            _remove(folder)


def end_leftovers() -> None:
    """End the processes of drivers that were killed, and remove their temporary folders.

    Folders of other users, and of drivers that are alive, are left alone.
    """
    for folder in {_parent(), Path("/tmp")}:
        for leftover in folder.glob(f"{_PREFIX}*/"):
            # The folder may vanish at any moment, if its driver ends.
            with suppress(OSError, Timeout):
                if leftover.lstat().st_uid != os.getuid() or not (leftover / "lock").exists():
                    continue
                with FileLock(leftover / "lock", timeout=0):
                    _remove(leftover)


def end_processes(folder: Path) -> None:
    """Kill all processes of this user that write to a file in a driver's folder.

    Every process that Ray starts writes to a log of its session. Their command lines are no clue:
    workers overwrite them.
    """
    while writers := _writers(f"{folder}/"):
        for process in writers:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(writers, timeout=1)


def _writers(folder: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            if any(f.path.startswith(folder) and f.mode != "r" for f in process.open_files()):
                found.append(process)
    return found


def _parent() -> Path:
    """Return the folder in which Ray would put its own: ``RAY_TMPDIR``, ``TMPDIR`` or ``/tmp``."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return Path(folder if len(folder) <= _MAX_LENGTH else "/tmp")


def _remove(folder: Path) -> None:
    end_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)
