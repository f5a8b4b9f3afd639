"""Batches of cells and a step of the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mmlab.nn.networks import Outputs, PanelModel

#: The objective: (outputs, cells, labels) -> scalar.
Loss = Callable[[Outputs, Tensor, Tensor], Tensor]


@contextmanager
def fast_cpu_arithmetic() -> Iterator[None]:
    """Flush denormal numbers to zero on this thread, for as long as the block runs.

    At low temperature the relaxed top-k and the moments of Adam fill with denormals, which
    make a step ten times slower on a CPU.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def batches(n_cells: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffled batches of cell indices; a last batch of one cell joins the one before.

    Batch norm has no variance for one cell.
    """
    order = torch.randperm(n_cells, generator=generator, device=generator.device)
    parts = list(order.split(batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last])
    return parts


def take_step(
    model: PanelModel,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    cells: Tensor,
    labels: Tensor,
    temperature: float,
) -> Tensor:
    """One step on a batch; gives its loss, a scalar without gradient."""
    value = loss(model(cells, temperature), cells, labels)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    optimizer.step()
    return value.detach()
