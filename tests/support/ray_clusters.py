"""Ray clusters of several nodes on this machine, whose nodes can be killed or frozen."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
from processes import keep_ray_token, ray_actors


class RayNodes:
    """A Ray cluster; a node is what :meth:`add` returns.

    Attributes
    ----------
    address
        What to pass as ``--address``.
    head
        The node with the GCS.
    """

    def __init__(self, name: str, cpus: int, **options: Any) -> None:
        # Sets what Ray reads when it is imported.
        importlib.import_module("mmlab.schedule")
        from ray.cluster_utils import Cluster

        keep_ray_token()
        head = {"num_cpus": cpus, "node_name": name} | options
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self.head: Any = self._cluster.head_node

    def add(self, name: str, cpus: int = 1) -> Any:
        """Start a node and wait until it has joined."""
        return self._cluster.add_node(num_cpus=cpus, node_name=name)

    def kill(self, node: Any) -> None:
        """Kill a node with its workers, as if the machine was switched off."""
        processes = processes_of(node)
        self._cluster.remove_node(node, allow_graceful=False)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def kill_head(self) -> None:
        """Kill all processes of the head, the GCS first."""
        processes = [self.head.all_processes["gcs_server"][0].process, *processes_of(self.head)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def shutdown(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@contextmanager
def ray_nodes(name: str, cpus: int = 1, **options: Any) -> Iterator[RayNodes]:
    """Run a cluster with a head of this name; ``options`` are those of a Ray node."""
    nodes = RayNodes(name, cpus, **options)
    try:
        yield nodes
    finally:
        nodes.shutdown()


def raylet_of(node: Any) -> int:
    """Return the process id of the raylet of a node."""
    return int(node.all_processes["raylet"][0].process.pid)


def processes_of(node: Any) -> list[psutil.Process]:
    """Return the raylet of a node, its workers and its agents."""
    raylet = psutil.Process(raylet_of(node))
    return [raylet, *raylet.children(recursive=True)]


def freeze(node: Any) -> list[psutil.Process]:
    """Stop all processes of a node, as if its machine hung; return them."""
    processes = processes_of(node)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    return processes


def thaw(processes: list[psutil.Process]) -> None:
    """Continue the processes of a frozen node."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def runs_trials(node: Any) -> bool:
    """Return whether a trial runs on a node."""
    return bool(ray_actors(raylet_of(node)))
