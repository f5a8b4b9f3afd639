"""Number of threads of torch, BLAS and OpenMP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


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
