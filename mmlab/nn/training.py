"""The training loop shared by the deep selectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlab.nn.batches import Loss, batches, fast_cpu_arithmetic, take_step
from mmlab.nn.networks import PanelModel
from mmlab.nn.range_test import find_learning_rate
from mmlab.nn.recipe import EarlyStopping, RangeTest, TrainingConfig

PanelScore = Callable[[NDArray[np.int64]], float]


class TrainingDivergedError(RuntimeError):
    """The training loss is no longer finite; another configuration is needed."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch leaves behind.

    Attributes
    ----------
    epoch
        Counted from 1.
    temperature
        Of the soft panel during this epoch.
    train_loss
        Mean over the training cells, with the soft panel.
    validation_loss
        Mean over the validation cells, with the hard panel; None without validation cells.
    validation_score
        Score of the hard panel on the validation cells, higher is better; None without.
    panel
        The k chosen genes, best first.
    """

    epoch: int
    temperature: float
    train_loss: float
    validation_loss: float | None
    validation_score: float | None
    panel: NDArray[np.int64]


def _train_epoch(
    model: PanelModel,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    batch_size: int,
    temperature: float,
    generator: torch.Generator,
) -> float:
    model.train()
    total = 0.0
    for indices in batches(len(x), batch_size, generator):
        value = take_step(model, optimizer, loss, x[indices], y[indices], temperature)
        total += float(value) * len(indices)
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

    Parameters
    ----------
    model, loss
        The model and its objective.
    config
        Budget, learning rate, temperatures, early stopping.
    generator
        Source of the batch order, on the device of the model.
    x, y
        Training cells (n_cells, n_genes) float32 and their classes (n_cells,) int64.
    x_val, y_val
        Validation cells, for the reported loss and for stopping on it.
    score
        Panel -> score on the validation cells, higher is better. Without what
        ``config.stop_on`` names, training never ends early.

    Raises
    ------
    TrainingDivergedError
        The training loss of an epoch is not finite.
    """
    rate = config.learning_rate
    if isinstance(rate, RangeTest):
        with fast_cpu_arithmetic():
            rate = find_learning_rate(model, loss, config, rate, generator, x, y)
    fused = x.device.type in ("cpu", "cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=fused)
    stopping = EarlyStopping(config)
    for epoch in range(1, config.max_epochs + 1):
        temperature = config.schedule.temperature(epoch)
        with fast_cpu_arithmetic():
            train_loss = _train_epoch(
                model, optimizer, loss, x, y, config.batch_size, temperature, generator
            )
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
        if stopping.ends(epoch, value, validation_loss):
            return
