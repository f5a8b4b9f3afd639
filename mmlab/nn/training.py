"""Training loop of the deep selectors, for several models trained as one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlab.errors import UserError
from mmlab.nn.batches import (
    Loss,
    Optimizer,
    epoch_temperatures,
    fast_arithmetic,
    shuffled_minibatches,
)
from mmlab.nn.cell_reader import CellTensor
from mmlab.nn.learning_rate_range_test import find_learning_rates
from mmlab.nn.networks import PanelModel
from mmlab.nn.training_config import EarlyStopping, RangeTest, TrainingConfig
from mmlab.nn.training_steps import StepRunner

#: Score of a panel (gene indices) on the validation cells; higher is better.
PanelScore = Callable[[NDArray[np.int64]], float]


class TrainingDivergedError(UserError):
    """The training loss is not finite; training needs other parameters."""


@dataclass(frozen=True)
class Epoch:
    """Result of one training epoch of one model.

    Attributes
    ----------
    epoch
        Number of the epoch, counted from 1.
    temperature
        Temperature of the soft panel in this epoch.
    train_loss
        Mean loss over the training cells, with the soft panel.
    validation_loss
        Mean loss over the validation cells, with the hard panel; None without validation cells.
    compute_score
        Computes the score of the panel; None without a score (:class:`TrainingPlan`).
    panel
        Gene indices of the hard panel; included genes come first, then the others, best first.
    last
        Whether this is the last epoch of this model.
    """

    epoch: int
    temperature: float
    train_loss: float
    validation_loss: float | None
    compute_score: Callable[[], float] | None
    panel: NDArray[np.int64]
    last: bool

    @property
    def validation_score(self) -> float | None:
        """Score of the hard panel on the validation cells; None without a score.

        Higher is better. It is computed on first access.
        """
        return None if self.compute_score is None else self.compute_score()


def _train_epoch(
    model: PanelModel, runner: StepRunner, n_cells: int, batch_size: int, temperature: Tensor
) -> list[float]:
    """Train for one epoch; return the mean loss per cell of each model."""
    model.train()
    noise = model.gate.noise
    total = torch.zeros(len(noise), dtype=torch.float64, device=noise.device)
    for indices in runner.prefetch(shuffled_minibatches(n_cells, batch_size, noise)):
        total += runner.run(indices, temperature) * indices.shape[1]
    return [float(value) for value in total / n_cells]


@torch.no_grad()
def evaluate_loss(
    model: PanelModel, loss: Loss, x: CellTensor, y: Tensor, batch_size: int = 2048
) -> list[float]:
    """Return the mean loss per cell of each model in evaluation mode.

    That is, with the hard panel and with the running statistics of batch norm.
    """
    model.eval()
    n_models, n_cells = x.shape[:2]
    total = x.new_zeros(n_models, dtype=torch.float64)
    parts = zip(x.split(batch_size, dim=1), y.split(batch_size, dim=1), strict=True)
    for cells, labels in parts:
        total += loss(model(cells, 0.0), cells, labels) * cells.shape[1]
    return [float(value) for value in total / n_cells]


@torch.no_grad()
def recalibrate_batch_norm(model: PanelModel, x: CellTensor, batch_size: int = 2048) -> None:
    """Recompute the batch-norm statistics of the network with the hard panel.

    The running statistics of the training come from soft masks. The 0/1 mask in evaluation mode
    changes the scale of the activations, so that decoder and classifier would get inputs outside
    the range that they were trained on.
    """
    norms = [m for m in model.network.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average over the minibatches
        norm.train()
    # The average gives every minibatch the same weight, so they need (nearly) equal sizes.
    for cells in x.tensor_split(math.ceil(x.shape[1] / batch_size), dim=1):
        model(cells, 0.0)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@dataclass(frozen=True)
class TrainingPlan:
    """Training parameters and panel score of one model among those trained as one batch.

    Attributes
    ----------
    config
        Number of epochs, learning rate, temperature schedule and early stopping. ``batch_size``
        and ``max_epochs`` must be the same for all models of the batch.
    score
        Function panel -> score on the validation cells, higher is better; None without
        validation cells. Training never stops early if the quantity that ``config.stop_on``
        names (this score, or the validation loss) is missing.
    """

    config: TrainingConfig
    score: PanelScore | None = None


def train(
    model: PanelModel,
    loss: Loss,
    plans: Sequence[TrainingPlan],
    x: CellTensor,
    y: Tensor,
    x_val: CellTensor | None = None,
    y_val: Tensor | None = None,
) -> Iterator[list[Epoch | None]]:
    """Train several models as one batch, yielding after every epoch.

    The caller may stop iterating after any epoch.

    Parameters
    ----------
    model, loss
        The models and their training objective.
    plans
        One plan per model.
    x, y
        Training cells, float32 of shape (n_models, n_cells, n_genes), in memory or on disk, and
        their class indices, int64 of shape (n_models, n_cells).
    x_val, y_val
        Validation cells and their class indices, for the reported loss and for early stopping
        on it.

    Yields
    ------
    One :class:`Epoch` per model, or None for a model whose training has already ended. Copy a
    model when its last epoch is yielded (:meth:`PanelModel.single`): its parameters may change
    afterwards, while the others are still trained.

    Raises
    ------
    TrainingDivergedError
        The training loss of an epoch is not finite.
    """
    configs = [plan.config for plan in plans]
    batch_size, max_epochs = configs[0].batch_size, configs[0].max_epochs
    with fast_arithmetic():
        optimizer = Optimizer(model, _learning_rates(model, loss, configs, x, y))
        runner = StepRunner(model, optimizer, loss, x, y, batch_size)
    stopping: list[EarlyStopping | None] = [EarlyStopping(config) for config in configs]
    for number in range(1, max_epochs + 1):
        with fast_arithmetic():
            temperatures = epoch_temperatures(configs, number, x.device)
            train_losses = _train_epoch(model, runner, x.shape[1], batch_size, temperatures)
            validation_losses: Sequence[float | None] = [None] * len(plans)
            if x_val is not None and y_val is not None:
                validation_losses = evaluate_loss(model, loss, x_val, y_val)
        epochs: list[Epoch | None] = []
        for i, (plan, early_stopping) in enumerate(zip(plans, stopping, strict=True)):
            if early_stopping is None:
                epochs.append(None)
                continue
            if not np.isfinite(train_losses[i]):
                raise TrainingDivergedError(
                    f"training diverged in epoch {number}: the loss is {train_losses[i]}"
                )
            panel, temperature = model.panel(i), plan.config.schedule.temperature(number)
            losses = train_losses[i], validation_losses[i]
            # A score may take as long as an epoch: it is computed on demand, and only once.
            compute_score = None if plan.score is None else cache(partial(plan.score, panel))
            last = number == max_epochs
            if not last and plan.config.min_epochs < max_epochs:
                score = None if compute_score is None else compute_score()
                last = early_stopping.should_stop(number, score, losses[1])
            epochs.append(Epoch(number, temperature, *losses, compute_score, panel, last))
            if last:
                stopping[i] = None
        yield epochs
        if all(early_stopping is None for early_stopping in stopping):
            return


def _learning_rates(
    model: PanelModel, loss: Loss, configs: Sequence[TrainingConfig], x: CellTensor, y: Tensor
) -> list[float]:
    """Return the configured learning rates; if any is a range test, find all by that test."""
    rates = [config.learning_rate for config in configs]
    numbers = [rate for rate in rates if not isinstance(rate, RangeTest)]
    if len(numbers) == len(rates):
        return numbers
    test = next(rate for rate in rates if isinstance(rate, RangeTest))
    return find_learning_rates(model, loss, configs, test, x, y)
