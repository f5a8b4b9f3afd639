"""Learning rate range test, as in the published training of MarkerMap."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlab.nn.batches import (
    Loss,
    Optimizer,
    epoch_temperatures,
    gather_cells,
    shuffled_minibatches,
    training_step,
)
from mmlab.nn.cell_reader import CellTensor
from mmlab.nn.networks import PanelModel
from mmlab.nn.training_config import RangeTest, TrainingConfig

_LOWEST_RATE = 1e-8
_SMOOTHING = 0.98


def find_learning_rates(
    model: PanelModel,
    loss: Loss,
    configs: Sequence[TrainingConfig],
    test: RangeTest,
    x: CellTensor,
    y: Tensor,
) -> list[float]:
    """Find the learning rate of each model by a range test.

    The models are trained with Adam, while the learning rate rises linearly from 1e-8 to
    ``test.highest`` and the temperature changes with the epoch as in the training. The result is
    the rate at which the smoothed loss falls fastest. Afterwards the initial state of the models
    is restored.

    Returns
    -------
    Learning rates between 1e-8 and ``test.highest``, one per model.
    """
    noise = model.gate.noise
    initial_state = copy.deepcopy(model.state_dict())
    optimizer = Optimizer(model, [_LOWEST_RATE] * len(noise))
    model.train()
    rates = _LOWEST_RATE + np.arange(1, test.steps + 1) / test.steps * (test.highest - _LOWEST_RATE)
    rates[0] = _LOWEST_RATE
    steps = (
        (epoch_temperatures(configs, epoch, x.device), indices)
        for epoch in count(1)
        for indices in shuffled_minibatches(x.shape[1], configs[0].batch_size, noise)
    )
    losses = []
    for rate, (temperature, indices) in zip(rates, islice(steps, test.steps), strict=True):
        optimizer.set_learning_rate(float(rate))
        cells, labels = gather_cells(x, indices), gather_cells(y, indices)
        losses.append(training_step(model, optimizer, loss, cells, labels, temperature))
    model.load_state_dict(initial_state)
    curves = torch.stack(losses).cpu().numpy().astype(np.float64)
    return [float(rates[steepest_descent(curve)]) for curve in curves.T]


def steepest_descent(losses: NDArray[np.float64]) -> int:
    """Return the index at which the exponentially smoothed loss falls fastest.

    As in the published training, the smoothing weight is 0.98, the bias correction counts one
    step too many, and the first ten points and the last point are ignored.
    """
    average, smoothed = 0.0, np.empty(len(losses))
    for i, value in enumerate(losses):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * value
        smoothed[i] = average / (1 - _SMOOTHING ** (i + 2))
    return 10 + int(np.argmin(np.gradient(smoothed[10:-1])))
