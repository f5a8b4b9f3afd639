"""A lock that keeps a second driver on this machine from a study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from mmlab.errors import UserError
from mmlab.system.files import atomic_write
from mmlab.tracking.owner import owner_name, owner_tags
from mmlab.tracking.store import TrackingStore


@contextmanager
def lock_study(store: TrackingStore, study_name: str) -> Iterator[None]:
    """Keep other drivers on this machine from a study; the system frees it when this one ends.

    Raises
    ------
    UserError
        Another driver holds it.
    """
    folder = store.state_folder / study_name
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / "owner"
    try:
        lock = FileLock(folder / "lock").acquire(timeout=0)
    except Timeout:
        who = owner.read_text(encoding="utf-8") if owner.exists() else "another process"
        raise UserError(
            f"study {study_name} is being worked on by {who}; wait for it, or end that process "
            "first."
        ) from None
    with lock:
        with atomic_write(owner) as path:
            path.write_text(owner_name(owner_tags()), encoding="utf-8")
        yield
