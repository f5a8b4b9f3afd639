"""Metrics by name, each with its direction and its range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from mmlab.metrics import classification, reconstruction


@dataclass(frozen=True)
class Metric:
    """A plain function of two arrays (truth, prediction) and what its number means.

    Attributes
    ----------
    function
        (truth, prediction) -> float.
    kind
        ``classification`` compares class indices, ``reconstruction`` expression matrices.
    direction
        ``max`` where higher is better, else ``min``.
    low, high
        Smallest and largest possible value.
    """

    function: Callable[[Any, Any], float]
    kind: Literal["classification", "reconstruction"]
    direction: Literal["max", "min"]
    low: float = 0.0
    high: float = 1.0


METRICS: dict[str, Metric] = {
    "accuracy": Metric(classification.accuracy, "classification", "max"),
    "weighted_f1": Metric(classification.weighted_f1, "classification", "max"),
    "balanced_accuracy": Metric(classification.balanced_accuracy, "classification", "max"),
    "mean_misclassification": Metric(
        classification.mean_misclassification, "classification", "min"
    ),
    "mean_f1": Metric(classification.mean_f1, "classification", "max"),
    "l2": Metric(reconstruction.mean_squared_error, "reconstruction", "min", high=math.inf),
    "explained_variance": Metric(
        reconstruction.explained_variance, "reconstruction", "max", low=-math.inf
    ),
    "l1": Metric(reconstruction.mean_absolute_error, "reconstruction", "min", high=math.inf),
}
