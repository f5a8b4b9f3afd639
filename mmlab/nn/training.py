"""The training loop shared by the deep selectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlab.nn.networks import Outputs, PanelModel

Loss = Callable[[Outputs, Tensor, Tensor], Tensor]
PanelScore = Callable[[NDArray[np.int64]], float]


class TrainingDivergedError(RuntimeError):
    """The training loss is no longer finite; another configuration is needed."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and how warm a model trains; checked by the selector that fills it."""

    learning_rate: float
    batch_size: int
    max_epochs: int
    min_epochs: int
    patience: int
    initial_temperature: float
    final_temperature: float
    annealing_share: float

    def temperature(self, epoch: int) -> float:
        """Temperature of an epoch (from 1).

        It falls geometrically from the initial temperature in the first epoch to the final one
        after ``annealing_share`` of ``max_epochs``, and stays there.
        """
        last = max(round(self.annealing_share * self.max_epochs), 1)
        progress = 1.0 if last == 1 else min((epoch - 1) / (last - 1), 1.0)
        ratio = self.final_temperature / self.initial_temperature
        return float(self.initial_temperature * ratio**progress)


@dataclass(frozen=True)
class Epoch:
    """What one epoch leaves behind.

    Attributes
    ----------
    epoch
        Counted from 1.
    temperature
        Of the relaxed top-k during this epoch.
    train_loss
        Mean over the training cells, with the soft mask.
    validation_loss
        Mean over the validation cells, with the hard mask; None without validation cells.
    validation_score
        Score of the hard panel on the validation cells, higher is better; None without.
    panel
        The k genes with the largest logits, best first.
    """

    epoch: int
    temperature: float
    train_loss: float
    validation_loss: float | None
    validation_score: float | None
    panel: NDArray[np.int64]


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


def _train_epoch(
    model: PanelModel,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    config: TrainingConfig,
    temperature: float,
    generator: torch.Generator,
) -> float:
    model.train()
    total = 0.0
    for indices in batches(len(x), config.batch_size, generator):
        cells, labels = x[indices], y[indices]
        value = loss(model(cells, temperature), cells, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        total += float(value.detach()) * len(indices)
    return total / len(x)


@torch.no_grad()
def evaluate_loss(
    model: PanelModel, loss: Loss, x: Tensor, y: Tensor, batch_size: int = 2048
) -> float:
    """Mean loss per cell with the hard panel and the running batch statistics."""
    model.eval()
    total = 0.0
    for cells, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
        total += float(loss(model(cells, 0.0), cells, labels)) * len(cells)
    return total / len(x)


@torch.no_grad()
def recalibrate_batch_norm(model: PanelModel, x: Tensor, batch_size: int = 2048) -> None:
    """Estimate the batch-norm statistics of the network again, now with the hard panel.

    While training they come from soft masks; with the 0/1 mask of the evaluation the
    activations are of another size, and decoder and classifier would be fed numbers that they
    never saw.
    """
    norms = [m for m in model.network.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
        norm.train()
    # Batches of equal size: they weigh alike.
    for cells in x.tensor_split(math.ceil(len(x) / batch_size)):
        model(cells, 0.0)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def train(
    model: PanelModel,
    loss: Loss,
    config: TrainingConfig,
    generator: torch.Generator,
    x: Tensor,
    y: Tensor,
    x_val: Tensor | None = None,
    y_val: Tensor | None = None,
    score: PanelScore | None = None,
) -> Iterator[Epoch]:
    """Train ``model``, one item an epoch; whoever iterates may stop at any epoch.

    Training ends after ``max_epochs``, or from ``min_epochs`` on when the score of the hard
    panel has not risen for ``patience`` epochs. Without ``score`` it never ends early.

    Parameters
    ----------
    model, loss
        The model and its objective (outputs, cells, labels) -> scalar.
    config
        Budget, learning rate, temperatures.
    generator
        Source of the batch order, on the device of the model.
    x, y
        Training cells (n_cells, n_genes) float32 and their classes (n_cells,) int64.
    x_val, y_val
        Validation cells, for the reported loss only.
    score
        Panel -> score on the validation cells, higher is better.

    Raises
    ------
    TrainingDivergedError
        The training loss of an epoch is not finite.
    """
    fused = x.device.type in ("cpu", "cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=fused)
    best, since_best = -np.inf, 0
    for epoch in range(1, config.max_epochs + 1):
        temperature = config.temperature(epoch)
        with fast_cpu_arithmetic():
            train_loss = _train_epoch(model, optimizer, loss, x, y, config, temperature, generator)
            validation_loss = None
            if x_val is not None and y_val is not None:
                validation_loss = evaluate_loss(model, loss, x_val, y_val)
        if not np.isfinite(train_loss):
            raise TrainingDivergedError(
                f"training diverged in epoch {epoch}: the loss is {train_loss}; "
                "lower the learning rate."
            )
        panel = model.panel()
        value = None if score is None else score(panel)
        yield Epoch(epoch, temperature, train_loss, validation_loss, value, panel)
        if value is None:
            continue
        since_best = 0 if value > best else since_best + 1
        best = max(best, value)
        if epoch >= config.min_epochs and since_best >= config.patience:
            return
