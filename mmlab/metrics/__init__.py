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
    meaning
        What its values are, in a few words with the unit.
    low, high
        Smallest and largest possible value.
    """

    function: Callable[..., float]
    kind: Kind
    direction: Literal["max", "min"]
    meaning: str
    low: float = 0.0
    high: float = 1.0


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        classification.accuracy, "classification", "max", "share of the cells with the right type"
    ),
    "weighted_f1": Metric(
        classification.weighted_f1,
        "classification",
        "max",
        "F1 of the types, weighted by their cells, 0 to 1",
    ),
    "balanced_accuracy": Metric(
        classification.balanced_accuracy,
        "classification",
        "max",
        "share of the cells with the right type, averaged over the types",
    ),
    "mean_misclassification": Metric(
        classification.mean_misclassification,
        "classification",
        "min",
        "one minus the precision, averaged over the types",
    ),
    "mean_f1": Metric(
        classification.mean_f1, "classification", "max", "F1, averaged over the types, 0 to 1"
    ),
    "l2": Metric(
        reconstruction.mean_squared_error,
        "reconstruction",
        "min",
        "mean squared error of z-scores, in variances of a gene",
        high=math.inf,
    ),
    "explained_variance": Metric(
        reconstruction.explained_variance,
        "reconstruction",
        "max",
        "share of the variance of all genes, at most 1",
        low=-math.inf,
    ),
    "top_variance_jaccard": Metric(
        reconstruction.top_variance_jaccard,
        "reconstruction",
        "max",
        "overlap of the 20 % most variable genes, 0 to 1",
    ),
    "variance_rank_correlation": Metric(
        reconstruction.variance_rank_correlation,
        "reconstruction",
        "max",
        "rank correlation of the variances of the genes, -1 to 1",
        low=-1.0,
    ),
    "mean_redundancy": Metric(
        structure.mean_redundancy,
        "redundancy",
        "min",
        "mean absolute correlation of two panel genes, 0 to 1",
    ),
    "max_redundancy": Metric(
        structure.max_redundancy,
        "redundancy",
        "min",
        "largest absolute correlation of two panel genes, 0 to 1",
    ),
    "neighbourhood_preservation": Metric(
        structure.neighbourhood_preservation,
        "neighbourhood",
        "max",
        "share of a cell's nearest neighbours by all genes that the panel keeps",
    ),
    "nmi": Metric(
        structure.nmi,
        "clustering",
        "max",
        "normalised mutual information of clusters and types, 0 to 1",
    ),
    "ari": Metric(
        structure.ari,
        "clustering",
        "max",
        "adjusted Rand index of clusters and types, 0 by chance, at most 1",
        low=-0.5,
    ),
    "l1": Metric(
        reconstruction.mean_absolute_error,
        "reconstruction",
        "min",
        "mean absolute error of z-scores, in standard deviations of a gene",
        high=math.inf,
    ),
}
