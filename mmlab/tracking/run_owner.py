"""The process that owns a run: its tags, its name, and whether it is alive."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Mapping

import psutil

from mmlab.errors import UserError

#: Tag with the time of a driver's latest heartbeat, Unix time in seconds.
HEARTBEAT = "mmlab.alive_at"
#: Seconds without a heartbeat after which a driver on another machine is considered dead.
_HEARTBEAT_TIMEOUT = 300.0


def owner_tags() -> dict[str, str]:
    """Return the tags that identify this process as the owner of a run."""
    process = psutil.Process()
    return {
        "mmlab.host": socket.gethostname(),
        "mmlab.pid": str(process.pid),
        "mmlab.process_start": f"{process.create_time():.2f}",
    }


def heartbeat_tags() -> dict[str, str]:
    """Return the tags that tell other machines that the owner of a run is alive now."""
    return {HEARTBEAT: f"{time.time():.2f}"}


def is_own(tags: Mapping[str, str]) -> bool:
    """Return whether the tags identify this process."""
    return owner_tags().items() <= tags.items()


def is_of_this_machine(tags: Mapping[str, str]) -> bool:
    """Return whether the process that the tags identify is, or was, on this machine."""
    return tags.get("mmlab.host") == socket.gethostname()


def owner_is_alive(tags: dict[str, str]) -> bool:
    """Return whether the process that the tags identify is alive.

    A process on another machine counts as alive if its last heartbeat (tag ``mmlab.alive_at``) is
    less than five minutes old, or if it never sent one.
    """
    if not is_of_this_machine(tags):
        alive_at = tags.get(HEARTBEAT)
        return alive_at is None or time.time() - float(alive_at) < _HEARTBEAT_TIMEOUT
    try:
        process = psutil.Process(int(tags["mmlab.pid"]))
        return f"{process.create_time():.2f}" == tags["mmlab.process_start"]
    except (psutil.Error, KeyError, ValueError):
        return False


def other_owner_is_alive(tags: dict[str, str]) -> bool:
    """Return whether another process than this one owns a run and is alive.

    A run of this process that is still open is one of an earlier call that failed.
    """
    return not is_own(tags) and owner_is_alive(tags)


def owner_name(tags: Mapping[str, str]) -> str:
    """Return a readable name of the process that the tags identify."""
    return f"process {tags.get('mmlab.pid')} on {tags.get('mmlab.host')}"


def already_running(study_name: str, owner: str) -> UserError:
    """Return the error for a study that is running in another process."""
    return UserError(
        f"study {study_name} is already running in {owner}. Wait until it ends, or stop that "
        "process, then run the command again."
    )


def user_name() -> str:
    """Return the name of the user; the number, if the system knows no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
