"""Connection to the Ray cluster that runs the trials, and checks of its size."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from mmlab.errors import UserError
from mmlab.spec.resources import Resources
from mmlab.system.threads import usable_cpus

# mmlab reports failed trials itself: in the progress lines and in the tracking store.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


@contextmanager
def cluster(resources: Resources) -> Iterator[int]:
    """Connect to Ray for the duration of the block.

    Yields
    ------
    The number of trials that run at the same time.

    Raises
    ------
    UserError
        The cluster cannot be reached, or is too small for a single trial.
    """
    require_machine(resources)
    is_local = resources.address is None
    if is_local:
        _set_token()
    with warnings.catch_warnings():
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
            )
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster responds at {resources.address!r}. Start one with "
                "`ray start --head`, or omit --address to use this machine."
            ) from error
    try:
        yield _count_slots(resources)
    finally:
        _shut_down()


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
