"""How a model is trained: learning rate, temperature, and when it is enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Temperature of the soft panel over the training."""

    def temperature(self, epoch: int) -> float:
        """Temperature of an epoch, counted from 1."""


@dataclass(frozen=True)
class Annealing:
    """Falls geometrically from ``initial`` (epoch 1) to ``final`` (epoch ``last``), then stays."""

    initial: float
    final: float
    last: int

    def temperature(self, epoch: int) -> float:
        """Temperature of an epoch, counted from 1."""
        progress = 1.0 if self.last <= 1 else min((epoch - 1) / (self.last - 1), 1.0)
        return float(self.initial * (self.final / self.initial) ** progress)


@dataclass(frozen=True)
class Decay:
    """The published schedule: multiplied by ``rate`` after every epoch, down to ``floor``."""

    initial: float
    rate: float
    floor: float

    def temperature(self, epoch: int) -> float:
        """Temperature of an epoch, counted from 1."""
        return max(self.initial * self.rate ** (epoch - 1), self.floor)


@dataclass(frozen=True)
class RangeTest:
    """Find the learning rate by a range test up to ``highest`` (METHODS 3.4).

    Attributes
    ----------
    highest
        Learning rate of the last step.
    steps
        At most; a smoothed loss is recorded at each, and the rate of its steepest descent wins.
    """

    highest: float
    steps: int = 500


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and how warm a model trains; checked by the selector that fills it.

    Attributes
    ----------
    learning_rate
        Of Adam: a number, or how to find it.
    schedule
        Of the temperature.
    stop_on
        ``score``: end once the score of the hard panel has not risen for ``patience`` epochs.
        ``loss``: the published way, a flag is raised for good once the validation loss has not
        fallen for ``patience`` epochs. Neither ends before ``min_epochs``.
    """

    learning_rate: float | RangeTest
    batch_size: int
    max_epochs: int
    min_epochs: int
    patience: int
    schedule: Schedule
    stop_on: str = "score"


class EarlyStopping:
    """Counts epochs without improvement; ``min_epochs`` have to be over first."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.best = -math.inf
        self.since_best = 0
        self.raised = False

    def ends(self, epoch: int, score: float | None, validation_loss: float | None) -> bool:
        """Take up an epoch; True when the training is over."""
        sticky = self.config.stop_on == "loss"
        value = None if validation_loss is None else -validation_loss
        if not sticky:
            value = score
        if value is None:
            return False
        if value > self.best:
            self.best, self.since_best = value, 0
        else:
            self.since_best += 1
        waited = self.since_best >= self.config.patience or not math.isfinite(value)
        self.raised = waited or (sticky and self.raised)
        return self.raised and epoch >= self.config.min_epochs
