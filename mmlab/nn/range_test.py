"""The learning rate range test of the published training (METHODS 3.4)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlab.nn.batches import Loss, Optimizer, batches, take, take_step, temperatures
from mmlab.nn.cell_reader import CellTensor
from mmlab.nn.networks import PanelModel
from mmlab.nn.training_config import RangeTest, TrainingConfig

_LOWEST = 1e-8
_SMOOTHING = 0.98


def find_learning_rates(
    model: PanelModel,
    loss: Loss,
    configs: Sequence[TrainingConfig],
    test: RangeTest,
    x: CellTensor,
    y: Tensor,
) -> list[float]:
    """Rates at which the smoothed loss of each model falls fastest while the rate rises linearly.

    The models are trained with Adam at rates from 1e-8 to ``test.highest`` and then put back as
    they were. The temperature falls from epoch to epoch, as in the training.

    Returns
    -------
    Rates between 1e-8 and ``test.highest``, one a model.
    """
    noise = model.gate.noise
    before = copy.deepcopy(model.state_dict())
    optimizer = Optimizer(model, [_LOWEST] * len(noise))
    model.train()
    rates = _LOWEST + np.arange(1, test.steps + 1) / test.steps * (test.highest - _LOWEST)
    rates[0] = _LOWEST
    steps = (
        (temperatures(configs, epoch, x.device), indices)
        for epoch in count(1)
        for indices in batches(x.shape[1], configs[0].batch_size, noise)
    )
    losses = []
    for rate, (warm, indices) in zip(rates, islice(steps, test.steps), strict=True):
        optimizer.set_rate(float(rate))
        cells, labels = take(x, indices), take(y, indices)
        losses.append(take_step(model, optimizer, loss, cells, labels, warm))
    model.load_state_dict(before)
    curves = torch.stack(losses).cpu().numpy().astype(np.float64)
    return [float(rates[steepest_descent(curve)]) for curve in curves.T]


def steepest_descent(losses: NDArray[np.float64]) -> int:
    """Index where the exponentially smoothed loss falls fastest.

    As published: smoothing weight 0.98, bias-corrected with one step too many; the first ten
    and the last point do not count.
    """
    average, smoothed = 0.0, np.empty(len(losses))
    for i, value in enumerate(losses):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * value
        smoothed[i] = average / (1 - _SMOOTHING ** (i + 2))
    kept = smoothed[10:-1]
    return 10 + int(np.argmin(np.gradient(kept)))
