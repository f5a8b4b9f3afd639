"""Number of usable CPUs, and of threads of torch, BLAS and OpenMP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from mmlab.system.control_groups import cpu_quotas


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use, at least 1.

    It is limited by the CPU affinity (``taskset``, SLURM) and by the quotas of the control groups
    (containers), whose fractions are rounded down.
    """
    try:
        number = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS has no affinity
        number = float(os.cpu_count() or 1)
    return max(int(min([number, *cpu_quotas()])), 1)


@contextmanager
def limit_threads(n: int) -> Iterator[None]:
    """Limit torch, BLAS and OpenMP to ``n`` threads within the block.

    Two parallel trials with one thread each are much faster than two consecutive trials with
    two threads each.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(limits=n):
            yield
    finally:
        torch.set_num_threads(before)
