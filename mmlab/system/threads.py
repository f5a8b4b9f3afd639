"""The number of threads that torch, BLAS and OpenMP use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    pass


@contextmanager
def limit_threads(n: int) -> Iterator[None]:
    """Use ``n`` threads for torch, BLAS and OpenMP while the block runs.

    Two trials with a thread each are far faster than one after the other with two.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(limits=n):
            yield
    finally:
        torch.set_num_threads(before)
