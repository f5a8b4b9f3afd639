"""The Ray cluster that trials run on: this machine, or one that is named."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from mmlab.errors import UserError
from mmlab.spec.resources import Resources

# Failed trials are told of in the progress lines and kept in the tracking store.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


@contextmanager
def cluster(resources: Resources) -> Iterator[int]:
    """Connect to Ray while the block runs; gives the number of trials that fit at a time.

    Raises
    ------
    UserError
        The cluster cannot be reached, or is too small for a single trial.
    """
    require_machine(resources)
    if resources.address is None:
        # Nothing outside this machine can reach the processes of a local Ray.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ray.init(
                address=resources.address,
                include_dashboard=False if resources.address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster answers at {resources.address!r}; start one with "
                "`ray start --head`, or leave --address out to use this machine."
            ) from error
    try:
        yield _slots(resources)
    finally:
        _shut_down()


def require_machine(resources: Resources) -> None:
    """Refuse what this machine cannot have, before Ray is started or anything is written.

    Raises
    ------
    UserError
        Trials are to run here, and one asks for more CPUs, or GPUs that torch can use, than there
        are.
    """
    if resources.address is not None:
        return
    have = {"CPU": os.cpu_count() or 1}
    need = {"CPU": float(resources.cpus_per_trial), "GPU": resources.gpus_per_trial}
    if need["GPU"]:
        import torch

        have["GPU"] = torch.cuda.device_count()
    for kind, number in have.items():
        if need[kind] > number:
            raise UserError(
                f"a trial asks for {need[kind]:g} {kind}s, but this machine has {number} that can "
                "be used."
            )


def _shut_down() -> None:
    """Leave Ray, with nothing of it left to be collected meanwhile.

    A reference to one of Ray's objects that another thread's garbage collection frees while Ray
    shuts down ends the whole process, without a word.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        ray.shutdown()
    finally:
        if enabled:
            gc.enable()


def _slots(resources: Resources) -> int:
    have: dict[str, float] = ray.cluster_resources()
    need = {"CPU": float(resources.cpus_per_trial), "GPU": resources.gpus_per_trial}
    for kind, amount in need.items():
        if amount > have.get(kind, 0.0):
            raise UserError(
                f"a trial asks for {amount:g} {kind}s, but the cluster has {have.get(kind, 0.0):g}."
            )
    fits = min(int(have.get(kind, 0.0) / amount) for kind, amount in need.items() if amount)
    return fits if resources.max_concurrent is None else min(fits, resources.max_concurrent)
