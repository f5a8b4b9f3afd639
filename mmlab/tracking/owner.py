"""The process that works on a run, and whether it is alive."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

import psutil

#: Seconds without a sign of life after which a driver on another machine counts as gone.
_SILENCE = 300.0


def owner_tags() -> dict[str, str]:
    """Tags that name this process, to tell later whether the owner of a run is alive."""
    process = psutil.Process()
    return {
        "mmlab.host": socket.gethostname(),
        "mmlab.pid": str(process.pid),
        "mmlab.process_start": f"{process.create_time():.2f}",
    }


def owner_is_alive(tags: dict[str, str]) -> bool:
    """Whether the process that :func:`owner_tags` named is at work.

    On another machine it is if its last sign of life (``mmlab.alive_at``) is not older than five
    minutes; one that gives none is taken to be.
    """
    if tags.get("mmlab.host") != socket.gethostname():
        alive_at = tags.get("mmlab.alive_at")
        return alive_at is None or time.time() - float(alive_at) < _SILENCE
    try:
        process = psutil.Process(int(tags["mmlab.pid"]))
        return f"{process.create_time():.2f}" == tags["mmlab.process_start"]
    except (psutil.Error, KeyError, ValueError):
        return False


def owner_name(tags: Mapping[str, str]) -> str:
    """The process that :func:`owner_tags` named, for people."""
    return f"process {tags.get('mmlab.pid')} on {tags.get('mmlab.host')}"
