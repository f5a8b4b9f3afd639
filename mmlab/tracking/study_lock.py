"""File lock that prevents two drivers on this machine from running the same study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from mmlab.system.files import atomic_write, require_folder
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
    folder = store.study_folder(study_name)
    require_folder(folder, "XDG_STATE_HOME")
    owner_file = folder / "owner"
    try:
        lock = FileLock(folder / "lock").acquire(timeout=0)
    except Timeout:
        owner = "another process"
        if owner_file.exists():
            owner = owner_file.read_text(encoding="utf-8")
        raise already_running(study_name, owner) from None
    with lock:
        with atomic_write(owner_file) as path:
            path.write_text(owner_name(owner_tags()), encoding="utf-8")
        yield
