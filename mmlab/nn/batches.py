"""Batches of cells and a step of the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.adam import adam

from mmlab.nn.cell_reader import CellReader, CellTensor
from mmlab.nn.layers import RandomSource
from mmlab.nn.networks import Outputs, PanelModel
from mmlab.nn.training_config import TrainingConfig

#: The objective: (outputs, cells, labels) -> one number a model.
Loss = Callable[[Outputs, Tensor, Tensor], Tensor]


@contextmanager
def fast_arithmetic() -> Iterator[None]:
    """Arithmetic that is as exact as training needs it, for as long as the block runs.

    On a CPU denormal numbers are flushed to zero on this thread: at low temperature the relaxed
    top-k and the moments of Adam fill with them, and they make a step ten times slower. On CUDA
    matrix products round their factors to TF32 (10 bits of mantissa, sums in float32).
    """
    torch.set_flush_denormal(True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_flush_denormal(False)


def batches(n_cells: int, batch_size: int, noise: RandomSource) -> list[Tensor]:
    """Shuffled batches of cell indices, each of shape (n_models, batch).

    A last batch of one cell joins the one before: batch norm has no variance for one cell.
    """
    parts = list(noise.permutations(n_cells).split(batch_size, dim=1))
    if len(parts) > 1 and parts[-1].shape[1] == 1:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last], dim=1)
    return parts


def take(values: CellTensor, indices: Tensor) -> Tensor:
    """Rows ``indices`` (n_models, batch) of the values of each model (n_models, n_cells, ...)."""
    if isinstance(values, CellReader):
        return values.take(indices)
    n_models, n_cells = values.shape[:2]
    if n_models > 1:
        first = torch.arange(0, n_models * n_cells, n_cells, device=indices.device)
        indices = indices + first[:, None]
    rows = values.flatten(0, 1).index_select(0, indices.flatten())
    return rows.view(n_models, -1, *values.shape[2:])


def temperatures(configs: Sequence[TrainingConfig], epoch: int, device: torch.device) -> Tensor:
    """Temperature of each model in an epoch, shape (n_models, 1)."""
    values = [config.schedule.temperature(epoch) for config in configs]
    return torch.tensor(values, device=device)[:, None]


class Optimizer:
    """Adam for a pack, with a learning rate a model.

    torch's own Adam takes a step at the highest rate; models with a lower one go the part of
    the way that is theirs, which is the same because the step of Adam is proportional to it.
    """

    def __init__(self, model: PanelModel, rates: Sequence[float]) -> None:
        parameters = list(model.parameters())
        self._parameters = parameters
        self._rate = max(rates)
        self._moments = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        # On the device: there a CUDA graph can move them.
        self._counts = [p.new_zeros((), dtype=torch.float32) for p in parameters]
        shares = parameters[0].new_tensor(rates) / max(rates)
        self._shares = None if (shares == 1).all() else shares

    def set_rate(self, rate: float) -> None:
        """One learning rate for all models."""
        self._rate = rate

    def step(self, value: Tensor) -> None:
        """A step down the gradient of ``value``, a scalar: the sum over the models."""
        for parameter in self._parameters:
            parameter.grad = None
        value.backward()
        with torch.no_grad():
            if self._shares is None:
                self._adam()
                return
            before = [parameter.detach().clone() for parameter in self._parameters]
            self._adam()
            for parameter, start in zip(self._parameters, before, strict=True):
                # Parameters lie model by model, whatever their shape.
                rows = (len(self._shares), -1)
                moved = start.view(rows).lerp(parameter.view(rows), self._shares[:, None])
                parameter.copy_(moved.view_as(parameter))

    def _adam(self) -> None:
        """A step of Adam; what has no gradient, such as a head without a loss, stays."""
        gradients = {i: p.grad for i, p in enumerate(self._parameters) if p.grad is not None}
        moved = list(gradients)
        device = self._parameters[0].device.type
        # The function below torch.optim.Adam: that one takes longer to call than a small step.
        adam(
            [self._parameters[i] for i in moved],
            [gradients[i] for i in moved],
            [self._moments[i] for i in moved],
            [self._squares[i] for i in moved],
            [],
            [self._counts[i] for i in moved],
            fused=device in ("cpu", "cuda"),
            capturable=device == "cuda",
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def take_step(
    model: PanelModel,
    optimizer: Optimizer,
    loss: Loss,
    cells: Tensor,
    labels: Tensor,
    temperature: float | Tensor,
) -> Tensor:
    """One step on a batch of each model; gives their losses, (n_models,), without gradient."""
    values = loss(model(cells, temperature), cells, labels)
    optimizer.step(values.sum())
    return values.detach()
