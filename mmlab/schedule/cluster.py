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
from dataclasses import dataclass
from pathlib import Path

import ray

from mmlab.errors import UserError
from mmlab.schedule.cluster_watch import ClusterWatch
from mmlab.spec.resources import Resources
from mmlab.system.driver_folder import driver_folder, end_leftovers, end_processes
from mmlab.system.interruption import Interruption
from mmlab.system.threads import usable_cpus

# mmlab reports failed trials itself: in the progress lines and in the tracking store.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
# Ray prints reports of its processes, with pages of their logs, whatever its logging level is.
ray._private.worker.print_to_stdstream = lambda *_, **__: None


@dataclass(frozen=True)
class RayCluster:
    """The Ray cluster that this process is connected to.

    Attributes
    ----------
    resources
        Resources of each trial.
    slots
        Number of trials that run at the same time.
    folder
        Temporary folder of this driver, also that of Ray if it runs on this machine.
    interruption
        The request to end the study.
    """

    resources: Resources
    slots: int
    folder: Path
    interruption: Interruption

    def end_workers(self) -> None:
        """Kill the processes of a local Ray, so that no worker writes to the tracking store.

        The workers of a cluster end when the driver does.
        """
        end_processes(self.folder)


@contextmanager
def cluster(resources: Resources, interruption: Interruption) -> Iterator[RayCluster]:
    """Connect to Ray for the duration of the block.

    If Ray is lost meanwhile, the interruption is requested. After an interruption Ray is not shut
    down, which would end or block the process if Ray is gone: a local one is killed.

    Raises
    ------
    UserError
        The cluster cannot be reached, or is too small for a single trial.
    """
    require_machine(resources)
    end_leftovers()
    with driver_folder() as folder:
        _start(resources, folder)
        try:
            with ClusterWatch(interruption, resources.address):
                yield RayCluster(resources, _count_slots(resources), folder, interruption)
        finally:
            if not interruption.requested:
                _shut_down()


def _start(resources: Resources, folder: Path) -> None:
    """Start Ray on this machine, or join a cluster.

    Raises
    ------
    UserError
        The cluster cannot be reached.
    """
    is_local = resources.address is None
    if is_local:
        _set_token()
    with warnings.catch_warnings(), _own_signals():
        warnings.simplefilter("ignore")
        try:
            ray.init(
                # Without an address, Ray would join a cluster: that of the variable RAY_ADDRESS, or
                # one that runs on this machine.
                address="local" if is_local else resources.address,
                num_cpus=usable_cpus() if is_local else None,
                include_dashboard=False if is_local else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder) if is_local else None,
            )
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster responds at {resources.address!r}. Start one with "
                "`ray start --head`, or omit --address to use this machine."
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
    """Check that this machine can run a trial, before Ray is started or anything is written.

    Nothing is checked if the trials run on a cluster (``resources.address``).

    Raises
    ------
    UserError
        A trial requests more CPUs than this machine has, or more GPUs than torch can use on it.
    """
    if resources.address is not None:
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


def _count_slots(resources: Resources) -> int:
    available: dict[str, float] = ray.cluster_resources()
    requested = {"CPU": float(resources.cpus_per_trial), "GPU": resources.gpus_per_trial}
    for kind, amount in requested.items():
        if amount > available.get(kind, 0.0):
            raise UserError(
                f"a trial requests {amount:g} {kind}s, but the Ray cluster has "
                f"{available.get(kind, 0.0):g}. Lower --{kind.lower()}s-per-trial."
            )
    fits = min(
        int(available.get(kind, 0.0) / amount) for kind, amount in requested.items() if amount
    )
    return fits if resources.max_concurrent is None else min(fits, resources.max_concurrent)
