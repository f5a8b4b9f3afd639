"""Minibatches of cells, the optimiser and a single training step."""

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

#: Training objective: (outputs, cells, labels) -> loss of each model, shape (n_models,).
Loss = Callable[[Outputs, Tensor, Tensor], Tensor]


@contextmanager
def fast_arithmetic() -> Iterator[None]:
    """Trade precision that training does not need for speed, within a ``with`` block.

    On a CPU, denormal numbers are flushed to zero on the current thread: at low temperature they
    fill the relaxed top-k and the moments of Adam, and make a training step ten times slower. On
    CUDA, matrix products round their factors to TF32 (10 bits of mantissa, sums in float32).
    """
    torch.set_flush_denormal(True)
    previous_precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous_precision)
        torch.set_flush_denormal(False)


def shuffled_minibatches(n_cells: int, batch_size: int, noise: RandomSource) -> list[Tensor]:
    """Return shuffled minibatches of cell indices, each of shape (n_models, batch).

    A single cell that is left over joins the minibatch before it, because batch norm needs at
    least two cells to compute a variance.
    """
    minibatches = list(noise.permutations(n_cells).split(batch_size, dim=1))
    if len(minibatches) > 1 and minibatches[-1].shape[1] == 1:
        last = minibatches.pop()
        minibatches[-1] = torch.cat([minibatches[-1], last], dim=1)
    return minibatches


def gather_cells(values: CellTensor, indices: Tensor) -> Tensor:
    """Return the cells ``indices`` of each model.

    Parameters
    ----------
    values
        Values of the cells (expression or labels), shape (n_models, n_cells, ...).
    indices
        Shape (n_models, batch).
    """
    if isinstance(values, CellReader):
        return values.gather(indices)
    n_models, n_cells = values.shape[:2]
    if n_models > 1:
        offsets = torch.arange(0, n_models * n_cells, n_cells, device=indices.device)
        indices = indices + offsets[:, None]
    rows = values.flatten(0, 1).index_select(0, indices.flatten())
    return rows.view(n_models, -1, *values.shape[2:])


def epoch_temperatures(
    configs: Sequence[TrainingConfig], epoch: int, device: torch.device
) -> Tensor:
    """Return the temperature of each model in an epoch, shape (n_models, 1)."""
    values = [config.schedule.temperature(epoch) for config in configs]
    return torch.tensor(values, device=device)[:, None]


class Optimizer:
    """Adam for models trained as one batch, with one learning rate per model.

    torch's own Adam takes a step at the highest of the learning rates. For a model with a lower
    rate the step is then scaled down by the ratio of the two rates. This is equivalent, because
    the step of Adam is proportional to the learning rate.
    """

    def __init__(self, model: PanelModel, rates: Sequence[float]) -> None:
        """``rates`` are the learning rates, one per model."""
        parameters = list(model.parameters())
        self._parameters = parameters
        self._rate = max(rates)
        self._exp_avgs = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self._exp_avg_sqs = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        # The step counters are on the device, where a CUDA graph can increment them.
        self._state_steps = [p.new_zeros((), dtype=torch.float32) for p in parameters]
        ratios = parameters[0].new_tensor(rates) / max(rates)
        self._rate_ratios = None if (ratios == 1).all() else ratios

    def set_learning_rate(self, rate: float) -> None:
        """Set one learning rate for all models."""
        self._rate = rate

    def step(self, loss: Tensor) -> None:
        """Compute the gradients and update the parameters.

        ``loss`` is a scalar, the sum of the losses of the models.
        """
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        with torch.no_grad():
            if self._rate_ratios is None:
                self._adam_step()
                return
            previous = [parameter.detach().clone() for parameter in self._parameters]
            self._adam_step()
            for parameter, start in zip(self._parameters, previous, strict=True):
                # The model axis comes first in every parameter, whatever its shape.
                shape = (len(self._rate_ratios), -1)
                updated = start.view(shape).lerp(parameter.view(shape), self._rate_ratios[:, None])
                parameter.copy_(updated.view_as(parameter))

    def _adam_step(self) -> None:
        """Take a step of Adam at the highest learning rate.

        Parameters without a gradient, such as those of a head that has no loss, do not change.
        """
        gradients = {i: p.grad for i, p in enumerate(self._parameters) if p.grad is not None}
        updated = list(gradients)
        device = self._parameters[0].device.type
        # The functional form: calling torch.optim.Adam takes longer than a small step itself.
        adam(
            [self._parameters[i] for i in updated],
            [gradients[i] for i in updated],
            [self._exp_avgs[i] for i in updated],
            [self._exp_avg_sqs[i] for i in updated],
            [],
            [self._state_steps[i] for i in updated],
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


def training_step(
    model: PanelModel,
    optimizer: Optimizer,
    loss: Loss,
    cells: Tensor,
    labels: Tensor,
    temperature: float | Tensor,
) -> Tensor:
    """Train on one minibatch per model; return their losses, (n_models,), without gradient."""
    losses = loss(model(cells, temperature), cells, labels)
    optimizer.step(losses.sum())
    return losses.detach()
