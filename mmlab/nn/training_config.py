"""Training parameters: learning rate, temperature schedules and early stopping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Temperature of the soft panel as a function of the epoch."""

    def temperature(self, epoch: int) -> float:
        """Return the temperature of an epoch, counted from 1."""


@dataclass(frozen=True)
class Annealing:
    """Geometric schedule: from ``initial`` at epoch 1 to ``final`` at epoch ``last``.

    After epoch ``last`` the temperature is constant.
    """

    initial: float
    final: float
    last: int

    def temperature(self, epoch: int) -> float:
        """Return the temperature of an epoch, counted from 1."""
        progress = 1.0 if self.last <= 1 else min((epoch - 1) / (self.last - 1), 1.0)
        return float(self.initial * (self.final / self.initial) ** progress)


@dataclass(frozen=True)
class Decay:
    """Schedule of the published training: ``initial``, times ``rate`` after every epoch.

    The temperature does not fall below ``floor``.
    """

    initial: float
    rate: float
    floor: float

    def temperature(self, epoch: int) -> float:
        """Return the temperature of an epoch, counted from 1."""
        return max(self.initial * self.rate ** (epoch - 1), self.floor)


@dataclass(frozen=True)
class RangeTest:
    """Learning rate range test, which replaces a fixed learning rate.

    See :func:`mmlab.nn.learning_rate_range_test.find_learning_rates`.

    Attributes
    ----------
    highest
        Learning rate of the last step.
    steps
        Number of training steps of the test.
    """

    highest: float
    steps: int = 500


@dataclass(frozen=True)
class TrainingConfig:
    """Training parameters of one model; the selector checks their ranges.

    Attributes
    ----------
    learning_rate
        Learning rate of Adam, or a range test that finds it.
    batch_size
        Number of cells per minibatch.
    max_epochs, min_epochs
        Largest number of epochs, and number of epochs before which training never stops.
    patience
        Number of epochs without improvement after which training stops early.
    schedule
        Temperature schedule.
    stop_on
        Quantity that must improve: ``score``, the score of the hard panel, or ``loss``, the
        validation loss (as published). With ``loss``, once ``patience`` is exhausted training
        stops at ``min_epochs`` even if the loss has improved in the meantime; with ``score`` it
        continues in that case.
    """

    learning_rate: float | RangeTest
    batch_size: int
    max_epochs: int
    min_epochs: int
    patience: int
    schedule: Schedule
    stop_on: str = "score"


class EarlyStopping:
    """Early stopping of one model: counts the epochs without improvement."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.best = -math.inf
        self.epochs_since_best = 0
        self.triggered = False

    def should_stop(self, epoch: int, score: float | None, validation_loss: float | None) -> bool:
        """Record the result of an epoch; return whether training stops after it.

        Call it once after every epoch, counted from 1. A value that is not finite counts as
        exhausted patience. Training never stops if the quantity that ``config.stop_on`` names is
        None.
        """
        sticky = self.config.stop_on == "loss"
        value = None if validation_loss is None else -validation_loss
        if not sticky:
            value = score
        if value is None:
            return False
        if value > self.best:
            self.best, self.epochs_since_best = value, 0
        else:
            self.epochs_since_best += 1
        exhausted = self.epochs_since_best >= self.config.patience or not math.isfinite(value)
        self.triggered = exhausted or (sticky and self.triggered)
        return self.triggered and epoch >= self.config.min_epochs
