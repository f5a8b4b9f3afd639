"""Selectors with parameters that fit the tiny test data fast, also in a spawned process."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny import MARKERS, SMALL_OF_ALL

from mmlab.selectors import SELECTORS, Selector

K = 6


def small(name: str, n_markers: int = K, **params: Any) -> Selector:
    """Return a selector with those of the small test parameters that it has."""
    kind: Any = SELECTORS[name]
    known = inspect.signature(kind).parameters
    small_params: dict[str, Any] = {
        key: value for key, value in SMALL_OF_ALL.items() if key in known
    }
    if "markers" in known:
        small_params["markers"] = [gene for genes in MARKERS for gene in genes if gene < 30]
    selector: Selector = kind(n_markers, **(small_params | params))
    return selector


def fit_in_spawned_process(
    jobs: list[tuple[str, Any]], labels: NDArray[np.str_]
) -> dict[str, tuple[list[int], list[float]]]:
    """Return panel and scores by name; jobs are pairs of a name and a matrix."""
    results = {}
    for name, x in jobs:
        selector = small(name).fit(x, labels)
        results[name] = selector.panel_.tolist(), selector.scores_.tolist()
    return results
