"""File locks of studies and of files of finished replicates, for the drivers on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from mmlab.errors import UserError
from mmlab.system.files import atomic_write, require_folder
from mmlab.tracking.local_state import results_lock_folder
from mmlab.tracking.run_owner import already_running, owner_name, owner_tags
from mmlab.tracking.store import TrackingStore


@contextmanager
def lock_study(store: TrackingStore, study_name: str) -> Iterator[None]:
    """Lock a study for this process; the operating system releases the lock when it ends.

    Raises
    ------
    UserError
        Another process on this machine has locked the study; the message names the process.
    """
    with _lock(store.study_folder(study_name), partial(already_running, study_name)):
        yield


@contextmanager
def lock_results_file(path: Path | None) -> Iterator[None]:
    """Lock a file of finished replicates, which a comparison replaces as a whole; None is no file.

    Raises
    ------
    UserError
        Another process on this machine has locked the file; the message names the process.
    """
    if path is None:
        yield
        return

    def refuse(owner: str) -> UserError:
        return UserError(
            f"--rows {path} is used by {owner}. Wait until it ends, or pass another file."
        )

    with _lock(results_lock_folder(path), refuse):
        yield


@contextmanager
def _lock(folder: Path, refuse: Callable[[str], UserError]) -> Iterator[None]:
    """Hold the lock in a folder; if another process does, raise ``refuse(its name)``."""
    require_folder(folder, "XDG_STATE_HOME")
    owner_file = folder / "owner"
    try:
        lock = FileLock(folder / "lock").acquire(timeout=0)
    except Timeout:
        owner = "another process"
        if owner_file.exists():
            owner = owner_file.read_text(encoding="utf-8")
        raise refuse(owner) from None
    with lock:
        with atomic_write(owner_file) as path:
            path.write_text(owner_name(owner_tags()), encoding="utf-8")
        yield
