"""Registry of metrics by name, each with its inputs, direction and range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mmlab.metrics import classification, reconstruction, structure

Kind = Literal["classification", "clustering", "reconstruction", "neighbourhood", "redundancy"]


@dataclass(frozen=True)
class Metric:
    """A metric: a function of arrays, its direction and its range.

    Attributes
    ----------
    function
        Function that takes the arrays of its ``kind`` and returns a float.
    kind
        Arguments of the function. ``classification``: true and predicted class indices.
        ``clustering``: true class indices and clusters. ``reconstruction``: expression and its
        reconstruction. ``neighbourhood``: expression of the panel genes and of all genes.
        ``redundancy``: expression of the panel genes.
    direction
        ``max`` if higher is better, ``min`` if lower is better.
    low, high
        Smallest and largest possible value.
    """

    function: Callable[..., float]
    kind: Kind
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
    "top_variance_jaccard": Metric(reconstruction.top_variance_jaccard, "reconstruction", "max"),
    "variance_rank_correlation": Metric(
        reconstruction.variance_rank_correlation, "reconstruction", "max", low=-1.0
    ),
    "mean_redundancy": Metric(structure.mean_redundancy, "redundancy", "min"),
    "max_redundancy": Metric(structure.max_redundancy, "redundancy", "min"),
    "neighbourhood_preservation": Metric(
        structure.neighbourhood_preservation, "neighbourhood", "max"
    ),
    "nmi": Metric(structure.nmi, "clustering", "max"),
    "ari": Metric(structure.ari, "clustering", "max", low=-0.5),
    "l1": Metric(reconstruction.mean_absolute_error, "reconstruction", "min", high=math.inf),
}
