"""The learning rate range test of the published training (METHODS 3.4)."""

from __future__ import annotations

import copy
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlab.nn.batches import Loss, batches, take_step
from mmlab.nn.networks import PanelModel
from mmlab.nn.recipe import RangeTest, TrainingConfig

_LOWEST = 1e-8
_SMOOTHING = 0.98


def find_learning_rate(
    model: PanelModel,
    loss: Loss,
    config: TrainingConfig,
    test: RangeTest,
    generator: torch.Generator,
    x: Tensor,
    y: Tensor,
) -> float:
    """Learning rate at which the smoothed loss falls fastest while the rate rises linearly.

    The model is trained with Adam at rates from 1e-8 to ``test.highest`` and then put back as
    it was. The temperature falls from epoch to epoch, as in the training.

    Returns
    -------
    A rate between 1e-8 and ``test.highest``.
    """
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=_LOWEST, fused=True)
    model.train()
    rates = _LOWEST + np.arange(1, test.steps + 1) / test.steps * (test.highest - _LOWEST)
    rates[0] = _LOWEST
    steps = (
        (config.schedule.temperature(epoch), indices)
        for epoch in count(1)
        for indices in batches(len(x), config.batch_size, generator)
    )
    losses = []
    for rate, (temperature, indices) in zip(rates, islice(steps, test.steps), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        losses.append(float(take_step(model, optimizer, loss, x[indices], y[indices], temperature)))
    model.load_state_dict(before)
    return float(rates[steepest_descent(np.array(losses))])


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
