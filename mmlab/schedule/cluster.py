"""Connection to the Ray cluster that runs the trials, and checks of its size."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from rich.console import Console

from mmlab.errors import UserError
from mmlab.schedule.cluster_address import require_cluster
from mmlab.schedule.cluster_watch import ClusterWatch
from mmlab.schedule.node_check import NodeReport, error_line, inspect_nodes
from mmlab.schedule.ray_cluster import RayCluster
from mmlab.schedule.trial_fit import require_fit
from mmlab.spec.resources import Resources
from mmlab.system.driver_folder import driver_folder, end_leftovers
from mmlab.system.interruption import Interruption
from mmlab.system.threads import usable_cpus

# mmlab reports failed trials itself: in the progress lines and in the tracking store.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
# Ray prints reports of its processes, with pages of their logs, whatever its logging level is.
ray._private.worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def cluster(
    resources: Resources, interruption: Interruption, console: Console
) -> Iterator[RayCluster]:
    """Connect to Ray for the duration of the block.

    If Ray is lost meanwhile, the interruption is requested. After an interruption Ray is not shut
    down, which would end or block the process if Ray is gone: a local one is killed.

    Raises
    ------
    UserError
        The cluster cannot be reached, has no node that can run trials, or is too small for one.
    """
    require_machine(resources)
    end_leftovers()
    with driver_folder() as folder:
        _start(resources.address, folder)
        try:
            with ClusterWatch(interruption, resources.address):
                connected = RayCluster(resources, folder, interruption, console)
                connected.exclude_nodes()
                connected.require_size()
                yield connected
        finally:
            if not interruption.requested:
                _shut_down()


def inspect_cluster(address: str) -> list[NodeReport]:
    """Join a Ray cluster, and return a report on each of its nodes.

    Raises
    ------
    UserError
        The cluster cannot be reached, or this machine is none of its nodes.
    """
    require_cluster(address).require_node()
    with driver_folder() as folder:
        _start(address, folder)
        try:
            return inspect_nodes()
        finally:
            _shut_down()


def _start(address: str | None, folder: Path) -> None:
    """Start Ray on this machine, or join a cluster.

    Parameters
    ----------
    address
        That of the cluster; None starts Ray on this machine.
    folder
        Temporary folder of this driver.

    Raises
    ------
    UserError
        Ray cannot be started, or the cluster cannot be joined.
    """
    is_local = address is None
    if is_local:
        _set_token()
    with warnings.catch_warnings(), _own_signals():
        warnings.simplefilter("ignore")
        try:
            ray.init(
                # Without an address, Ray would join a cluster: that of the variable RAY_ADDRESS, or
                # one that runs on this machine.
                address="local" if is_local else address,
                num_cpus=usable_cpus() if is_local else None,
                include_dashboard=False if is_local else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # Ray lets every user write to its folder: that of the driver around it does not.
                _temp_dir=str(folder / "ray") if is_local else None,
            )
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster responds at {address!r}. Start one with "
                "`ray start --head`, or omit --address to use this machine."
            ) from error
        except Exception as error:  # Ray raises the base class, too
            place = "this machine" if is_local else repr(address)
            raise UserError(
                f"Ray could not be started on or joined at {place}: {error_line(str(error))}. If "
                "the machine is overloaded, run the same command again later."
            ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, and SIGHUP away from the processes of Ray.

    `ray.init` replaces the handler, and starts processes that inherit blocked signals. They are in
    the group of the driver, which gets the SIGHUP of a terminal that is closed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])


def _set_token() -> None:
    """Set the token with which the processes of a local Ray authenticate to each other.

    It is new for every process and only in its environment. Ray itself would write one to a file
    of the home folder that other users can read.
    """
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def require_machine(resources: Resources) -> None:
    """Check that a trial can be run, before Ray is started or anything is written.

    Raises
    ------
    UserError
        A trial requests more CPUs than this machine has, or more GPUs than torch can use on it; or
        no cluster responds at ``resources.address`` (see :func:`require_cluster`), this machine is
        none of its nodes, or none of them has room for a trial.
    """
    if resources.address is not None:
        found = require_cluster(resources.address)
        found.require_node()
        require_fit(resources, found.sizes)
        return
    available = {"CPU": usable_cpus()}
    requested = {"CPU": float(resources.cpus_per_trial), "GPU": resources.gpus_per_trial}
    if requested["GPU"]:
        import torch

        available["GPU"] = torch.cuda.device_count()
    for kind, number in available.items():
        if requested[kind] > number:
            raise UserError(
                f"a trial requests {requested[kind]:g} {kind}s, but this machine has {number} "
                f"usable ones. Lower --{kind.lower()}s-per-trial, or pass the --address of a Ray "
                "cluster."
            )


def _shut_down() -> None:
    """Shut Ray down with the garbage collector switched off.

    If the garbage collector of another thread frees a reference to a Ray object while Ray shuts
    down, the whole process ends without an error message.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        ray.shutdown()
    finally:
        if enabled:
            gc.enable()
