"""Replacements for private parts of mmlab, in this process, while a ``with`` block runs.

All private names of mmlab that the check uses are in this file and in ``kernels.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from mmlab.nn import layers, relaxed_top_k, training_steps
from mmlab.nn.layers import RandomSource
from mmlab.trial import batched_fit
from mmlab.trial.batched_fit import Fit


@contextmanager
def counted_graphs(enabled: bool = True) -> Iterator[dict[str, int]]:
    """Count the captures and the replays of CUDA graphs.

    Where ``enabled`` is false no step is captured: every kernel is launched by itself.
    """
    capture, counts = training_steps._capture, {"captures": 0, "replays": 0}

    def counted_capture(
        step: Callable[[], None], generators: list[torch.Generator]
    ) -> Callable[[], None]:
        replay = capture(step, generators)
        counts["captures"] += 1

        def counted_replay() -> None:
            counts["replays"] += 1
            replay()

        return counted_replay

    supports_graph = training_steps._supports_graph if enabled else lambda cells: False
    with patch.multiple(training_steps, _capture=counted_capture, _supports_graph=supports_graph):
        yield counts


def without_triton_kernels() -> AbstractContextManager[Any]:
    """Compute the relaxed top-k by the recursion in torch."""
    return patch.object(relaxed_top_k, "_uses_triton", lambda values: False)


def assumed_free_memory(n_bytes: float) -> AbstractContextManager[Any]:
    """Let mmlab find ``n_bytes`` of free memory when it chooses how many models fit."""
    return patch.object(batched_fit, "_free_memory", lambda device: n_bytes)


def estimated_bytes_per_model(selector: Any, data: Any) -> float:
    """Return the GPU memory that mmlab expects one model of a batch to use."""
    usable = batched_fit._MEMORY_SHARE * 1e13
    with assumed_free_memory(1e13):
        return usable / batched_fit._max_batch_size(Fit(selector, data))


class HostRandomSource(RandomSource):
    """Random numbers drawn on the CPU, then moved to the models' device."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__(generators)
        self.generators = [torch.Generator().manual_seed(g.initial_seed()) for g in generators]

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty((len(self), *shape))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return super().uniform(*shape, low=low, high=high).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        return super().normal(*shape).to(self.device)

    def bernoulli(self, *shape: int) -> Tensor:
        return super().bernoulli(*shape).to(self.device)

    def permutations(self, n: int) -> Tensor:
        orders = [torch.randperm(n, generator=generator) for generator in self.generators]
        return torch.stack(orders).to(self.device)


@contextmanager
def random_numbers_of_the_cpu(tf32: bool) -> Iterator[None]:
    """Train with random numbers drawn on the CPU, and with TF32 products only if ``tf32``."""
    precision = torch.set_float32_matmul_precision if tf32 else lambda precision: None
    with (
        patch.object(layers, "RandomSource", HostRandomSource),
        patch.object(torch, "set_float32_matmul_precision", precision),
    ):
        yield
