"""Watch over the Ray processes that a driver depends on: without them its study is interrupted.

Ray itself would wait for a minute, and then end the driver without closing any run.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self

import psutil
import ray

from mmlab.system.interruption import Interruption

#: Seconds for which the GCS of a cluster may be unreachable; a fault-tolerant one restarts.
_GCS_TIMEOUT = 20.0
#: What a client of HTTP/2, and so of gRPC, sends first: the preface and empty settings.
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


class ClusterWatch:
    """Thread that requests an interruption once the raylet of this machine or the GCS is gone."""

    def __init__(self, interruption: Interruption, address: str | None) -> None:
        self.interruption = interruption
        self._interval = 0.1 if address is None else 2.0
        self._processes = _local_processes() if address is None else _joined_raylet()
        self._place = "on this machine" if address is None else f"at {address}"
        self._gcs = "" if address is None else ray.get_runtime_context().gcs_address
        self._answered_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            if lost := self._ended_process() or self._silent_gcs():
                self.interruption.request(f"Ray {self._place} was lost: {lost}.")
                return

    def _ended_process(self) -> str:
        """Describe a process that has ended; empty if all are alive."""
        for name, process in self._processes.items():
            with suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    continue
            return f"its process {name} was killed or crashed, perhaps for lack of memory"
        return ""

    def _silent_gcs(self) -> str:
        """Describe a head whose GCS does not answer; empty if it does, or if it may restart."""
        if not self._gcs:
            return ""
        if responds(self._gcs):
            self._answered_at = time.monotonic()
        if time.monotonic() - self._answered_at < _GCS_TIMEOUT:
            return ""
        return f"its head {self._gcs} has not answered for {_GCS_TIMEOUT:.0f} seconds"


def responds(address: str, timeout: float = 5.0) -> bool:
    """Return whether the server of gRPC at ``HOST:PORT`` answers within some seconds.

    For a process that hangs, the operating system takes connections all the same.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout) as connection:
            connection.sendall(_HTTP2_GREETING)
            connection.recv(1)
    except OSError:
        return False
    return True


def _local_processes() -> dict[str, psutil.Process]:
    """Return the GCS and the raylet that this process has started."""
    children = {process.name(): process for process in psutil.Process().children()}
    return {name: children[name] for name in ("gcs_server", "raylet") if name in children}


def _joined_raylet() -> dict[str, psutil.Process]:
    """Return the raylet of this machine through which this process has joined a cluster."""
    node = ray._private.worker._global_node
    if node is None:  # a Ray client, which has a connection of its own
        return {}
    socket_name = f"--raylet_socket_name={node.raylet_socket_name}"
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() == "raylet" and socket_name in process.cmdline():
                return {"raylet": process}
    return {}
