"""The training loop shared by the deep selectors: a pack of models at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlab.nn.batches import (
    Loss,
    Optimizer,
    batches,
    fast_arithmetic,
    temperatures,
)
from mmlab.nn.cell_reader import CellTensor
from mmlab.nn.networks import PanelModel
from mmlab.nn.range_test import find_learning_rates
from mmlab.nn.steps import Steps
from mmlab.nn.training_config import EarlyStopping, RangeTest, TrainingConfig

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
    judge
        What gives the score of the panel, once it is asked for; None without validation cells.
    panel
        The k chosen genes, best first.
    last
        Whether the training of this model is over.
    """

    epoch: int
    temperature: float
    train_loss: float
    validation_loss: float | None
    scorer: Callable[[], float] | None
    panel: NDArray[np.int64]
    last: bool

    @property
    def validation_score(self) -> float | None:
        """Score of the hard panel on the validation cells, higher is better; None without."""
        return None if self.scorer is None else self.scorer()


def _train_epoch(
    model: PanelModel, steps: Steps, n_cells: int, batch_size: int, temperature: Tensor
) -> list[float]:
    model.train()
    noise = model.gate.noise
    total = torch.zeros(len(noise), dtype=torch.float64, device=noise.device)
    for indices in steps.ahead(batches(n_cells, batch_size, noise)):
        total += steps.take(indices, temperature) * indices.shape[1]
    return [float(value) for value in total / n_cells]


@torch.no_grad()
def evaluate_loss(
    model: PanelModel, loss: Loss, x: CellTensor, y: Tensor, batch_size: int = 2048
) -> list[float]:
    """Mean loss per cell of each model, with the hard panel and the running batch statistics."""
    model.eval()
    n_models, n_cells = x.shape[:2]
    total = x.new_zeros(n_models, dtype=torch.float64)
    parts = zip(x.split(batch_size, dim=1), y.split(batch_size, dim=1), strict=True)
    for cells, labels in parts:
        total += loss(model(cells, 0.0), cells, labels) * cells.shape[1]
    return [float(value) for value in total / n_cells]


@torch.no_grad()
def recalibrate_batch_norm(model: PanelModel, x: CellTensor, batch_size: int = 2048) -> None:
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
    for cells in x.tensor_split(math.ceil(x.shape[1] / batch_size), dim=1):
        model(cells, 0.0)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@dataclass(frozen=True)
class TrainingPlan:
    """What is a model's own in the training of a pack.

    Attributes
    ----------
    config
        Budget, learning rate, temperatures, early stopping. All models of a pack have the same
        batch size and the same largest number of epochs.
    score
        Panel -> score on the validation cells, higher is better. Without what
        ``config.stop_on`` names, training never ends early.
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
    """Train a pack, one item an epoch; whoever iterates may stop at any epoch.

    Parameters
    ----------
    model, loss
        The models and their objective.
    plans
        One a model.
    x, y
        Training cells (n_models, n_cells, n_genes) float32, in memory or not, and their classes
        (n_models, n_cells) int64.
    x_val, y_val
        Validation cells, for the reported loss and for stopping on it.

    Yields
    ------
    An epoch of each model; None for a model whose training had ended before. When its last one
    is yielded the model is as it shall be: later it may change while others are trained.

    Raises
    ------
    TrainingDivergedError
        The training loss of an epoch is not finite.
    """
    configs = [plan.config for plan in plans]
    batch_size, max_epochs = configs[0].batch_size, configs[0].max_epochs
    with fast_arithmetic():
        optimizer = Optimizer(model, _learning_rates(model, loss, configs, x, y))
        steps = Steps(model, optimizer, loss, x, y, batch_size)
    stopping: list[EarlyStopping | None] = [EarlyStopping(config) for config in configs]
    for number in range(1, max_epochs + 1):
        with fast_arithmetic():
            warm = temperatures(configs, number, x.device)
            train_losses = _train_epoch(model, steps, x.shape[1], batch_size, warm)
            validation_losses: Sequence[float | None] = [None] * len(plans)
            if x_val is not None and y_val is not None:
                validation_losses = evaluate_loss(model, loss, x_val, y_val)
        epochs: list[Epoch | None] = []
        for i, (plan, rule) in enumerate(zip(plans, stopping, strict=True)):
            if rule is None:
                epochs.append(None)
                continue
            if not np.isfinite(train_losses[i]):
                raise TrainingDivergedError(
                    f"training diverged in epoch {number}: the loss is {train_losses[i]}; "
                    "lower the learning rate."
                )
            panel, temperature = model.panel(i), plan.config.schedule.temperature(number)
            losses = train_losses[i], validation_losses[i]
            # A score can take as long as an epoch: it is made for whoever asks, and once.
            scorer = None if plan.score is None else cache(partial(plan.score, panel))
            last = number == max_epochs
            if not last and plan.config.min_epochs < max_epochs:
                last = rule.ends(number, None if scorer is None else scorer(), losses[1])
            epochs.append(Epoch(number, temperature, *losses, scorer, panel, last))
            if last:
                stopping[i] = None
        yield epochs
        if all(rule is None for rule in stopping):
            return


def _learning_rates(
    model: PanelModel, loss: Loss, configs: Sequence[TrainingConfig], x: CellTensor, y: Tensor
) -> list[float]:
    """Rates as configured; if one is to be found, then those of all are."""
    rates = [config.learning_rate for config in configs]
    given = [rate for rate in rates if not isinstance(rate, RangeTest)]
    if len(given) == len(rates):
        return given
    test = next(rate for rate in rates if isinstance(rate, RangeTest))
    return find_learning_rates(model, loss, configs, test, x, y)
