"""Metrics in words: what they are computed on, their unit, and what is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mmlab.metrics import METRICS

Direction = Literal["max", "min"]

#: What metrics are computed on, by the first part of their name, in the order of tables.
SOURCES = {
    "knn": "k-nearest neighbours",
    "random_forest": "random forest",
    "clean_knn": "k-nearest neighbours, fitted on true labels",
    "clean_random_forest": "random forest, fitted on true labels",
    "linear": "linear reconstruction of all genes",
    "decoder": "reconstruction of all genes by the method's decoder",
    "leiden": "clusters of the panel (Leiden)",
    "panel": "genes of the panel",
}
#: Direction and meaning of measures that are not functions of one panel.
_OTHERS: dict[str, tuple[Direction, str]] = {
    "nogueira": ("max", "agreement of the panels of the replicates, 0 by chance, at most 1"),
    "fit_seconds": ("min", "seconds that the method takes for a panel"),
}
#: Which values of a metric are better, by its direction.
BETTER: dict[Direction, str] = {"max": "higher", "min": "lower"}


def describe_metric(metric: str) -> tuple[Direction, str]:
    """Return direction and meaning of a metric such as ``knn/accuracy``."""
    name = metric.rpartition("/")[2]
    if name in _OTHERS:
        return _OTHERS[name]
    return METRICS[name].direction, METRICS[name].meaning


def legend(columns: Mapping[str, str]) -> str:
    """Return what is better and the unit of each column of a table, in one line.

    Parameters
    ----------
    columns
        Heading of each column by metric.
    """
    described: dict[Direction, list[str]] = {"max": [], "min": []}
    for metric, heading in columns.items():
        direction, meaning = describe_metric(metric)
        described[direction].append(f"{heading} ({meaning})")
    return " ".join(
        f"{BETTER[direction].capitalize()} is better: {', '.join(texts)}."
        for direction, texts in described.items()
        if texts
    )
